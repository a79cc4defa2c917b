package innatetest_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"innate"
	"innate/innatetest"
)

func TestMain(m *testing.M) { innatetest.Main(m) }

// sample runs the vendor's Go packages as the app, in a process of their own.
func sample(t *testing.T, app *innatetest.App, args ...string) (string, error) {
	t.Helper()
	out, err := app.Run(append([]string{innatetest.Program(t), "sample"}, args...)...)
	return strings.TrimSpace(out), err
}

func claimsOf(t *testing.T, app *innatetest.App, args ...string) map[string]any {
	t.Helper()
	out, err := sample(t, app, append([]string{"token"}, args...)...)
	if err != nil {
		t.Fatalf("sample token %s: %v", args, err)
	}
	var claims map[string]any
	if err := json.Unmarshal([]byte(out), &claims); err != nil {
		t.Fatalf("claims: %v in %q", err, out)
	}
	return claims
}

func TestAGoProgramReadsASecretWithNoPasswordOnceGranted(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api, kv := p.App("api"), p.Vault("kv1")
	kv.Put("db-password", "hunter2")

	_, err := sample(t, api, "secret", kv.URL(), "db-password")
	if err == nil {
		t.Fatal("an app without a role read a secret")
	}
	for _, want := range []string{"403", "Microsoft.KeyVault/vaults/secrets/getSecret/action", "Key Vault Secrets User"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal does not say %q:\n%v", want, err)
		}
	}

	p.Grant(api, "Key Vault Secrets User", kv)
	got, err := sample(t, api, "secret", kv.URL(), "db-password")
	if err != nil || got != "hunter2" {
		t.Errorf("granted: got %q, %v; want hunter2", got, err)
	}
}

func TestANodeProgramReadsASecretWithNoPassword(t *testing.T) {
	needsNode(t)
	t.Parallel()
	checkProgram(t, "node", filepath.Join(public(t, "testdata/node"), "secret.mjs"))
}

// checkProgram runs a program that reads a secret with the vendor's packages
// (arguments: vault, name, client id of a shared identity): before and after it may.
func checkProgram(t *testing.T, command ...string) {
	t.Helper()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	shared := p.Identity("shared")
	api, kv := p.App("api", shared), p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	command = slices.Concat([]string{"env"}, fenced(t), command, []string{kv.URL(), "db-password"})
	run := func(args ...string) (string, error) {
		out, err := api.Run(slices.Concat(command, args)...)
		return strings.TrimSpace(out), err
	}
	if out, err := run(); err == nil || !strings.Contains(err.Error(), "403") || !strings.Contains(err.Error(), "Key Vault Secrets User") {
		t.Fatalf("without a role: got %q, %v; want 403 and the role that would do", out, err)
	}
	p.Grant(api, "Key Vault Secrets User", kv)
	if out, err := run(); err != nil || out != "hunter2" {
		t.Errorf("with its own identity: got %q, %v; want hunter2", out, err)
	}
	if out, err := run(string(shared.Client())); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("with the shared identity, which has no role: got %q, %v; want 403", out, err)
	}
	p.Grant(shared, "Key Vault Secrets User", kv)
	if out, err := run(string(shared.Client())); err != nil || out != "hunter2" {
		t.Errorf("with the shared identity by client id: got %q, %v; want hunter2", out, err)
	}
}

// folder is temporary; who may enter it is what t.TempDir does not let us say.
// Its path is short, for there may be sockets in it.
func folder(t *testing.T, mode fs.FileMode) string {
	t.Helper()
	return folderIn(t, "", mode)
}

// folderIn makes it in another folder than the usual one.
func folderIn(t *testing.T, parent string, mode fs.FileMode) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "innatetest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

// public copies a folder to where every uid may read it.
func public(t *testing.T, dir string) string {
	t.Helper()
	to := folder(t, 0o755)
	for _, cmd := range [][]string{{"cp", "-r", dir + "/.", to}, {"chmod", "-R", "a+rX", to}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd[0], err, out)
		}
	}
	return to
}

func TestAzidentitySelectsAnIdentityInEveryWay(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	shared := p.Identity("shared")
	api := p.App("api", shared)
	for name, c := range map[string]struct {
		which string
		want  innate.ObjectID
		mirid innate.ResourceID
	}{
		"system-assigned": {"", api.Principal(), api.ID()},
		"by client id":    {"client:" + string(shared.Client()), shared.Principal(), shared.ID()},
		"by object id":    {"object:" + string(shared.Principal()), shared.Principal(), shared.ID()},
		"by resource id":  {"resource:" + string(shared.ID()), shared.Principal(), shared.ID()},
	} {
		t.Run(name, func(t *testing.T) {
			claims := claimsOf(t, api, "--identity", c.which)
			if claims["oid"] != string(c.want) || claims["sub"] != string(c.want) {
				t.Errorf("oid %v, sub %v; want %s", claims["oid"], claims["sub"], c.want)
			}
			if got, _ := claims["xms_mirid"].(string); !c.mirid.Equal(innate.ResourceID(got)) {
				t.Errorf("xms_mirid %v, want %s", got, c.mirid)
			}
			if got, _ := claims["xms_az_rid"].(string); !api.ID().Equal(innate.ResourceID(got)) {
				t.Errorf("xms_az_rid %v, want %s", got, api.ID())
			}
		})
	}
	other := p.Identity("other")
	if out, err := sample(t, api, "token", "--identity", "client:"+string(other.Client())); err == nil {
		t.Errorf("an identity that is not attached gave %s", out)
	} else if !strings.Contains(err.Error(), "400") {
		t.Errorf("an identity that is not attached: got %v, want 400", err)
	}
}

func TestTwoAppsThatShareAnIdentityGetTokensOfTheirOwn(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	shared := p.Identity("shared")
	a, b := p.App("a", shared), p.App("b", shared)
	which := "client:" + string(shared.Client())
	inA, inB := claimsOf(t, a, "--identity", which), claimsOf(t, b, "--identity", which)
	if inA["oid"] != inB["oid"] {
		t.Errorf("one identity, two object ids: %v and %v", inA["oid"], inB["oid"])
	}
	for app, claims := range map[*innatetest.App]map[string]any{a: inA, b: inB} {
		if got, _ := claims["xms_az_rid"].(string); !app.ID().Equal(innate.ResourceID(got)) {
			t.Errorf("the token of %s names %s", app.ID(), got)
		}
	}
	if inA["uti"] == inB["uti"] {
		t.Error("two apps were given one token")
	}
	p.Delete(a)
	if again := claimsOf(t, b, "--identity", which); again["oid"] != inB["oid"] {
		t.Errorf("a deleted, b asks: got oid %v, want %v", again["oid"], inB["oid"])
	}
}
