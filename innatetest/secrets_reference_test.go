package innatetest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"innate"
	"innate/agent"
	"innate/innatetest"
)

// referring is an app whose settings refer to secrets of kv1.
func referring(t *testing.T, p *innatetest.Platform, name string, settings map[string]string, shared ...*innatetest.Identity) *innatetest.App {
	t.Helper()
	app := p.App(name, shared...)
	set(p, app, settings)
	return app
}

func set(p *innatetest.Platform, app *innatetest.App, settings map[string]string) {
	p.ARM("PUT", string(app.ID())+"/config/appsettings", map[string]any{"properties": settings}, nil)
	caughtUp(p)
}

// caughtUp returns when the agent has heard of all that was done: the feed has an
// order, and what is made now comes after it.
func caughtUp(p *innatetest.Platform) { p.App("after-" + innate.NewGUID()).Env() }

// detached starts a program as the app that goes on until the test ends.
func detached(t *testing.T, p *innatetest.Platform, app *innatetest.App, script string) {
	t.Helper()
	status, err := agent.Run(p.Dir.AgentSocket(), agent.RunRequest{
		App: string(app.ID()), Args: []string{"/bin/sh", "-c", script}, Dir: "/", Env: os.Environ(), Detach: true,
	})
	if err != nil || status != 0 {
		t.Fatalf("starting %s: %d, %v", app.ID().Name(), status, err)
	}
}

// console runs a command inside the running app's surroundings.
func console(t *testing.T, p *innatetest.Platform, app *innatetest.App, generation int, script string) string {
	t.Helper()
	out := empty(t)
	if _, err := agent.Exec(p.Dir.AgentSocket(), agent.ConsoleRequest{
		App: string(app.ID()), Generation: generation, Args: []string{"/bin/sh", "-c", script}, Stdout: out, Stderr: out,
	}); err != nil {
		t.Fatal(err)
	}
	return content(t, out)
}

func filesOfSecrets(t *testing.T, p *innatetest.Platform) (names []string) {
	t.Helper()
	root := filepath.Join(filepath.Dir(p.Dir.AgentSocket()), "secrets")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, d.Name())
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return names
}

func TestASettingThatRefersToASecretIsItsValueInTheEnvironmentAndInAFile(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	kv := p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	kv.Put("key", "two\nlines=and more")
	var first struct{ ID string }
	if err := p.Admin.Vault(t.Context(), "kv1", "GET", "/secrets/db-password", nil, &first); err != nil {
		t.Fatal(err)
	}
	kv.Put("db-password", "hunter3")
	api := referring(t, p, "api", map[string]string{
		"BY_NAME":  "@Microsoft.KeyVault(VaultName=kv1;SecretName=db-password)",
		"BY_URI":   "@Microsoft.KeyVault(SecretUri=" + kv.URL() + "/secrets/db-password/)",
		"PINNED":   "@Microsoft.KeyVault(SecretUri=" + first.ID + ")",
		"LINES":    "@microsoft.keyvault(vaultname=KV1;secretname=key)",
		"ORDINARY": "@Microsoft",
	})
	p.Grant(api, "Key Vault Secrets User", kv)
	out, err := api.Run("/bin/sh", "-c", `
		for name in BY_NAME BY_URI PINNED LINES; do
			eval "value=\$$name"
			[ "$value" = "$(cat "$INNATE_SECRETS_DIR/$name")" ] || echo "$name: the file is not the variable"
			echo "$name=$value $(stat -c '%a %u' "$INNATE_SECRETS_DIR/$name")"
		done
		echo "ORDINARY=$ORDINARY $(ls "$INNATE_SECRETS_DIR" | wc -l) $(id -u)"
		if (echo mine > "$INNATE_SECRETS_DIR/BY_NAME") 2>/dev/null; then echo "the app may write its file"; fi`)
	if err != nil {
		t.Fatal(err)
	}
	uid := strings.TrimSpace(out[strings.LastIndexByte(out, ' ')+1:])
	want := fmt.Sprintf("BY_NAME=hunter3 400 %[1]s\nBY_URI=hunter3 400 %[1]s\nPINNED=hunter2 400 %[1]s\nLINES=two\nlines=and more 400 %[1]s\nORDINARY=@Microsoft 4 %[1]s\n", uid)
	if out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	eventually(t, "the files are gone with the generation", func() bool { return len(filesOfSecrets(t, p)) == 0 })
}

