package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"innate/admin"
	"innate/agent/tpm"
	"innate/agent/tpm/tpmtest"
	"innate/seal"
	"innate/server"
)

// A chip keeps master keys in a TPM, as long as it is plugged in.
type chip struct {
	device *tpm.Device
	mu     sync.Mutex
	pulled bool
}

func newChip(t *testing.T) *chip {
	t.Helper()
	d, err := tpm.Find(tpmtest.Start(t))
	if err != nil {
		t.Fatal(err)
	}
	return &chip{device: d}
}

func (c *chip) pull(out bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pulled = out
}

func (c *chip) Name() string                    { return "tpm" }
func (c *chip) Keep(key []byte) ([]byte, error) { return c.device.Seal(key) }
func (c *chip) Key(kept []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pulled {
		return nil, errors.New("the chip was pulled out")
	}
	return c.device.Unseal(kept)
}

// A platform is a control plane that is started and stopped again.
type platform struct {
	t      *testing.T
	config server.Config
	srv    *server.Server
	stop   func()
}

func newPlatform(t *testing.T, in seal.Keeper, keepers ...seal.Keeper) *platform {
	t.Helper()
	dir := t.TempDir()
	run, err := os.MkdirTemp("", "seal-") // t.TempDir's path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	p := &platform{t: t, config: server.Config{
		Dir: filepath.Join(dir, "control"), Socket: filepath.Join(run, "admin.sock"), Operator: os.Getuid(), Keepers: keepers,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	if err := server.CreateIn(t.Context(), p.config.Dir, domain, false, in, time.Now()); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *platform) master() string { return filepath.Join(p.config.Dir, "master.key") }

// listen takes a port; run serves there until the function that it sets is called.
func (p *platform) listen() {
	p.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	p.config.Listener = l
}

func (p *platform) run() *admin.Client {
	p.t.Helper()
	srv, err := server.New(p.t.Context(), p.config)
	if err != nil {
		p.t.Fatal(err)
	}
	p.srv = srv
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Errorf("the server ended with: %v", err)
		}
	})
	p.t.Cleanup(p.stop)
	return p.dial()
}

// dial asks until the socket is there.
func (p *platform) dial() *admin.Client {
	p.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(10 * time.Second); ; {
		c, err := admin.Dial(p.t.Context(), p.config.Socket)
		if err == nil {
			return c
		}
		select {
		case <-late:
			p.t.Fatal(err)
		case <-tick.C:
		}
	}
}

// A secret's value, as the vault has it.
func read(t *testing.T, c *admin.Client, vault, name string) string {
	t.Helper()
	var got struct{ Value string }
	if err := c.Vault(t.Context(), vault, http.MethodGet, "/secrets/"+name, nil, &got); err != nil {
		t.Error(err)
	}
	return got.Value
}

func write(ctx context.Context, c *admin.Client, vault, name, value string) error {
	return c.Vault(ctx, vault, http.MethodPut, "/secrets/"+name, map[string]string{"value": value}, nil)
}

func group(c *admin.Client) string {
	return "/subscriptions/" + c.Info.Subscription + "/resourceGroups/rg1"
}

func makeVault(ctx context.Context, c *admin.Client, name string) error {
	return c.ARM(ctx, http.MethodPut, group(c)+"/providers/Microsoft.KeyVault/vaults/"+name, map[string]any{}, nil)
}

