package agent_test

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"innate"
	"innate/agent"
	"innate/audit"
	"innate/feed/client"
)

// login is one of the n-th identity at a server.
func login(server string, role string, n int) client.Login {
	host := server + ".postgres.innate.test"
	return client.Login{
		Server: innate.ResourceID(prefix + "Microsoft.DBforPostgreSQL/flexibleServers/" + server), Host: host, Port: 5432,
		Role: role, Audience: "https://" + host, Identity: ident(n, true).Object,
	}
}

// with is the app with log-ins.
func with(pl client.Placement, all ...client.Login) client.Placement {
	pl.Logins = all
	return pl
}

// loginsFolder is a generation's folder of log-ins as the host sees it.
func (r running) loginsFolder(t *testing.T, generation int) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(r.dir, "run", "postgres", fmt.Sprintf("Api-*-g%d", generation)))
	if err != nil || len(found) != 1 {
		t.Fatalf("folders of generation %d: %q %v", generation, found, err)
	}
	return found[0]
}

// passes reads a password file: each line without its password, and the passwords.
func passes(t *testing.T, folder string) (lines, passwords []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(folder, "pgpass"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		line, whole := strings.CutSuffix(line, "\n")
		at := strings.Index(line, ":11111111-") // tokens of the test begin with a client id
		if at < 0 || !whole {
			t.Fatalf("a line of the password file is %q", line)
		}
		lines, passwords = append(lines, line[:at]), append(passwords, line[at+1:])
	}
	return lines, passwords
}

// lists reports whether a password file has exactly these lines.
func lists(t *testing.T, folder string, want ...string) bool {
	t.Helper()
	got, _ := passes(t, folder)
	return slices.Equal(got, want)
}

// testAuthority is a certificate in no other use.
func testAuthority(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newPlane(t).ca.Raw})))
}

func TestAnAppFindsItsLogInsInAFileOfItsOwn(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	second := login("db-2", `we"ird:ro\le`, 1)
	second.Port, second.Authorities = 6432, testAuthority(t)
	p.place(with(app(ident(1, true)), login("db-1", "app-orders", 1), second, login("db-1", "*", 1), login("db-1", "two\nlines", 1), login("db-1", "another's", 2)))
	a := p.start(nil)
	run := a.run(t, "api", `/usr/bin/env; echo .; cat "$PGPASSFILE"; echo .; stat -c '%a %u' "$PGPASSFILE"; cat "$PGSSLROOTCERT"; echo; echo .; read x`)
	env := run.environ(t)
	for name, want := range map[string]string{"PGSSLMODE": "verify-full", "PGHOST": "", "PGUSER": "", "NODE_EXTRA_CA_CERTS": filepath.Join(filepath.Dir(env["PGPASSFILE"]), "node.crt")} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	read := func() (all []string) {
		for line := run.line(t); line != "."; line = run.line(t) {
			all = append(all, line)
		}
		return all
	}
	token := func(server string) string {
		return `11111111-0000-0000-0000-000000000001|https\://` + server + `.postgres.innate.test|` + run.started.Assurance.String() + `|`
	}
	want := []string{
		`db-1.postgres.innate.test:5432:*:app-orders:` + token("db-1"),
		`db-2.postgres.innate.test:6432:*:we"ird\:ro\\le:` + token("db-2"),
		`db-1.postgres.innate.test:5432:*:\*:` + token("db-1"),
	}
	lines := read()
	for i, line := range lines {
		if i >= len(want) || !strings.HasPrefix(line, want[i]) {
			t.Errorf("line %d of the password file is %q", i+1, line)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("the password file has %d lines, want %d", len(lines), len(want))
	}
	rest := read()
	if mode := fmt.Sprintf("600 %d", run.started.UID); rest[0] != mode {
		t.Errorf("the password file is %s, want %s", rest[0], mode)
	}
	if roots := strings.Join(rest[1:], "\n"); strings.Count(roots, "BEGIN CERTIFICATE") != 2 || !strings.Contains(roots, second.Authorities) {
		t.Errorf("the authorities are %s, want the platform's and the second server's", roots)
	}
	if n := p.calls.Load(); n != 2 {
		t.Errorf("%d upstream calls, want one for each server", n)
	}
	if os.Getuid() == 0 {
		folder := a.loginsFolder(t, 1)
		var st syscall.Stat_t
		if err := syscall.Stat(folder, &st); err != nil || st.Uid != 0 || st.Gid != run.started.UID || st.Mode&0o777 != 0o750 {
			t.Errorf("the folder is of %d:%d, %o, %v; want root's, which the app can read and not change", st.Uid, st.Gid, st.Mode&0o777, err)
		}
		other := exec.Command("cat", filepath.Join(folder, "pgpass"))
		other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := other.Output(); err == nil {
			t.Errorf("another user reads the file: %d bytes", len(out))
		}
	}
	run.in.Close()
	<-run.ended
	if left, _ := filepath.Glob(filepath.Join(a.dir, "run", "postgres", "*")); len(left) > 0 {
		t.Errorf("%q is left when the app has ended", left)
	}
}

func TestOneLogInIsWhereClientsGoByThemselves(t *testing.T) {
	t.Parallel()
	one := login("db-1", "app", 1)
	own := login("db-1", "app", 2) // the same role by another identity
	for _, c := range []struct {
		name     string
		logins   []client.Login
		settings map[string]string
		env      []string
		want     string
	}{
		{"one", []client.Login{one}, nil, nil, "db-1.postgres.innate.test 5432 app verify-full"},
		{"one by two identities", []client.Login{one, own}, nil, nil, "db-1.postgres.innate.test 5432 app verify-full"},
		{"two", []client.Login{one, login("db-1", "other", 1)}, nil, nil, "   verify-full"},
		{"settings win", []client.Login{one}, map[string]string{"PGHOST": "elsewhere", "PGSSLMODE": "require"}, nil, "elsewhere   require"},
		{"whoever starts it says where", []client.Login{one}, nil, []string{"PGUSER=me", "PGSSLMODE=disable"}, "  me verify-full"},
		{"none", nil, nil, nil, "   "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			pl := with(app(ident(1, true), ident(2, false)), c.logins...)
			pl.Settings = c.settings
			p.place(pl)
			a := p.start(nil)
			out := filepath.Join(a.dir, "out")
			f, err := os.Create(out)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if status, err := agent.Run(a.socket(), agent.RunRequest{
				App: "api", Args: []string{"/bin/sh", "-c", `echo "$PGHOST $PGPORT $PGUSER $PGSSLMODE"; test -z "$PGPASSFILE" || test -s "$PGPASSFILE"`},
				Dir: "/", Env: append(c.env, plain...), Stdout: f,
			}); status != 0 || err != nil {
				t.Fatalf("it ended with %d %v", status, err)
			}
			if b, _ := os.ReadFile(out); strings.TrimSuffix(string(b), "\n") != c.want {
				t.Errorf("got %q, want %q", b, c.want)
			}
		})
	}
}

