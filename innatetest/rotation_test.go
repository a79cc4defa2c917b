package innatetest_test

import (
	"bytes"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"innate/agent"
	"innate/innatetest"
)

const audiences = 500 // each asked for once by a process is a call of its own to the endpoint

// An app's secret and port change with every rotation. The vendor's packages
// keep what they found for the life of their process (host-attestation §7).
func TestAnUnmodifiedGoServiceIsRotatedWithNoFailedCall(t *testing.T) {
	t.Parallel()
	checkRotation(t, innatetest.Program(t), "sample", "work")
}

func TestAnUnmodifiedNodeServiceIsRotatedWithNoFailedCall(t *testing.T) {
	needsNode(t)
	t.Parallel()
	checkRotation(t, "node", filepath.Join(public(t, "testdata/node"), "work.mjs"))
}

// checkRotation rotates a service while it gets tokens, and counts the calls that fail.
func checkRotation(t *testing.T, command ...string) {
	t.Helper()
	const rotations, replicas = 3, 2
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api := p.App("api")
	if err := p.Admin.ARM(t.Context(), http.MethodPatch, string(api.ID()), map[string]any{
		"properties": map[string]any{"siteConfig": map[string]any{"healthCheckPath": "/health"}},
	}, nil); err != nil {
		t.Fatal(err)
	}
	for first := 0; first < audiences; first += 50 {
		var uris []string
		for n := range 50 {
			uris = append(uris, fmt.Sprintf("api://work-%d", first+n))
		}
		register(t, p, map[string]any{"displayName": fmt.Sprintf("work %d", first), "identifierUris": uris})
	}
	socket := p.Dir.AgentSocket()
	for range replicas {
		if _, err := agent.Run(socket, agent.RunRequest{
			App: "api", Args: slices.Concat([]string{"env"}, fenced(t), command, []string{"api://work-", strconv.Itoa(audiences)}),
			Dir: "/", Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin"}, Detach: true, Restart: agent.RestartAlways,
		}); err != nil {
			t.Fatal(err)
		}
	}
	for range rotations {
		if err := agent.Rotate(socket, "api", 0, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := agent.End(socket, "api", 0, false); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if err := agent.Logs(t.Context(), socket, "api", false, &log); err != nil {
		t.Fatal(err)
	}
	tallies := regexp.MustCompile(`(?m) (\d+) calls, (\d+) failed$`).FindAllStringSubmatch(log.String(), -1)
	if want := replicas * (rotations + 1); len(tallies) != want {
		t.Fatalf("%d generations said how it went, want %d:\n%s", len(tallies), want, log.String())
	}
	total := 0
	for _, tally := range tallies {
		calls, _ := strconv.Atoi(tally[1])
		total += calls
		if tally[2] != "0" || calls == 0 {
			t.Errorf("a generation made %s calls of which %s failed:\n%s", tally[1], tally[2], strings.Join(strings.Split(log.String(), "\n"), "\n"))
		}
	}
	t.Logf("%d calls through %d rotations of %d processes", total, rotations, replicas)
}
