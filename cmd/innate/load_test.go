package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"innate/agent"
)

// A toll is what an app under load went through.
type toll struct {
	OK      int
	Refused int            // connections
	Failed  map[string]int // requests, by what became of them
}

// loadAsApp is the test binary as an app: it asks for tokens, half of the time by
// a connection of its own, until its input ends, and prints the toll.
func loadAsApp() {
	done := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(done)
	}()
	var mu sync.Mutex
	sum := toll{Failed: map[string]int{}}
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: n%2 == 0}, Timeout: time.Minute}
			pace := time.NewTicker(time.Millisecond) // a load, not a flood: others share the machine
			defer pace.Stop()
			for {
				select {
				case <-done:
					return
				case <-pace.C:
				}
				why, refused := askOnce(client)
				mu.Lock()
				switch {
				case refused:
					sum.Refused++
				case why != "":
					sum.Failed[why]++
				default:
					sum.OK++
				}
				mu.Unlock()
			}
		})
	}
	fmt.Println("up")
	all.Wait()
	json.NewEncoder(os.Stdout).Encode(sum)
}

func askOnce(client *http.Client) (why string, refused bool) {
	req, err := http.NewRequest(http.MethodGet, os.Getenv("IDENTITY_ENDPOINT")+"?api-version=2019-08-01&resource=https://vault.azure.net", nil)
	if err != nil {
		return err.Error(), false
	}
	req.Header.Set("X-IDENTITY-HEADER", os.Getenv("IDENTITY_HEADER"))
	resp, err := client.Do(req)
	if err != nil {
		return err.Error(), errors.Is(err, syscall.ECONNREFUSED)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Sprintf("%d %v %s", resp.StatusCode, err, b), false
	}
	return "", false
}

// A loaded app runs through the agent's socket, as 'innate run' would have it.
type loaded struct {
	started agent.Started
	in      *os.File
	out     *os.File
	ended   chan error
}

// load runs the test binary as an app under load.
func (n *node) load(app string, restart agent.Restart) *loaded {
	n.shell.t.Helper()
	self, err := os.Executable()
	if err != nil {
		n.shell.t.Fatal(err)
	}
	program := filepath.Join(n.shell.tmp, "load")
	copyProgram(n.shell.t, self, program)
	return startLoad(n.shell.t, n.socket(), app, program, restart)
}

// copyProgram copies a program to where everybody may run it.
func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// startLoad runs program, which is the test binary, as an app under load.
func startLoad(t *testing.T, socket, app, program string, restart agent.Restart) *loaded {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l := &loaded{in: inW, out: outR, ended: make(chan error, 1)}
	started := make(chan agent.Started, 1)
	go func() {
		status, err := agent.Run(socket, agent.RunRequest{
			App: app, Args: []string{program, "load"}, Dir: "/", Stdin: inR, Stdout: outW, Stderr: os.Stderr, Restart: restart,
			OnStart: func(s agent.Started) { started <- s },
		})
		if err == nil && status != 0 {
			err = fmt.Errorf("exit code %d", status)
		}
		inR.Close()
		outW.Close()
		l.ended <- err
	}()
	t.Cleanup(func() {
		inW.Close()
		outR.Close()
	})
	select {
	case l.started = <-started:
	case err := <-l.ended:
		t.Fatal(err)
	}
	up := make([]byte, len("up\n"))
	if _, err := io.ReadFull(outR, up); err != nil {
		t.Fatal(err)
	}
	return l
}

// end ends the load and returns its toll.
func (l *loaded) end(t *testing.T) toll {
	t.Helper()
	sum, err := l.toll(t)
	if err != nil {
		t.Errorf("the run of the app: %v", err)
	}
	return sum
}

// toll is end, and how the run ended.
func (l *loaded) toll(t *testing.T) (sum toll, err error) {
	t.Helper()
	l.in.Close()
	if err := json.NewDecoder(l.out).Decode(&sum); err != nil {
		t.Fatalf("the app's toll: %v; its run: %v", err, <-l.ended)
	}
	return sum, <-l.ended
}
