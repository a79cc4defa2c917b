package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// firstToken is how long quickstart takes from the start of its process to the
// first token in an app's hands. No machine has a limit of that.
func firstToken(_ context.Context, b *bench) (contest, error) {
	return contest{less: true, ours: func(ctx context.Context, _ time.Duration) (float64, error) {
		var s tourSummary
		quickstart := exec.CommandContext(ctx, b.program, "quickstart", "--once", "--output", "json")
		begin := time.Now()
		out, err := quickstart.Output()
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			return 0, fmt.Errorf("quickstart: %w: %s", err, lastLine(failed.Stderr))
		}
		if err != nil {
			return 0, err
		}
		if err := json.Unmarshal(out, &s); err != nil {
			return 0, fmt.Errorf("reading quickstart's summary: %w", err)
		}
		return milliseconds(s.Began.Sub(begin)) + s.FirstToken, nil
	}}, nil
}

// lastLine is where a program says why it ended.
func lastLine(text []byte) string {
	s := strings.TrimSpace(string(text))
	return s[strings.LastIndexByte(s, '\n')+1:]
}
