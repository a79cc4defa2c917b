package launch_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"innate/agent/launch"
)

func TestAnAppSeesADirectoryInAnotherPlaceAndTheHostDoesNot(t *testing.T) {
	dir := t.TempDir()
	source, opt := filepath.Join(dir, "hidden", "source"), filepath.Join(dir, "opt")
	if err := errors.Join(
		os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755),
		os.MkdirAll(source, 0o711), os.WriteFile(filepath.Join(source, "a.key"), []byte("secret"), 0o444),
		os.MkdirAll(filepath.Join(opt, "other"), 0o755), os.WriteFile(filepath.Join(opt, "other", "f"), []byte("kept"), 0o644),
		os.WriteFile(filepath.Join(opt, "file"), []byte("too"), 0o644), os.Symlink("other/f", filepath.Join(opt, "link")),
		os.Mkdir(filepath.Join(dir, "there"), 0o755),
	); err != nil {
		t.Fatal(err)
	}
	spec := launch.Spec{UID: self()}
	if self() == 0 {
		spec.UID = 60001
	} else if err := launch.UserNamespaces(stub); err != nil {
		t.Skip(err)
	}
	spec.Hide = []string{filepath.Join(dir, "hidden")} // where it is, it is not to be seen
	for name, c := range map[string]struct{ at, script, want string }{
		"a place that exists":   {filepath.Join(dir, "there"), "cat a.key", "secret"},
		"a place that does not": {filepath.Join(opt, "agent", "tokens"), "cat a.key; cd " + opt + "; echo; cat other/f file link; ls " + filepath.Join(dir, "hidden"), "secret\nkepttookept"},
	} {
		t.Run(name, func(t *testing.T) {
			spec.Show, spec.Dir = []launch.Shown{{Dir: source, At: c.at}}, c.at
			if out, code := run(t, spec, c.script); out != c.want || code != 0 {
				t.Errorf("inside: got %q (exit %d), want %q", out, code, c.want)
			}
		})
	}
	if entries, err := os.ReadDir(opt); err != nil || len(entries) != 3 {
		t.Errorf("outside: %v, %v", entries, err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "there")); err != nil || len(entries) != 0 {
		t.Errorf("outside: %v, %v", entries, err)
	}
}

func TestAPlaceWithNothingAboveItIsRefusedInWords(t *testing.T) {
	root(t)
	_, err := launch.Start(launch.Spec{Args: []string{"true"}, UID: self(), Stub: stub, Show: []launch.Shown{{Dir: t.TempDir(), At: "/innate-nowhere/tokens"}}})
	if err == nil || err.Error() != `starting "true" as uid 0: making /innate-nowhere/tokens: /innate-nowhere is missing: make it` {
		t.Errorf("got %v", err)
	}
}
