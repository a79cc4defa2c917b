package innatetest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"innate/agent"
	"innate/platform"
)

// A binary is the innate program, built once a test process: it starts apps (see
// package launch) and has a sample of a workload in it.
type binary struct {
	once sync.Once
	dir  string
	err  error
}

var built binary

func (b *binary) path() (string, error) {
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "innatetest-bin-"); b.err != nil {
			return
		}
		if b.err = os.Chmod(b.dir, 0o755); b.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", filepath.Join(b.dir, "innate"), "innate/cmd/innate").CombinedOutput()
		if err != nil {
			b.err = fmt.Errorf("building innate: %w\n%s", err, out)
		}
	})
	return filepath.Join(b.dir, "innate"), b.err
}

// Program is the path of the innate binary, where every uid may start it. It
// takes seconds to build the first time; Main removes it.
func Program(t testing.TB) string {
	t.Helper()
	path, err := built.path()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Main is for TestMain of packages that use Program or App.Run.
func Main(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// WithPrograms lets App.Run start programs.
func WithPrograms(t testing.TB) Option {
	path := Program(t)
	return func(c *platform.Config) { c.Stub = []string{path, "launch"} }
}

// Run runs a program as the app to its end, proved as in production, and
// returns what it printed. Another exit code than 0 is an error that has what
// the program said.
func (a *App) Run(args ...string) (stdout string, err error) {
	a.p.t.Helper()
	out, said := scratch(a.p.t), scratch(a.p.t)
	defer out.Close()
	defer said.Close()
	status, err := agent.Run(a.p.Dir.AgentSocket(), agent.RunRequest{
		App: string(a.id), Args: args, Dir: "/", Env: os.Environ(), Stdout: out, Stderr: said,
	})
	if err != nil {
		return "", err
	}
	text := contents(a.p.t, out)
	if status != 0 {
		return string(text), errors.New(string(bytes.TrimSpace(contents(a.p.t, said))))
	}
	return string(text), nil
}

func scratch(t testing.TB) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func contents(t testing.TB, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}
