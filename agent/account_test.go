package agent_test

import (
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"innate"
	"innate/agent"
	"innate/audit"
)

// hostUser is a user of this host whose group has another number.
func hostUser(t *testing.T) *user.User {
	t.Helper()
	u, err := user.Lookup("games")
	if err != nil || u.Uid == u.Gid {
		t.Skipf("this host has no user games with a group of another number: %v", err)
	}
	return u
}

func TestRootRunsAnAppUnderAUserOfTheHostAndTheCgroupIsItsProof(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	if a.Assurance() < innate.CgroupUID {
		t.Skipf("here callers are proved by %s only: want root and cgroup2", a.Assurance())
	}
	games := hostUser(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(a.dir, "program")
	copyFile(t, self, public)
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer outR.Close()
	status, err := agent.Run(a.socket(), agent.RunRequest{
		App: "api", Args: []string{"/bin/sh", "-c", "id -u; id -g; id -G; exec " + public + " ask"}, Dir: "/", Env: plain,
		Stdout: outW, User: games.Username,
	})
	outW.Close()
	if status != 0 || err != nil {
		t.Fatalf("it ended with %d %v", status, err)
	}
	b := make([]byte, 4096)
	n, _ := outR.Read(b)
	said := strings.Split(strings.TrimSpace(string(b[:n])), "\n")
	if len(said) != 4 || said[0] != games.Uid || said[1] != games.Gid || said[2] != games.Gid || !strings.Contains(said[3], "|"+vault+"|cgroup+uid|") {
		t.Errorf("it says %q, want uid %s, group %s twice and a token", said, games.Uid, games.Gid)
	}

	// Another program of that user is not the app, though it has the secret.
	uid, _ := strconv.ParseUint(games.Uid, 10, 32)
	started := a.detach(t, agent.RunRequest{User: games.Uid}, "exec sleep 60")
	if uint64(started.UID) != uid {
		t.Errorf("by its number: it runs under uid %d, want %d", started.UID, uid)
	}
	var env []byte
	eventually(t, "its environment can be read, for exec empties it for a moment", func() bool {
		if env, err = os.ReadFile("/proc/" + strconv.Itoa(started.PID) + "/environ"); err != nil {
			t.Fatal(err)
		}
		return len(env) > 0
	})
	other := exec.Command(public, "ask")
	other.Env = strings.Split(strings.Trim(string(env), "\x00"), "\x00")
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	if out, err := other.CombinedOutput(); err == nil || !strings.Contains(string(out), strconv.Itoa(http.StatusForbidden)) {
		t.Errorf("another program of that user got %q %v, want a 403", out, err)
	}

	var recorded []string
	for ev, err := range audit.Read(filepath.Join(a.dir, "state", "audit.log")) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Action == "run-app" && ev.Allowed {
			recorded = append(recorded, ev.Detail["user"])
		}
	}
	if got := strings.Join(recorded, " "); got != games.Username+" "+games.Uid {
		t.Errorf("recorded users %q, want each run's", got)
	}
}

func TestNobodyBecomesAnotherUserByAnApp(t *testing.T) {
	p := newPlane(t)
	mine := app(ident(1, true))
	mine.RunAs = []uint32{65534}
	p.place(mine)
	a := p.start(nil)
	refused := func(by uint32, name, want string) {
		t.Helper()
		_, err := a.Start(t.Context(), agent.RunRequest{App: "api", Args: []string{"/bin/true"}, User: name}, by)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("uid %d as %s: got %v, want %q in it", by, name, err, want)
		}
	}
	refused(65534, "games", "only root may")
	if os.Getuid() != 0 {
		refused(0, "games", "only an agent that is root")
		return
	}
	if a.Assurance() < innate.CgroupUID {
		refused(0, "games", "every program of that user would be the app")
		return
	}
	refused(0, "root", "root is root")
	refused(0, "0", "0 is root")
	refused(0, "no-such-user", `no user "no-such-user"`)
	refused(0, "1910000001", `no user "1910000001"`) // may be another app's
	for ev, err := range audit.Read(filepath.Join(a.dir, "state", "audit.log")) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Action == "run-app" && (ev.Allowed || ev.Detail["user"] == "" || ev.Why == "") {
			t.Errorf("recorded %+v, want every refusal with the user and the reason", ev)
		}
	}
}
