package innatetest_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"innate/agent"
	"innate/innatetest"
)

// Clients of every kind connect a thousand times while the tokens in the file are
// replaced every 10 ms.
func TestAThousandConnectsWhileTheTokensRotateAllSucceed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	db := w.postgres("db1")
	app := w.App("api")
	w.mayLogIn(app, db, "app")
	start := func(t *testing.T, args ...string) *program {
		return startProgram(t, w.Platform, agent.RunRequest{App: string(app.ID()), Args: args})
	}
	rotating := start(t, innatetest.Program(t), "sample", "renew", "https://db1.postgres."+w.Server.Platform.Domain)

	one := filepath.Join(folder(t, 0o755), "one.sql")
	if err := os.WriteFile(one, []byte("SELECT 1;\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	sample := func(args ...string) []string {
		return append([]string{innatetest.Program(t), "sample", "postgres"}, args...)
	}
	every := clients(t)
	var all sync.WaitGroup
	for _, c := range []struct {
		want string
		args []string
	}{
		{"200 connects, 0 failed", append(every[1].args, "200")},
		{"200 connects, 0 failed", append(every[2].args, "200")},
		{"200 connects, 0 failed", sample("--connects", "200")},
		{"200 connects, 0 failed", sample("--connects", "200", "--pool")},
		{"100 connects, 0 failed", []string{"sh", "-c", `n=0; for i in $(seq 100); do psql -Xwqc 'SELECT 1' >/dev/null || n=$((n+1)); done; echo "100 connects, $n failed"`}},
		{"number of transactions actually processed: 100/100", []string{db.Program("pgbench"), "--no-vacuum", "--connect", "--client=2", "--transactions=50", "--file=" + one}},
	} {
		run := start(t, c.args...)
		all.Go(func() {
			for line, err := run.out.ReadString('\n'); ; line, err = run.out.ReadString('\n') {
				if strings.TrimSpace(line) == c.want {
					break
				}
				if err != nil {
					t.Errorf("%s: want %q; it said:\n%s", filepath.Base(c.args[0]), c.want, run.words())
					break
				}
			}
			run.end()
		})
	}
	all.Wait()
	rotating.in.Close()
	said := rotating.line()
	tokens, err := strconv.Atoi(strings.TrimSuffix(said, " tokens"))
	if err != nil || tokens < 100 { // how many there are meanwhile is the machine's to say
		t.Errorf("it saw %q, want a new token every ten connects at least", said)
	}
	t.Logf("1000 connects over %s", said)
}
