package main_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"innate/innatetest"
)

// TestAdministrationGoesAsInTheScripts runs testdata/admin/*.txt, each beside a
// platform of its own, empty but for this host: transcripts of the commands,
// what they answer, and what they say when they refuse.
func TestAdministrationGoesAsInTheScripts(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/admin/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts: %q, %v", scripts, err)
	}
	path := filepath.Dir(innatetest.Program(t)) + string(os.PathListSeparator) + os.Getenv("PATH")
	for _, script := range scripts {
		t.Run(filepath.Base(script), func(t *testing.T) {
			t.Parallel()
			s := newShell(t)
			s.dev("")
			testscript.Run(t, testscript.Params{
				Files:       []string{script},
				WorkdirRoot: s.tmp, // where apps, which have uids of their own, may be
				Setup: func(e *testscript.Env) error {
					e.Vars = append(e.Vars, s.env...)
					e.Setenv("PATH", path)
					return nil
				},
			})
		})
	}
}
