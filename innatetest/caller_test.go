package innatetest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/access"
	"innate/agent"
	"innate/agent/caller"
	"innate/agent/launch"
	"innate/audit"
	"innate/innatetest"
)

// recorded reads what an agent or a control plane decided, oldest first.
func recorded(t *testing.T, p *innatetest.Platform, part string) (all []audit.Event) {
	t.Helper()
	for ev, err := range audit.Read(filepath.Join(string(p.Dir), part, "audit.log")) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ev)
	}
	return all
}

// strong skips a test where this machine cannot prove an app's callers by cgroup and uid.
func strong(t *testing.T, p *innatetest.Platform) {
	t.Helper()
	if st := p.Agent.Status(); st.Assurance < innate.CgroupUID {
		t.Skipf("callers are proved by %s only: %s", st.Assurance, st.Why)
	}
}

// lodger starts a generation of an app that does nothing, and returns its
// environment. It ends with the test.
func lodger(t *testing.T, p *innatetest.Platform, app *innatetest.App) []string {
	t.Helper()
	in, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, say, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := agent.Run(p.Dir.AgentSocket(), agent.RunRequest{
			App: string(app.ID()), Args: []string{"/bin/sh", "-c", "env; echo; exec cat"}, Dir: "/",
			Env: []string{"PATH=/usr/bin:/bin"}, Stdin: in, Stdout: say,
		})
		in.Close()
		say.Close()
		ended <- err
	}()
	t.Cleanup(func() {
		hold.Close()
		if err := <-ended; err != nil {
			t.Errorf("the lodger ended with: %v", err)
		}
		out.Close()
	})
	var text []byte
	for b := make([]byte, 4096); !bytes.HasSuffix(text, []byte("\n\n")); {
		n, err := out.Read(b)
		if err != nil {
			t.Fatalf("reading the lodger's environment: %v", err)
		}
		text = append(text, b[:n]...)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// Two generations of an app have one uid and two cgroups.
func TestTheRightSecretFromAnotherCgroupIsRefusedAndSetsOffAnAlarm(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	strong(t, p)
	api := p.App("api")
	first := doorOf(t, lodger(t, p, api))
	steal := []string{"env", "IDENTITY_ENDPOINT=http://" + first.host + first.path, "IDENTITY_HEADER=" + first.secret}
	out, err := api.Run(append(steal, innatetest.Program(t), "sample", "token")...)
	if err == nil {
		t.Fatalf("a token: %s", out)
	}
	if !strings.Contains(err.Error(), "403") || !strings.Contains(err.Error(), "this endpoint belongs to another process") {
		t.Errorf("got %v, want 403 that says why", err)
	}
	for _, ev := range recorded(t, p, "agent") {
		if ev.Action == "get-token" && !ev.Allowed && ev.Why == "right secret, wrong caller" {
			if !api.ID().Equal(innate.ResourceID(ev.Hosting)) || ev.Assurance != innate.Unproved || !strings.Contains(ev.Detail["caller"], "cgroup") {
				t.Errorf("the event does not say whose endpoint, or what gave the caller away: %+v", ev)
			}
			alarmed(t, p, ev)
			return
		}
	}
	t.Error("no audit event says that the right secret came from a wrong caller")
}

// alarmed waits until the control plane has an event of its host.
func alarmed(t *testing.T, p *innatetest.Platform, want audit.Event) {
	t.Helper()
	want.Host, want.From = string(p.Machine), string(p.Machine)
	eventually(t, "whoever reads the control plane's audit sees the alarm", func() bool {
		for _, ev := range events(t, p.Admin, "refused=true&from="+p.Machine.Name()) {
			if cmp.Diff(want, ev) == "" {
				return true
			}
		}
		return false
	})
}

func TestNoTokenBelowTheAssuranceThatTheAppDemands(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api := p.App("api")
	d := doorOf(t, api.Env()) // proved by its secret alone
	if r := d.token(t, "https://vault.azure.net"); r.Token == "" {
		t.Fatalf("before: got %d %s", r.Status, r.text())
	}
	p.ARM(http.MethodPatch, string(api.ID()), map[string]any{"properties": map[string]any{"minimumAssurance": innate.CgroupUID}}, nil)
	var r reply
	eventually(t, "the agent hears of the new minimum", func() bool {
		r = d.token(t, "https://vault.azure.net")
		return r.Token == ""
	})
	if r.Status != http.StatusForbidden || !strings.Contains(r.text(), "cgroup+uid") {
		t.Errorf("got %d %q, want 403 that names cgroup+uid", r.Status, r.text())
	}
	t.Run("a program run as the app gets one", func(t *testing.T) {
		strong(t, p)
		if claims := claimsOf(t, api); claims["innate_assurance"] != "cgroup+uid" {
			t.Errorf("assurance %v, want cgroup+uid", claims["innate_assurance"])
		}
	})
}

// A role is the other place for it: the app goes on elsewhere as it is.
func TestASecretIsNotReadBelowTheAssuranceThatTheRoleDemands(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api, kv := p.App("api"), p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	p.ARM(http.MethodPut, string(kv.ID())+"/providers/Microsoft.Authorization/roleAssignments/"+innate.NewGUID(), map[string]any{
		"properties": map[string]any{
			"roleDefinitionId": access.KeyVaultSecretsUser, "principalId": api.Principal(), "minimumAssurance": "cgroup+uid",
		},
	}, nil)
	status, text := kv.GetWith(api.Token("https://vault.azure.net"), "db-password") // proved by its secret alone
	if status != http.StatusForbidden || !strings.Contains(text, "proved by cgroup+uid or more surely") || !strings.Contains(text, "proof is secret-only") {
		t.Errorf("got %d %q, want 403 that says what the role demands and what there is", status, text)
	}
	t.Run("a program run as the app reads it", func(t *testing.T) {
		strong(t, p)
		out, err := sample(t, api, "secret", kv.URL(), "db-password")
		if err != nil || out != "hunter2" {
			t.Errorf("got %q, %v", out, err)
		}
	})
}

// namespace gives a VM a network namespace of its own in which its metadata
// service answers; only root may.
func namespace(t *testing.T, p *innatetest.Platform, vm *innatetest.VM) *os.File {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may make a network namespace")
	}
	ns, err := launch.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := agent.Attach(p.Dir.AgentSocket(), string(vm.ID()), agent.Place{NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.Fd())}); err != nil {
		t.Fatal(err)
	}
	return ns
}

