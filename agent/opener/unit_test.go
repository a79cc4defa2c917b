package opener_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"innate/agent/launch"
	"innate/agent/opener"
)

func TestAUnitsProcessesAndCgroupAreNeverTheOpenersToEnd(t *testing.T) {
	l, _ := start(t)
	top, err := launch.Hierarchy()
	if err != nil {
		t.Skipf("units need cgroups: %v", err)
	}
	manager, err := launch.OpenCgroups(fmt.Sprintf("innatetest-manager-%d", os.Getpid()))
	if err != nil {
		t.Skipf("units need cgroups: %v", err)
	}
	t.Cleanup(func() { manager.Close() })
	cgroup, err := manager.Make("x.service")
	if err != nil {
		t.Fatal(err)
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer inW.Close()
	defer outR.Close()
	p, err := launch.Start(launch.Spec{Args: []string{"/bin/cat"}, Stdin: inR, Stdout: outW, Cgroup: cgroup, Stub: []string{"/proc/self/exe", "launch"}})
	inR.Close()
	outW.Close()
	if err != nil {
		t.Fatal(err)
	}
	w := opener.Want{App: app, Number: 1, Service: &opener.Service{Unit: "x.service", Cgroup: strings.TrimPrefix(cgroup.Path(), top), UID: 1, GID: 1}}
	h, err := opener.Make(t.Context(), connect(t, l), w)
	if err != nil {
		t.Fatal(err)
	}
	if h.CgroupID != cgroup.ID || h.UID != 1 || h.Members() != 1 {
		t.Errorf("it is %+v with %d processes, want cgroup %d", h.Told, h.Members(), cgroup.ID)
	}
	for what, err := range map[string]error{
		"kill": h.Kill(), "signal": h.Signal(syscall.SIGTERM),
		"start": func() error {
			_, err := h.Start(opener.Program{Args: []string{"/bin/true"}}, [3]*os.File{})
			return err
		}(),
		"environ": func() error { _, err := h.Environ(); return err }(),
	} {
		if err == nil {
			t.Errorf("%s was carried out", what)
		}
	}
	secrets, err := h.Folder(opener.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := secrets.Write("S", []byte("s")); err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(secrets.At, "S"), &st); err != nil || st.Uid != 1 || st.Mode&0o777 != 0o400 {
		t.Errorf("a secret's file, where the unit sees it: uid %d, mode %o, %v", st.Uid, st.Mode&0o777, err)
	}
	goesOn := func(after string) {
		t.Helper()
		b := make([]byte, 1)
		inW.Write([]byte("x"))
		if n, err := outR.Read(b); n != 1 || err != nil { // a process that is to die never answers
			t.Fatalf("%s: the unit's process: %v", after, err)
		}
		if members, err := cgroup.Members(); err != nil || len(members) != 1 {
			t.Errorf("%s: in its cgroup are %v, %v", after, members, err)
		}
	}
	if err := h.Remove(); err != nil {
		t.Error(err)
	}
	goesOn("its home was removed")
	w.Number = 2
	if _, err := opener.Make(t.Context(), l, w); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	goesOn("the opener was closed")
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.Wait()
}
