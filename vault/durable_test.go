package vault_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"innate/store"
)

// victimOf, in the environment, makes TestVictim write to the world in that
// folder until it is killed.
const victimOf = "INNATE_TEST_VICTIM_OF"

// TestVictim is no test: it is the process that TestAKilledServer… kills.
func TestVictim(t *testing.T) {
	dir := os.Getenv(victimOf)
	if dir == "" {
		t.Skip("it is started by another test, to be killed")
	}
	w := newWorldIn(t, dir)
	var out sync.Mutex
	var writers sync.WaitGroup
	for k := range 4 {
		writers.Go(func() {
			for n := range 100_000 {
				name := fmt.Sprintf("s-%d-%d-%d", os.Getpid(), k, n)
				if a := w.send("officer", "PUT", "/secrets/"+name+api, `{"value":"value of `+name+`"}`); a.status != 200 {
					t.Error(a.text)
					return
				}
				out.Lock()
				fmt.Println("acknowledged", name)
				out.Unlock()
			}
		})
	}
	writers.Wait()
}

func TestAKilledServerLosesNothingThatItAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var acknowledged []string
	for range 4 {
		acknowledged = append(acknowledged, killAmongWrites(t, dir, 1+rand.IntN(300))...)
		t.Run("started again", func(t *testing.T) {
			w := newWorldIn(t, dir)
			for _, name := range acknowledged {
				w.has(name)
			}
			// What was not acknowledged is there whole, or not at all.
			for path := "/secrets" + api; path != ""; {
				page := w.must("officer", "GET", path, "")
				for _, id := range page.items() {
					w.has(id[strings.LastIndexByte(id, '/')+1:])
				}
				path = strings.TrimPrefix(page.NextLink, "https://"+host)
			}
		})
	}
}

// has checks that a secret is there with the value that was written.
func (w *world) has(name string) {
	w.t.Helper()
	if a := w.send("officer", "GET", "/secrets/"+name+api, ""); a.Value != "value of "+name {
		w.t.Errorf("%s was acknowledged: %d %s", name, a.status, a.text)
	}
}

// killAmongWrites starts a victim, kills it after so many writes and returns all
// that it acknowledged.
func killAmongWrites(t *testing.T, dir string, after int) (names []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$")
	cmd.Env = append(os.Environ(), victimOf+"="+dir)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "acknowledged "); ok {
			if names = append(names, name); len(names) == after {
				check(t, cmd.Process.Kill())
			}
		}
	}
	cmd.Wait() // it was killed
	if len(names) < after {
		t.Fatalf("the victim ended by itself after %d writes", len(names))
	}
	return names
}

func TestAFullDiskIsAClearErrorAndHealsByItself(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("a small disk takes the right to mount one: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	var kept []string
	t.Run("while it fills and after", func(t *testing.T) {
		w := newWorldIn(t, dir)
		ballast := filepath.Join(dir, "ballast")
		put := func(name string) answer {
			a := w.send("officer", "PUT", "/secrets/"+name+api, `{"value":"value of `+name+`","contentType":"`+strings.Repeat("x", 255)+`"}`)
			if a.status == 200 {
				kept = append(kept, name)
			}
			return a
		}
		put("first")
		fill(t, ballast)
		refused := 0
		for n := 0; refused < 20; n++ {
			if n > 10_000 {
				t.Fatal("the disk does not fill")
			}
			a := put(fmt.Sprintf("s-%d", n))
			if a.status == 200 {
				continue
			}
			refused++
			w.refused(a, 503, "InsufficientStorage", "")
			if a.header.Get("Retry-After") == "" || !strings.Contains(a.Error.Message, "disk is full") {
				t.Errorf("%v: %s", a.header, a.text)
			}
		}
		check(t, os.Remove(ballast))
		if a := put("after"); a.status != 200 {
			t.Errorf("there is room again: %d %s", a.status, a.text)
		}
		for _, name := range kept {
			w.has(name)
		}
	})
	t.Run("started again", func(t *testing.T) {
		w := newWorldIn(t, dir)
		for _, name := range kept {
			w.has(name)
		}
	})
}

// fill takes all the room there is but a little.
func fill(t *testing.T, path string) {
	t.Helper()
	var room unix.Statfs_t
	check(t, unix.Statfs(filepath.Dir(path), &room))
	const little = 64 << 10
	f, err := os.Create(path)
	check(t, err)
	check(t, f.Truncate(0))
	_, err = f.Write(make([]byte, int(room.Bfree)*int(room.Bsize)-little))
	check(t, err)
	check(t, f.Close())
}

// populate gives kv1 n secrets in the shape of one that was written, so that only
// their values do not open.
func (w *world) populate(n int) {
	w.t.Helper()
	made := w.must("officer", "PUT", "/secrets/model"+api, `{"value":"v"}`)
	rows := map[string][]byte{}
	check(w.t, w.db.View(w.t.Context(), func(r store.Reader) error {
		for key, value := range r.Scan("vault/", "") {
			if strings.Contains(key, "/model") {
				rows[key] = value
			}
		}
		return nil
	}))
	if len(rows) != 3 || made.status != 200 {
		w.t.Fatalf("a secret is %d rows", len(rows))
	}
	const some = 5000
	for from := 0; from < n; from += some {
		w.update(func(tx store.Tx) error {
			for i := from; i < min(n, from+some); i++ {
				name := fmt.Sprintf("s%07d", i)
				for key, value := range rows {
					tx.Put(strings.Replace(key, "/model", "/"+name, 1), []byte(strings.ReplaceAll(string(value), `"model"`, `"`+name+`"`)))
				}
			}
			return nil
		})
	}
}

// The cost of a request is counted in allocations, which do not depend on what
// else the machine does: in a vault of thirty thousand a page and a get take
// as many as in one of a hundred.
func TestAListPageAndAGetDoNotSlowDownInALargeVault(t *testing.T) {
	small, large := newWorld(t), newWorld(t)
	small.populate(100)
	large.populate(30_000)
	for _, path := range []string{"/secrets" + api, "/secrets" + api + "&$skiptoken=czAwMDAwNTA", "/secrets/model" + api, "/secrets/model/versions" + api} {
		cost := func(w *world) float64 {
			return testing.AllocsPerRun(20, func() { w.must("officer", "GET", path, "") })
		}
		if few, many := cost(small), cost(large); many > few*1.2+20 {
			t.Errorf("GET %s: %.0f allocations in a vault of 30 000 secrets, %.0f in one of 100", path, many, few)
		}
	}
}

func BenchmarkVaultOf(b *testing.B) {
	for _, n := range []int{100, 1_000_000} {
		w := newWorld(b)
		w.populate(n)
		for what, path := range map[string]string{
			"get": "/secrets/model" + api, "page": "/secrets" + api + "&$skiptoken=czAwMDAwNTA",
		} {
			b.Run(fmt.Sprintf("%d/%s", n, what), func(b *testing.B) {
				for b.Loop() {
					w.must("officer", "GET", path, "")
				}
			})
		}
	}
}