func TestTheMasterKeyIsReplacedWhileTheServerServes(t *testing.T) {
	chip := newChip(t)
	p := newPlatform(t, nil, chip)
	p.listen()
	c := p.run()
	if err := c.ARM(t.Context(), http.MethodPut, group(c), map[string]any{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(makeVault(t.Context(), c, "kv0"), write(t.Context(), c, "kv0", "a", "value of a")); err != nil {
		t.Fatal(err)
	}
	var backup struct{ Value string }
	if err := c.Vault(t.Context(), "kv0", http.MethodPost, "/secrets/a/backup", nil, &backup); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(p.master())
	if err != nil {
		t.Fatal(err)
	}
	var busy sync.WaitGroup
	for w := range 4 {
		busy.Go(func() {
			for n := range 8 {
				vault := fmt.Sprintf("kv-%d-%d", w, n)
				if err := errors.Join(makeVault(t.Context(), c, vault), write(t.Context(), c, vault, "a", vault)); err != nil {
					t.Error(err)
				}
				if got := read(t, c, "kv0", "a"); got != "value of a" {
					t.Errorf("meanwhile kv0 has %q", got)
				}
			}
		})
	}
	for _, in := range []string{"file", "tpm", "file", "tpm"} {
		var now struct{ In string }
		if err := c.ARM(t.Context(), http.MethodPost, "/seal/reseal", map[string]string{"in": in}, &now); err != nil || now.In != in {
			t.Errorf("reseal in %s: %+v, %v", in, now, err)
		}
	}
	busy.Wait()
	if err := c.ARM(t.Context(), http.MethodPost, "/seal/reseal", map[string]string{"in": "drawer"}, nil); err == nil || !strings.Contains(err.Error(), "file, tpm") {
		t.Errorf("an unknown keeper: %v", err)
	}
	authority := p.srv.Bundle()
	p.stop()

	p.listen()
	c = p.run()
	if !bytes.Equal(authority, p.srv.Bundle()) {
		t.Error("the platform has another authority")
	}
	for w := range 4 {
		for n := range 8 {
			if vault := fmt.Sprintf("kv-%d-%d", w, n); read(t, c, vault, "a") != vault {
				t.Errorf("the secret of %s is lost", vault)
			}
		}
	}
	if err := c.Vault(t.Context(), "kv-0-0", http.MethodPost, "/secrets/restore", backup, nil); err == nil {
		t.Error("restored over a secret")
	}
	if err := errors.Join(makeVault(t.Context(), c, "kv9"), c.Vault(t.Context(), "kv9", http.MethodPost, "/secrets/restore", backup, nil)); err != nil {
		t.Errorf("a backup from before: %v", err)
	}
	if got := read(t, c, "kv9", "a"); got != "value of a" {
		t.Errorf("restored: %q", got)
	}
	p.stop()

	// Who has the first key and a copy of the store as it is now has nothing.
	if err := os.WriteFile(p.master(), first, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.New(t.Context(), p.config); err == nil || !strings.Contains(err.Error(), "sealed under another key") {
		t.Errorf("the store is opened with the first key: %v", err)
	}
	store, err := os.ReadFile(filepath.Join(p.config.Dir, "store.db"))
	if err != nil || bytes.Contains(store, []byte("value of a")) {
		t.Errorf("the value stands in the store (%v)", err)
	}
}

func TestASealedServerSaysSoAndServesOnceTheKeyIsThere(t *testing.T) {
	chip := newChip(t)
	p := newPlatform(t, chip, chip)
	p.listen()
	p.run()
	authority := p.srv.Bundle()
	p.stop()

	chip.pull(true)
	p.listen()
	if _, err := server.New(t.Context(), p.config); !errors.Is(err, seal.ErrSealed) {
		t.Fatalf("New: %v, want ErrSealed", err)
	}
	opened := make(chan error, 1)
	go func() { opened <- server.AwaitKey(t.Context(), p.config) }()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // there is nothing to verify it by
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, p.config.Listener.Addr().String())
		},
	}}
	for _, url := range []string{"https://kv1.vault." + domain + "/secrets/a?api-version=7.4", "https://login." + domain + "/healthz"} {
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 503 || resp.Header.Get("x-ms-error-code") != "Sealed" || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %v", url, resp.StatusCode, resp.Header)
		}
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(10 * time.Second); ; {
		_, err := admin.Dial(t.Context(), p.config.Socket)
		if err != nil && strings.Contains(err.Error(), "the chip was pulled out") {
			break // the administrator is told why
		}
		select {
		case <-late:
			t.Fatalf("the administrator is told %v", err)
		case <-tick.C:
		}
	}
	chip.pull(false)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	p.run()
	if !bytes.Equal(authority, p.srv.Bundle()) {
		t.Error("it serves with another authority")
	}
	if resp, _ := ask(t, p.srv, "login."+domain, "https://login."+domain+"/healthz"); resp.StatusCode != 200 {
		t.Errorf("on the same listener: %d", resp.StatusCode)
	}
}

func TestAReplacementThatACrashStoppedIsFinishedAtTheNextStart(t *testing.T) {
	p := newPlatform(t, nil)
	p.listen()
	c := p.run()
	if err := errors.Join(
		c.ARM(t.Context(), http.MethodPut, group(c), map[string]any{}, nil),
		makeVault(t.Context(), c, "kv0"), write(t.Context(), c, "kv0", "a", "v"),
	); err != nil {
		t.Fatal(err)
	}
	p.stop()
	old, err := os.ReadFile(p.master())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.CreateMaster(p.master() + ".next"); err != nil { // and here the power went
		t.Fatal(err)
	}
	p.listen()
	c = p.run()
	if got := read(t, c, "kv0", "a"); got != "v" {
		t.Errorf("the value is %q", got)
	}
	if now, err := os.ReadFile(p.master()); err != nil || bytes.Equal(now, old) || seal.Unfinished(p.master()) {
		t.Errorf("the old key is still in place (%v)", err)
	}
}
