package platform_test

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"innate"
	"innate/platform"
)

// run opens the platform in dir and runs it until the function that it returns is called.
func run(t *testing.T, dir string) (*platform.Platform, func()) {
	t.Helper()
	p, err := platform.Open(t.Context(), platform.Config{
		Dir: dir, Stub: []string{"/nonexistent"}, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	end := func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the platform ended with: %v", err)
		}
	}
	select {
	case <-p.Ready():
	case err := <-ended:
		t.Fatalf("the platform did not start: %v", err)
	}
	return p, end
}

// folder is short: unix sockets live in it.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "innate-platform-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "platform")
}

func TestAVaultsNameResolvesBeforeItsMakingIsAnswered(t *testing.T) {
	p, end := run(t, folder(t))
	defer end()
	group := p.Admin.Group("team")
	if err := p.Admin.ARM(t.Context(), http.MethodPut, string(group), map[string]string{"location": "local"}, nil); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(p.Dir.Hosts())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kv1", "kv2"} {
		if err := p.Admin.ARM(t.Context(), http.MethodPut, string(vaultIn(group, name)), vault(p), nil); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(p.Dir.Hosts())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "\n127.0.0.1 "+name+".vault.innate.test\n") {
			t.Errorf("%s is made and does not resolve:\n%s", name, b)
		}
	}
	after, err := os.Stat(p.Dir.Hosts())
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("the file was replaced: apps that run already have the old one mounted")
	}
}

func TestAPlatformIsThereAgainWhenItsFolderIsOpenedAgain(t *testing.T) {
	dir := folder(t)
	p, end := run(t, dir)
	group := p.Admin.Group("team")
	if err := p.Admin.ARM(t.Context(), http.MethodPut, string(group), map[string]string{"location": "local"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Admin.ARM(t.Context(), http.MethodPut, string(vaultIn(group, "kv1")), vault(p), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := platform.Open(t.Context(), platform.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process has the store open") {
		t.Errorf("opened twice at once: got %v, want a refusal that says so", err)
	}
	if b, err := os.ReadFile(p.Dir.Hosts()); err != nil || !strings.Contains(string(b), "127.0.0.1 kv1.vault.innate.test\n") {
		t.Errorf("the refused one took the names of the running one (%v):\n%s", err, b)
	}
	tenant := p.Admin.Info.Tenant
	end()

	p, end = run(t, dir)
	defer end()
	if p.Admin.Info.Tenant != tenant {
		t.Errorf("tenant %s, was %s", p.Admin.Info.Tenant, tenant)
	}
	if err := p.Admin.ARM(t.Context(), http.MethodGet, string(vaultIn(group, "kv1")), nil, nil); err != nil {
		t.Errorf("a vault of the first run: %v", err)
	}
	if b, err := os.ReadFile(p.Dir.Hosts()); err != nil || !strings.Contains(string(b), "127.0.0.1 kv1.vault.innate.test\n") {
		t.Errorf("its name does not resolve (%v):\n%s", err, b)
	}
}

func TestOnlyTheOwnerMayEnterThePlatformsKeysAndItsAdministratorsSocket(t *testing.T) {
	dir := folder(t)
	_, end := run(t, dir)
	defer end()
	for name, want := range map[string]os.FileMode{
		"control": 0o700, "admin": 0o700, "agent": 0o700, "control/master.key": 0o600, "admin/admin.sock": 0o600,
		".": 0o711, "run": 0o711, // apps pass through them
	} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if st.Mode().Perm() != want {
			t.Errorf("%s: mode %o, want %o", name, st.Mode().Perm(), want)
		}
	}
}

func vaultIn(group innate.ResourceID, name string) innate.ResourceID {
	return group + innate.ResourceID("/providers/Microsoft.KeyVault/vaults/"+name)
}

func vault(p *platform.Platform) map[string]any {
	return map[string]any{"location": "local", "properties": map[string]any{
		"tenantId": p.Admin.Info.Tenant, "sku": map[string]string{"family": "A", "name": "standard"}, "enableRbacAuthorization": true,
	}}
}
