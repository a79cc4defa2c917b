package launch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"innate/agent/launch"
)

func TestAWatchedCgroupIsGoneWhenItsOwnerRemovesIt(t *testing.T) {
	top, err := launch.Hierarchy()
	if err != nil {
		t.Skipf("there are no cgroups: %v", err)
	}
	owner, err := launch.OpenCgroups(fmt.Sprintf("innatetest-watched-%d", os.Getpid()))
	if err != nil {
		t.Skip(err)
	}
	defer owner.Close()
	cgroup, err := owner.Make("x.service")
	if err != nil {
		t.Fatal(err)
	}
	path := strings.TrimPrefix(cgroup.Path(), top)
	w, err := launch.Watch(path)
	if err != nil {
		t.Fatal(err)
	}
	if w.ID() != cgroup.ID || w.Path() != cgroup.Path() || !w.Still() {
		t.Errorf("found %d at %s, want %d at %s", w.ID(), w.Path(), cgroup.ID, cgroup.Path())
	}
	var all launch.Removals
	defer all.Close()
	const watches = 300 // a user has 128 inotify instances, mostly
	gone := make(chan error, watches)
	for range watches {
		go func() { gone <- w.Gone(t.Context(), &all) }()
	}
	for _, name := range []string{"neighbour", "x.service"} {
		dir := filepath.Join(owner.Path(), name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	for range watches {
		if err := <-gone; err != nil {
			t.Errorf("it is gone, and a watch says %v", err)
		}
	}
	if cgroup, err = owner.Make("x.service"); err != nil {
		t.Fatal(err)
	}
	if w.Still() {
		t.Error("one that was made again under the same name is taken for it")
	}
	if err := w.Gone(t.Context(), &all); err != nil {
		t.Errorf("it was gone before, and the watch says %v", err)
	}
	again, err := launch.Watch(path)
	if err != nil {
		t.Fatal(err)
	}
	ending, end := context.WithCancel(t.Context())
	go func() { gone <- again.Gone(ending, &all) }()
	end()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("a watch that was ended says %v", err)
	}
}

func TestWhatIsNobodyElsesIsNotWatched(t *testing.T) {
	top, err := launch.Hierarchy()
	if err != nil {
		t.Skipf("there are no cgroups: %v", err)
	}
	own, err := launch.OwnDirectory()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "/", ".", "/..", "/../../etc", "/a/../b", "//", strings.TrimPrefix(own, top), "/none.service"} {
		if _, err := launch.Watch(path); err == nil {
			t.Errorf("%q is watched", path)
		}
	}
}
