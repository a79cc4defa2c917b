package appservice_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"innate"
	"innate/agent/appservice"
	"innate/agent/caller"
	"innate/agent/launch"
)

// host-attestation §2: where the kernel names no cgroup, who holds the socket decides.
func TestOnAnOldKernelTheRightSecretFromAnotherCgroupIsRefusedToo(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for cgroups and uids of its own")
	}
	name, err := launch.OwnName("innate-test-search-")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := launch.OpenCgroups(name)
	if errors.Is(err, launch.ErrNoCgroups) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	own, err := tree.Make("api/g1")
	if err != nil {
		t.Fatal(err)
	}
	other, err := tree.Make("api/g2")
	if err != nil {
		t.Fatal(err)
	}
	const uid, stranger = 60001, 60002
	diag := newDiag(t)
	diag.IgnoreCgroups = true
	e := start(t, appservice.Config{
		Attestor:   diag,
		Generation: appservice.Generation{UID: uid, Cgroup: own.ID, Held: func(f caller.Facts) error { return caller.HeldIn(own.Path(), f) }, Proof: innate.CgroupUID},
	})
	for _, test := range []struct {
		who    string
		spec   launch.Spec
		secret string
		want   string
	}{
		{"the app", launch.Spec{UID: uid, Cgroup: own}, testSecret, "200"},
		{"the app with a wrong secret", launch.Spec{UID: uid, Cgroup: own}, "guess", "401"},
		{"same uid, other cgroup", launch.Spec{UID: uid, Cgroup: other}, testSecret, "403"},
		{"other uid, the app's cgroup", launch.Spec{UID: stranger, Cgroup: own}, testSecret, "403"},
		{"root in the app's cgroup", launch.Spec{UID: 0, Cgroup: own}, testSecret, "403"},
		{"root elsewhere", launch.Spec{UID: 0}, testSecret, "403"},
	} {
		if got := runApp(t, e, test.secret, test.spec, "ask"); got != test.want {
			t.Errorf("%s: %s, want %s", test.who, got, test.want)
		}
	}
	alarms := 0
	for _, ev := range e.events(t) {
		switch {
		case ev.Allowed && (ev.Assurance != innate.CgroupUID || ev.Detail["cgroup"] != strconv.FormatUint(own.ID, 10)):
			t.Errorf("the token's event does not say how its holder was proved: %+v", ev)
		case ev.Why == "right secret, wrong caller":
			alarms++
		}
	}
	if alarms != 4 {
		t.Errorf("%d alarms, want 4", alarms)
	}
}

// Arc's first request has no secret that could come before the search.
func TestOnAnOldKernelOnlyTheAppItselfGetsAChallenge(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for files of another uid")
	}
	const uid = 60001 // of no process here: the search is about this one alone
	for name, c := range map[string]struct {
		procs string // of the app's cgroup
		given bool
	}{
		"inside":  {strconv.Itoa(os.Getpid()), true},
		"outside": {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			procs := t.TempDir()
			if err := os.WriteFile(filepath.Join(procs, "cgroup.procs"), []byte(c.procs), 0o600); err != nil {
				t.Fatal(err)
			}
			who := &turncoat{Diag: newDiag(t)}
			who.IgnoreCgroups = true
			who.uid.Store(uid)
			a := startArc(t, appservice.Config{Attestor: who, Generation: appservice.Generation{UID: uid, Cgroup: 1, Held: func(f caller.Facts) error { return caller.HeldIn(procs, f) }, Proof: innate.CgroupUID}})
			resp := a.get(t, "")
			if given := resp.Header.Get("Www-Authenticate") != ""; resp.StatusCode != 401 || given != c.given {
				t.Errorf("got %d, Www-Authenticate %q; want 401 and a challenge: %v", resp.StatusCode, resp.Header.Get("Www-Authenticate"), c.given)
			}
			for _, ev := range a.events(t) {
				if ev.Why == "right secret, wrong caller" {
					t.Errorf("an alarm, and nobody had a secret: %+v", ev)
				}
			}
		})
	}
}