func TestAFileFollowsItsSecretWithinTwoSecondsAndTheEnvironmentWithTheNextGeneration(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	kv := p.Vault("kv1")
	kv.Put("db-password", "first")
	api := referring(t, p, "api", map[string]string{
		"DB_PASSWORD": "@Microsoft.KeyVault(VaultName=kv1;SecretName=db-password)", "INNATE_SECRET_SIGNAL": "HUP",
	})
	p.Grant(api, "Key Vault Secrets User", kv)
	dir := folder(t, 0o777)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	told := filepath.Join(dir, "heard")
	detached(t, p, api, `trap 'cat "$INNATE_SECRETS_DIR/DB_PASSWORD" >> `+told+`' HUP; : > `+told+`; while :; do sleep 0.05; done`)
	eventually(t, "the program listens", func() bool {
		_, err := os.Stat(told)
		return err == nil
	})

	const look = `cat "$INNATE_SECRETS_DIR/DB_PASSWORD"; echo " $DB_PASSWORD"`
	if got := console(t, p, api, 0, look); got != "first first" {
		t.Fatalf("at the start: %q", got)
	}
	var took []time.Duration
	for _, value := range []string{"next", "second", "third"} {
		before := time.Now()
		kv.Put("db-password", value)
		eventually(t, "the program was told", func() bool {
			b, _ := os.ReadFile(told)
			return strings.HasSuffix(string(b), value)
		})
		took = append(took, time.Since(before))
	}
	if slices.Sort(took); took[1] > 2*time.Second {
		t.Errorf("they came after %v, want a median of at most two seconds", took)
	}
	if got := console(t, p, api, 0, look); got != "third first" {
		t.Errorf("after three changes: %q", got)
	}
	if err := agent.Rotate(p.Dir.AgentSocket(), string(api.ID()), 0, true); err != nil {
		t.Fatal(err)
	}
	if got := console(t, p, api, 0, look); got != "third third" {
		t.Errorf("after a rotation: %q", got)
	}

	// What cannot be read any more stays as it was; what can be again, follows.
	enable := func(on bool) {
		t.Helper()
		if err := p.Admin.Vault(t.Context(), "kv1", "PATCH", "/secrets/db-password", map[string]any{"attributes": map[string]bool{"enabled": on}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	enable(false)
	kv.Put("other", "thing")
	if got := console(t, p, api, 0, look); got != "third third" {
		t.Errorf("after the secret was disabled: %q", got)
	}
	if err := agent.Rotate(p.Dir.AgentSocket(), string(api.ID()), 0, true); err == nil || !strings.Contains(err.Error(), "DB_PASSWORD") {
		t.Errorf("a generation without its secret: %v", err)
	}
	kv.Put("db-password", "fourth")
	eventually(t, "the file has the newest value", func() bool { return console(t, p, api, 0, look) == "fourth third" })

	p.Delete(api)
	eventually(t, "the files are gone with the app", func() bool { return len(filesOfSecrets(t, p)) == 0 })
}

func TestAnAppWhoseReferenceCannotBeResolvedDoesNotStart(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	kv := p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	api := p.App("api")
	check := func(setting string, words ...string) {
		t.Helper()
		set(p, api, map[string]string{"DB_PASSWORD": setting})
		out, err := api.Run("/bin/sh", "-c", "echo it runs")
		if err == nil || out != "" {
			t.Fatalf("%s: it ran: %q", setting, out)
		}
		for _, word := range append(words, "setting DB_PASSWORD") {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q is not in: %v", setting, word, err)
			}
		}
		if left := filesOfSecrets(t, p); len(left) > 0 {
			t.Errorf("%s left %v behind", setting, left)
		}
	}
	const good = "@Microsoft.KeyVault(VaultName=kv1;SecretName=db-password)"
	check(good, "secret db-password of vault kv1", "Key Vault Secrets User", "403") // it has no role
	p.Grant(api, "Key Vault Secrets User", kv)
	check("@Microsoft.KeyVault(VaultName=kv1;SecretName=nothing)", "secret nothing of vault kv1", "404")
	check("@Microsoft.KeyVault(VaultName=kv2;SecretName=db-password)", "vault kv2") // there is none
	check("@Microsoft.KeyVault(SecretUri=https://kv1.vault.azure.net/secrets/db-password)", "no vault of this platform")
	check("@Microsoft.KeyVault(VaultName=kv1;Secret=db-password)", "want SecretUri")
	set(p, api, map[string]string{"DB_PASSWORD": good})
	if out, err := api.Run("/bin/sh", "-c", `echo "$DB_PASSWORD"`); out != "hunter2\n" || err != nil {
		t.Errorf("with all in order: %q, %v", out, err)
	}
}

func TestTheIdentityThatReadsSecretsCanBeNamed(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	kv, reader, stranger := p.Vault("kv1"), p.Identity("reader"), p.Identity("stranger")
	kv.Put("db-password", "hunter2")
	api := referring(t, p, "api", map[string]string{"DB_PASSWORD": "@Microsoft.KeyVault(VaultName=kv1;SecretName=db-password)"}, reader)
	p.Grant(reader, "Key Vault Secrets User", kv)
	use := func(id string) {
		p.ARM("PATCH", string(api.ID()), map[string]any{"properties": map[string]any{"keyVaultReferenceIdentity": id}}, nil)
		caughtUp(p)
	}
	use("SystemAssigned")
	if _, err := api.Run("true"); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("by its own identity, which has no role: %v", err)
	}
	use(string(stranger.ID()))
	if _, err := api.Run("true"); err == nil || !strings.Contains(err.Error(), "keyVaultReferenceIdentity") {
		t.Errorf("by an identity that it does not hold: %v", err)
	}
	use(string(reader.ID()))
	if out, err := api.Run("/bin/sh", "-c", `echo "$DB_PASSWORD"`); out != "hunter2\n" || err != nil {
		t.Errorf("by the identity that has the role: %q, %v", out, err)
	}
}

func TestTheValueOfAReferenceIsMaskedWhereItIsShown(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	kv := p.Vault("kv1")
	kv.Put("color", "hunter2")
	api := referring(t, p, "api", map[string]string{"COLOR": "@Microsoft.KeyVault(VaultName=kv1;SecretName=color)", "SIZE": "large"})
	p.Grant(api, "Key Vault Secrets User", kv)
	detached(t, p, api, "sleep 600")
	env, err := agent.ReadVariables(p.Dir.AgentSocket(), string(api.ID()), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"COLOR=********", "SIZE=large"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is not in %q", want, env)
		}
	}
	if strings.Contains(strings.Join(env, "\n"), "hunter2") {
		t.Errorf("the value is in %q", env)
	}
	if !slices.ContainsFunc(env, func(v string) bool {
		dir, ok := strings.CutPrefix(v, "INNATE_SECRETS_DIR=")
		return ok && filepath.IsAbs(dir)
	}) {
		t.Errorf("where the files are is not in %q", env)
	}
}