// askMetadata sends a request to 169.254.169.254 from inside a namespace.
func askMetadata(t *testing.T, ns *os.File, target string, headers ...string) reply {
	t.Helper()
	var c net.Conn
	if err := caller.InNamespace(ns, func() (err error) {
		c, err = net.Dial("tcp4", "169.254.169.254:80")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return exchange(t, c, "169.254.169.254", target, headers...)
}

func TestAzidentityFindsTheMetadataServiceInsideTheVM(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	shared := p.Identity("shared")
	vm := p.VM("web-1", shared)
	ns := namespace(t, p, vm)
	for name, c := range map[string]struct {
		which string
		want  innatetest.Holder
	}{
		"system-assigned": {"", vm},
		"by client id":    {"client:" + string(shared.Client()), shared},
		"by object id":    {"object:" + string(shared.Principal()), shared},
		"by resource id":  {"resource:" + string(shared.ID()), shared},
	} {
		t.Run(name, func(t *testing.T) {
			claims := tokenInside(t, ns, "--identity", c.which)
			if claims["oid"] != string(c.want.Principal()) || claims["innate_assurance"] != "netns" {
				t.Errorf("oid %v by %v, want %s by netns", claims["oid"], claims["innate_assurance"], c.want.Principal())
			}
			if got, _ := claims["xms_az_rid"].(string); !vm.ID().Equal(innate.ResourceID(got)) {
				t.Errorf("xms_az_rid %v, want %s", got, vm.ID())
			}
		})
	}
}

// tokenInside runs the vendor's Go package in a namespace, and returns what its token says.
func tokenInside(t *testing.T, ns *os.File, args ...string) (claims map[string]any) {
	t.Helper()
	out, say, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	program := innatetest.Program(t)
	proc, err := launch.Start(launch.Spec{
		Args: append([]string{program, "sample", "token"}, args...), Dir: "/", Stdout: say, Stderr: os.Stderr,
		NetNS: ns, Stub: []string{program, "launch"},
	})
	say.Close()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if status, err := proc.Wait(); err != nil || status != 0 {
		t.Fatalf("sample token %s: status %d, %v", args, status, err)
	}
	if err := json.Unmarshal(text, &claims); err != nil {
		t.Fatalf("claims: %v in %q", err, text)
	}
	return claims
}

func TestTheOlderDotNetLibraryGetsItsTokenInsideTheVM(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	shared := p.Identity("shared")
	vm := p.VM("web-1", shared)
	ns := namespace(t, p, vm)
	if r := askMetadata(t, ns, "/metadata/instance?api-version=2020-06-01", "Metadata: true"); r.Status != http.StatusOK {
		t.Fatalf("its probe: got %d %s", r.Status, r.text())
	}
	for _, c := range []struct {
		name, query string
		want        innatetest.Holder
	}{
		{"1.4, RunAs=App", "?resource=https://database.windows.net/&api-version=2019-11-01", vm},
		{"1.4, RunAs=App;AppId=…", "?resource=https://vault.azure.net&client_id=" + string(shared.Client()) + "&api-version=2019-11-01", shared},
		{"1.0, RunAs=App", "?resource=https://vault.azure.net&api-version=2018-02-01", vm},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkForAppAuthentication(t, p, askMetadata(t, ns, "/metadata/identity/oauth2/token"+c.query, "Metadata: true"), c.want)
		})
	}
	t.Run("mistyped as in the article", func(t *testing.T) {
		checkMistyped(t, askMetadata(t, ns, "/metadata/identity/oauth2/token??resource=https://database.windows.net/&api-version=2018-02-01", "Metadata: true"))
	})
	t.Run("without the header", func(t *testing.T) {
		if r := askMetadata(t, ns, "/metadata/identity/oauth2/token?resource=https://vault.azure.net&api-version=2018-02-01"); r.Status != http.StatusBadRequest || r.Token != "" {
			t.Errorf("got %d, want 400: it could be a browser or a proxy tricked into asking", r.Status)
		}
	})
}