func TestTheFileFollowsWhatTheAppMayLogInAs(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	one, two := login("db-1", "app", 1), login("db-2", "app", 2)
	p.place(with(app(ident(1, true), ident(2, false)), one))
	a := p.start(nil)
	a.detach(t, agent.RunRequest{}, "exec sleep 60")
	folder := a.loginsFolder(t, 1)
	const first, second = "db-1.postgres.innate.test:5432:*:app", "db-2.postgres.innate.test:5432:*:app"
	if !lists(t, folder, first) {
		t.Fatal("the file has not the log-in that there was at the start")
	}
	var took []time.Duration
	follows := func(what string, want []string, change func()) {
		t.Helper()
		change()
		began := time.Now()
		eventually(t, what, func() bool { return lists(t, folder, want...) })
		took = append(took, time.Since(began))
	}
	both := with(app(ident(1, true), ident(2, false)), one, two)
	follows("a log-in appears", []string{first, second}, func() { p.place(both) })
	renamed := two
	renamed.Role = "other"
	follows("a role changes", []string{first, "db-2.postgres.innate.test:5432:*:other"}, func() {
		p.place(with(app(ident(1, true), ident(2, false)), one, renamed))
	})
	follows("an identity is taken away", []string{first}, func() { p.place(with(app(ident(1, true)), one, two)) })

	if slices.Sort(took); took[1] > time.Second {
		t.Errorf("it took %v, want a median of at most a second", took)
	}

	// While the token service hangs, what is to go goes.
	hang := make(chan struct{})
	defer close(hang)
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	follows("a log-in goes while another's token does not come", nil, func() { p.place(with(app(ident(1, true), ident(2, false)), two)) })
	follows("the app is unmapped", nil, func() { p.place(app(ident(1, true))) })
}