// Nothing is missed while the control plane is away.
func TestAFileFollowsItsSecretOverARestartOfTheControlPlane(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if err := os.Chmod(h.dir, 0o711); err != nil {
		t.Fatal(err)
	}
	control, stop := h.control(t)
	group := control.Group("rg1")
	machine, plan := group+"/providers/Microsoft.HybridCompute/machines/node-1", group+"/providers/Microsoft.Web/serverfarms/plan"
	app, kv := group+"/providers/Microsoft.Web/sites/api", group+"/providers/Microsoft.KeyVault/vaults/kv1"
	secretsUser := "/providers/Microsoft.Authorization/roleDefinitions/4633458b-17de-408a-b874-0445c86b69e6"
	var site struct {
		Identity struct {
			Principal string `json:"principalId"`
		} `json:"identity"`
	}
	put := func(id innate.ResourceID, body map[string]any, out any) {
		t.Helper()
		body["location"] = "local"
		if err := control.ARM(t.Context(), "PUT", string(id), body, out); err != nil {
			t.Fatal(err)
		}
	}
	write := func(value string) {
		t.Helper()
		if err := control.Vault(t.Context(), "kv1", "PUT", "/secrets/db-password", map[string]string{"value": value}, nil); err != nil {
			t.Fatal(err)
		}
	}
	put(group, map[string]any{}, nil)
	put(machine, map[string]any{}, nil)
	put(plan, map[string]any{"properties": map[string]any{"workers": []innate.ResourceID{machine}}}, nil)
	put(app, map[string]any{"kind": "app", "identity": map[string]string{"type": "SystemAssigned"}, "properties": map[string]any{"serverFarmId": plan}}, &site)
	put(kv, map[string]any{"properties": map[string]any{
		"tenantId": control.Info.Tenant, "sku": map[string]string{"family": "A", "name": "standard"}, "enableRbacAuthorization": true,
	}}, nil)
	put(kv+"/providers/Microsoft.Authorization/roleAssignments/"+innate.ResourceID(innate.NewGUID()), map[string]any{
		"properties": map[string]any{"roleDefinitionId": secretsUser, "principalId": site.Identity.Principal},
	}, nil)
	write("first")
	put(app+"/config/appsettings", map[string]any{"properties": map[string]string{"DB_PASSWORD": "@Microsoft.KeyVault(VaultName=kv1;SecretName=db-password)"}}, nil)
	h.join(t, control, machine)
	<-h.agent(t, innatetest.Program(t), "launch").Ready()
	if _, err := agent.Run(filepath.Join(h.dir, "run", "agent.sock"), agent.RunRequest{
		App: "api", Args: []string{"sleep", "600"}, Dir: "/", Env: os.Environ(), Detach: true,
	}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(h.dir, "run", "secrets", "api-*", "DB_PASSWORD"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the secret's file: %v, %v", files, err)
	}
	has := func(value string) func() bool {
		return func() bool {
			b, err := os.ReadFile(files[0])
			return err == nil && string(b) == value
		}
	}
	eventually(t, "the file is there", has("first"))
	stop()
	control, _ = h.control(t)
	write("second")
	eventually(t, "the file follows", has("second"))
	write("third")
	eventually(t, "the file follows again", has("third"))
}
