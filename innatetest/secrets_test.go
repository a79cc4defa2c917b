package innatetest_test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate/innatetest"
)

// wholeLife is what a client prints that does all it can with secrets.
const wholeLife = `set hunter2 text/plain test
latest hunter3
older hunter2
versions 2 true
listed 31
disabled 403
updated true 2051319845 live
deleted db-password true true
gone 404
taken 409
among the deleted 1 db-password
recovered hunter3
purged 404
restored db-password hunter3
with its versions hunter2
restored twice 409
`

// checkWholeLife runs a program as an app; its argument is the vault.
func checkWholeLife(t *testing.T, command ...string) {
	t.Helper()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api, kv := p.App("api"), p.Vault("kv1")
	p.Grant(api, "Key Vault Secrets Officer", kv)
	out, err := api.Run(slices.Concat([]string{"env"}, fenced(t), command, []string{kv.URL()})...)
	if diff := cmp.Diff(wholeLife, out); diff != "" || err != nil {
		t.Errorf("%s (-want +got): %v\n%s", command[0], err, diff)
	}
}

func TestNodeDoesAllThatItsClientCanWithSecrets(t *testing.T) {
	needsNode(t)
	t.Parallel()
	checkWholeLife(t, "node", filepath.Join(public(t, "testdata/node"), "secrets.mjs"))
}

func TestInteropPythonDoesAllThatItsClientCanWithSecrets(t *testing.T) {
	installed(t, "python3-azure")
	t.Parallel()
	checkWholeLife(t, "/usr/bin/python3", filepath.Join(public(t, "testdata/python"), "secrets_life.py"))
}

// Debian's az has no 'keyvault secret' (client-facts 12), but any request.
func TestInteropTheAzureCLIDoesEverythingWithSecretsByRest(t *testing.T) {
	installed(t, "azure-cli")
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api, kv := p.App("api"), p.Vault("kv1")
	p.Grant(api, "Reader", everything(p))
	p.Grant(api, "Key Vault Secrets Officer", kv)
	az := newAzureCLI(t, api)
	az.use(p)
	az.must("login", "--identity")
	rest := func(method, path, body string) []string {
		args := []string{"rest", "--resource", "https://vault.azure.net", "--method", method, "--url", kv.URL() + path + "?api-version=7.4"}
		if body != "" {
			args = append(args, "--body", body)
		}
		return args
	}
	type secret struct {
		ID, Value string
		Tags      map[string]string
	}
	var set, got secret
	az.into(&set, rest("put", "/secrets/db-password", `{"value":"hunter2"}`)...)
	id := strings.TrimPrefix(set.ID, kv.URL())
	az.into(&got, rest("patch", id, `{"tags":{"stage":"live"}}`)...)
	az.into(&got, rest("get", "/secrets/db-password", "")...)
	if got.Value != "hunter2" || got.Tags["stage"] != "live" || got.ID != set.ID {
		t.Errorf("got %+v, set %+v", got, set)
	}
	for _, list := range []string{"/secrets", "/secrets/db-password/versions"} {
		var page struct{ Value []secret }
		az.into(&page, rest("get", list, "")...)
		if len(page.Value) != 1 || page.Value[0].Value != "" {
			t.Errorf("%s: %+v", list, page)
		}
	}
	var backup secret
	az.into(&backup, rest("post", "/secrets/db-password/backup", "")...)
	az.must(rest("delete", "/secrets/db-password", "")...)
	az.must(rest("post", "/deletedsecrets/db-password/recover", "")...)
	az.must(rest("delete", "/secrets/db-password", "")...)
	az.must(rest("get", "/deletedsecrets/db-password", "")...)
	az.must(rest("delete", "/deletedsecrets/db-password", "")...)
	blob, err := json.Marshal(map[string]string{"value": backup.Value})
	if err != nil {
		t.Fatal(err)
	}
	az.must(rest("post", "/secrets/restore", string(blob))...)
	az.into(&got, rest("get", id, "")...)
	if got.Value != "hunter2" {
		t.Errorf("restored: got %+v", got)
	}
}