func TestARevokedIdentitysPasswordGoesFromTheFile(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(with(app(ident(1, true)), login("db-1", "app", 1)))
	a := p.start(nil)
	a.detach(t, agent.RunRequest{}, "exec sleep 60")
	folder := a.loginsFolder(t, 1)
	_, before := passes(t, folder)
	// Told of the revocation, it asks anew; an identity that is disabled gets none.
	p.answer(no(http.StatusBadRequest, "unauthorized_client", 7000112, "disabled"))
	p.tell("revoked/identity/"+string(ident(1, true).Object), client.Revocation{Kind: client.RevokedIdentity, ID: string(ident(1, true).Object), Before: time.Now()})
	eventually(t, "the password is gone", func() bool { return lists(t, folder) })
	p.answer(p.issue(time.Hour))
	eventually(t, "the next one is there", func() bool { return lists(t, folder, "db-1.postgres.innate.test:5432:*:app") })
	if _, after := passes(t, folder); slices.Equal(before, after) {
		t.Error("it is the revoked one")
	}
}

func TestTheFileHasTheNextTokenAtHalfLifeAndTheLastOneInAnOutage(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	var c clock
	p.answer(func(w http.ResponseWriter, r *http.Request) { p.issueAt(c.now(), time.Hour)(w, r) })
	p.place(with(app(ident(1, true)), login("db-1", "app", 1)))
	a := p.start(func(cfg *agent.Config) { cfg.Now = c.now })
	a.detach(t, agent.RunRequest{}, "exec sleep 60")
	folder := a.loginsFolder(t, 1)
	_, first := passes(t, folder)

	c.advance(20 * time.Minute)
	a.Tick()
	if _, now := passes(t, folder); !slices.Equal(now, first) || p.calls.Load() != 1 {
		t.Errorf("at a third of its life there is another (%d calls)", p.calls.Load())
	}
	c.advance(20 * time.Minute)
	a.Tick()
	var second []string
	eventually(t, "the next one is in the file", func() bool {
		_, second = passes(t, folder)
		return !slices.Equal(second, first)
	})
	c.advance(40 * time.Minute) // the one that was put there by nobody's asking is refreshed too
	a.Tick()
	eventually(t, "and the next", func() bool {
		_, now := passes(t, folder)
		return !slices.Equal(now, second)
	})

	_, last := passes(t, folder)
	p.leave()
	c.advance(40 * time.Minute)
	a.Tick()
	p.tell("no-such-row", nil)
	if _, now := passes(t, folder); !slices.Equal(now, last) {
		t.Errorf("the control plane is away: the file has %d lines, want the last good one", len(now))
	}
}

func TestEachGenerationHasAFolderOfItsOwnAndAnAppWithoutLogInsNone(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	a.detach(t, agent.RunRequest{}, "exec sleep 60")
	if made, _ := filepath.Glob(filepath.Join(a.dir, "run", "postgres", "*")); len(made) > 0 {
		t.Errorf("an app that may log in nowhere has %q", made)
	}
	p.place(with(app(ident(1, true)), login("db-1", "app", 1)))
	eventually(t, "the agent knows of the log-in", func() bool { return len(a.Status().Placements[0].Logins) == 1 })
	if err := agent.Rotate(a.socket(), "api", 0, true); err != nil {
		t.Fatal(err)
	}
	second := a.loginsFolder(t, 2)
	if err := agent.Rotate(a.socket(), "api", 0, true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(second); !os.IsNotExist(err) {
		t.Errorf("the old generation's folder: %v", err)
	}
	if !lists(t, a.loginsFolder(t, 3), "db-1.postgres.innate.test:5432:*:app") {
		t.Error("the new generation's file has not the log-in")
	}
	recorded := 0
	for ev, err := range audit.Read(filepath.Join(a.dir, "state", "audit.log")) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Action == "get-token" && ev.Detail["file"] == "pgpass" && ev.Target == "https://db-1.postgres.innate.test" && ev.Principal == ident(1, true).Object {
			recorded++
		}
	}
	if recorded != 2 {
		t.Errorf("%d records of a token in a file, want one a generation", recorded)
	}
	if n := p.calls.Load(); n != 1 {
		t.Errorf("%d upstream calls, want one for all generations", n)
	}
}

func TestWhoeverOpensTheFileFindsAWholeOneHoweverFastItChanges(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(with(app(ident(1, true)), login("db-1", "app", 1), login("db-1", "other", 1)))
	a := p.start(nil)
	a.detach(t, agent.RunRequest{}, "exec sleep 60")
	folder := a.loginsFolder(t, 1)
	seen := map[string]bool{}
	for reads := 0; len(seen) < 300; reads++ {
		_, passwords := passes(t, folder)
		if len(passwords) != 2 || passwords[0] != passwords[1] {
			t.Fatalf("read %d after %d tokens: %d lines", reads, len(seen), len(passwords))
		}
		if !seen[passwords[0]] {
			seen[passwords[0]] = true
			a.Refused(apiApp, sha256.Sum256([]byte(strings.ReplaceAll(passwords[0], `\:`, `:`))))
		}
	}
}
