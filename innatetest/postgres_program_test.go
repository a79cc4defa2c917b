package innatetest_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"innate/agent"
	"innate/innatetest"
)

// A program runs as an app, reads lines and writes lines.
type program struct {
	t       *testing.T
	in      *os.File
	out     *bufio.Reader
	started agent.Started
	ended   chan struct{}
	status  int   // after ended
	err     error // after ended
	said    *os.File
}

// startProgram starts a program as an app; it ends with the test at the latest.
func startProgram(t *testing.T, p *innatetest.Platform, r agent.RunRequest) *program {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	run := &program{t: t, in: inW, out: bufio.NewReader(outR), ended: make(chan struct{}), said: said}
	started := make(chan agent.Started, 1)
	r.Dir, r.Stdin, r.Stdout, r.Stderr = "/", inR, outW, said
	r.Env = append([]string{"PATH=/usr/bin:/bin", "PGDATABASE=postgres"}, r.Env...)
	r.OnStart = func(s agent.Started) { started <- s }
	go func() {
		defer close(run.ended)
		run.status, run.err = agent.Run(p.Dir.AgentSocket(), r)
		inR.Close()
		outW.Close()
	}()
	t.Cleanup(func() {
		run.end()
		outR.Close()
		if t.Failed() {
			t.Logf("%s said:\n%s", r.Args, run.words())
		}
		said.Close()
	})
	select {
	case run.started = <-started:
	case <-run.ended:
		t.Fatalf("starting %s: %v", r.Args, run.err)
	}
	return run
}

// end closes its input and waits until it has ended.
func (p *program) end() {
	p.in.Close()
	<-p.ended
}

// words are what it has written to standard error.
func (p *program) words() string {
	b, err := os.ReadFile(p.said.Name())
	if err != nil {
		p.t.Error(err)
	}
	return strings.TrimSpace(string(b))
}

// line is the next line that it writes.
func (p *program) line() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.in.Close()
		<-p.ended
		p.t.Fatalf("the program says no more (%v); it ended with %d %v and said:\n%s", err, p.status, p.err, p.words())
	}
	return strings.TrimSuffix(line, "\n")
}

// ask writes a line and returns the one that comes back.
func (p *program) ask(format string, args ...any) string {
	p.t.Helper()
	p.tell(format, args...)
	return p.line()
}

// tell writes a line.
func (p *program) tell(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatalf("the program takes no more: %v\n%s", err, p.words())
	}
}

// processes are those of the program's cgroup.
func (p *program) processes() (pids []int) {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.started.Cgroup, "cgroup.procs"))
	if err != nil {
		p.t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			p.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}
