package innatetest_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"innate"
	"innate/audit"
	"innate/innatetest"
	"innate/platform"
)

// Design §7, truth 4: the decision is in the file before the caller has the answer.
func TestEveryDecisionIsInTheAuditLogBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	api, kv := p.App("api"), p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	who := api.Principal()
	const reading = "Microsoft.KeyVault/vaults/secrets/getSecret/action"
	decided := func(action string, allowed bool) (found []audit.Event) {
		for _, ev := range recorded(t, p, "control") {
			if ev.Principal == who && ev.Action == action && ev.Allowed == allowed {
				found = append(found, ev)
			}
		}
		return found
	}

	tok := api.Token("https://vault.azure.net")
	issued := decided("issue-token", true)
	if len(issued) != 1 {
		t.Fatalf("a token was handed out, and %d events say so", len(issued))
	}
	if ev := issued[0]; ev.Token != payload(t, tok)["uti"] || ev.Assurance != innate.SecretOnly || !api.ID().Equal(innate.ResourceID(ev.Hosting)) {
		t.Errorf("the event is of another token, or does not say how its bearer was proved: %+v", ev)
	}

	if code, _ := kv.GetWith(tok, "db-password"); code != http.StatusForbidden {
		t.Fatalf("deny by default: got %d, want 403", code)
	}
	refused := decided(reading, false)
	if len(refused) != 1 {
		t.Fatalf("one refusal, %d events", len(refused))
	}
	if ev := refused[0]; ev.Why == "" || ev.Token != issued[0].Token || ev.Assurance != innate.SecretOnly {
		t.Errorf("the event does not say why, to whose token, or how its bearer was proved: %+v", ev)
	}

	p.Grant(api, "Key Vault Secrets User", kv)
	for n := 1; n <= 3; n++ {
		if code, _ := kv.GetWith(tok, "db-password"); code != http.StatusOK {
			t.Fatalf("granted: got %d", code)
		}
		if got := len(decided(reading, true)); got != n {
			t.Fatalf("%d reads answered, %d events", n, got)
		}
	}
}

// A notebook is a log that may be read while it is written.
type notebook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (n *notebook) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(b)
}

func (n *notebook) bytes() []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return bytes.Clone(n.text.Bytes())
}

// Design §7, truth 5.
func TestNoSecretAndNoTokenIsInAnyFileOrLog(t *testing.T) {
	t.Parallel()
	var log notebook
	p := innatetest.Start(t, func(c *platform.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	const value = "correct-horse-battery-staple"
	api, kv := p.App("api"), p.Vault("kv1")
	kv.Put("db-password", value)
	orders := register(t, p, map[string]any{"displayName": "orders", "identifierUris": []string{"api://orders"}})
	d := doorOf(t, api.Env())
	held := d.token(t, "https://vault.azure.net").Token
	byPassword := byClientSecret(t, p, orders, "api://orders/.default")

	// What is written about refusals is where secrets slip out.
	if code, _ := kv.GetWith(held, "db-password"); code != http.StatusForbidden {
		t.Fatalf("without a role: %d", code)
	}
	p.Grant(api, "Key Vault Secrets User", kv)
	if code, _ := kv.GetWith(held, "db-password"); code != http.StatusOK {
		t.Fatalf("granted: %d", code)
	}
	kv.GetWith(held+"x", "db-password")
	d.ask(t, "?api-version=2019-08-01&resource="+d.secret, "X-IDENTITY-HEADER: "+d.secret+"x")
	postForm(t, p, "grant_type=client_credentials&client_id="+string(orders.Client)+"&client_secret="+orders.secret+"&scope=api://nobody/.default")
	postForm(t, p, "grant_type=client_credentials&client_id="+string(orders.Client)+"&client_assertion="+held+"&scope=api://orders/.default")
	p.Delete(api)

	secrets := map[string]string{
		"the secret's value": value, "a client secret": orders.secret, "the app's IDENTITY_HEADER": d.secret,
		"a token": held, "a token's signature": held[strings.LastIndexByte(held, '.')+1:], "another token": byPassword,
	}
	check := func(where string, text []byte) {
		for what, s := range secrets {
			if bytes.Contains(text, []byte(s)) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
	check("the log", log.bytes())
	files := 0
	if err := filepath.WalkDir(string(p.Dir), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the agent keeps its tokens, sealed, in a file that it replaces
		}
		files++
		check(path, text)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if files < 5 || len(log.bytes()) == 0 {
		t.Errorf("looked into %d files and %d bytes of log: that cannot be all", files, len(log.bytes()))
	}
}

func postForm(t *testing.T, p *innatetest.Platform, form string) {
	t.Helper()
	resp, err := p.Client().Post(p.Admin.Info.Login+"/"+string(p.Admin.Info.Tenant)+"/oauth2/v2.0/token", "application/x-www-form-urlencoded", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode < http.StatusBadRequest {
		t.Errorf("a bad request for a token: %s", resp.Status)
	}
}

// Design §7, truth 7.
func TestManyCallersWaitForOneUpstreamCall(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	api := p.App("api")
	d := doorOf(t, api.Env())
	const callers = 40
	tokens := make([]string, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() { tokens[i] = d.token(t, "https://vault.azure.net").Token })
	}
	all.Wait()
	for _, tok := range tokens {
		if tok == "" || tok != tokens[0] {
			t.Fatal("callers who asked at the same time were given different tokens, or none")
		}
	}
	calls := 0
	for _, ev := range recorded(t, p, "control") {
		if ev.Action == "issue-token" && ev.Principal == api.Principal() {
			calls++
		}
	}
	if calls != 1 {
		t.Errorf("%d callers, %d upstream calls; want 1", callers, calls)
	}
}
