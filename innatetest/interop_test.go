package innatetest_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"innate"
	"innate/innatetest"
)

// The heavy outside clients; 'make interop' installs them.

// installed skips a test without the Debian package that it is about.
func installed(t *testing.T, pkg string) {
	t.Helper()
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Status}", pkg).Output()
	if err != nil || !strings.HasSuffix(string(out), "ok installed") {
		t.Skipf("the Debian package %s is not installed: make interop", pkg)
	}
}

func TestInteropAPythonProgramReadsASecretWithNoPassword(t *testing.T) {
	installed(t, "python3-azure")
	t.Parallel()
	checkProgram(t, "/usr/bin/python3", filepath.Join(public(t, "testdata/python"), "secret.py"))
}

// An azureCLI is az with a configuration of its own, as an app.
type azureCLI struct {
	t   *testing.T
	app *innatetest.App
	env []string
}

func newAzureCLI(t *testing.T, app *innatetest.App) *azureCLI {
	t.Helper()
	home := folder(t, 0o777)
	newer := "CONNECT azure.microsoft.com:443" // az's first run looks whether there is a newer az; no setting stops that
	return &azureCLI{t, app, append(fenced(t, newer),
		"HOME="+home, "AZURE_CONFIG_DIR="+filepath.Join(home, "azure"),
		"AZURE_CORE_COLLECT_TELEMETRY=0", "AZURE_CORE_SURVEY_MESSAGE=0", "AZURE_CORE_NO_COLOR=1",
		"APPSETTING_WEBSITE_SITE_NAME="+app.ID().Name(), // by this, az knows an app's endpoint
	)}
}

// use registers the platform as az's cloud, by a file with what no flag can say
// and an authority that ends in /adfs, for az 2.45 asks Microsoft about any
// other (control-plane §2.3, §7).
func (az *azureCLI) use(p *innatetest.Platform) {
	az.t.Helper()
	i := p.Admin.Info
	cloud, err := json.Marshal(map[string]any{
		"endpoints": map[string]string{
			"activeDirectory": i.Login + "/adfs", "activeDirectoryResourceId": i.Management + "/", "activeDirectoryGraphResourceId": i.Graph + "/",
			"microsoftGraphResourceId": i.Graph + "/", "resourceManager": i.Management, "management": i.Management + "/",
		},
		"suffixes": map[string]string{"keyvaultDns": "." + i.VaultSuffix}, "profile": "latest",
	})
	if err != nil {
		az.t.Fatal(err)
	}
	file := filepath.Join(folder(az.t, 0o755), "cloud.json")
	if err := os.WriteFile(file, cloud, 0o644); err != nil {
		az.t.Fatal(err)
	}
	az.must("cloud", "register", "-n", "MI", "--cloud-config", "@"+file)
	az.must("cloud", "set", "-n", "MI")
}

func (az *azureCLI) run(args ...string) (string, error) {
	az.t.Helper()
	return az.app.Run(slices.Concat([]string{"env"}, az.env, []string{"/usr/bin/az"}, args)...)
}

func (az *azureCLI) must(args ...string) string {
	az.t.Helper()
	out, err := az.run(args...)
	if err != nil {
		az.t.Fatalf("az %s: %v", strings.Join(args[:2], " "), err)
	}
	return out
}

// into reads az's JSON.
func (az *azureCLI) into(out any, args ...string) {
	az.t.Helper()
	text := az.must(append(args, "--output", "json")...)
	if err := json.Unmarshal([]byte(text), out); err != nil {
		az.t.Fatalf("az %s: %v in %q", strings.Join(args[:2], " "), err, text)
	}
}

// An account is what az knows of its sign-in.
type account struct {
	ID     string `json:"id"`
	Tenant string `json:"tenantId"`
	User   struct {
		Name string `json:"name"`
		Type string `json:"type"`
	} `json:"user"`
}

// checkAzureCLI does what a signed-in reader can do.
func checkAzureCLI(t *testing.T, p *innatetest.Platform, az *azureCLI, kv *innatetest.Vault) {
	t.Helper()
	var a account
	az.into(&a, "account", "show")
	if a.ID != p.Admin.Info.Subscription || a.Tenant != string(p.Admin.Info.Tenant) || a.User.Type != "servicePrincipal" {
		t.Errorf("az account show: %+v; want subscription %s of tenant %s", a, p.Admin.Info.Subscription, p.Admin.Info.Tenant)
	}
	var groups []string
	az.into(&groups, "group", "list", "--query", "[].name")
	if !slices.Contains(groups, innatetest.Group) {
		t.Errorf("az group list: %q; want %s among them", groups, innatetest.Group)
	}
	var secret struct {
		Value string `json:"value"`
	}
	az.into(&secret, "rest", "--resource", "https://vault.azure.net", "--url", kv.URL()+"/secrets/db-password?api-version=7.4")
	if secret.Value != "hunter2" {
		t.Errorf("az rest: got %q, want hunter2", secret.Value)
	}
}

func TestInteropTheAzureCLISignsInAsTheApp(t *testing.T) {
	installed(t, "azure-cli")
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api, kv := p.App("api"), p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	az := newAzureCLI(t, api)
	az.use(p)

	if out, err := az.run("login", "--identity"); err == nil || !strings.Contains(err.Error(), "No access was configured") {
		t.Errorf("az login --identity without any role: got %s, %v", out, err)
	}
	p.Grant(api, "Reader", everything(p))
	p.Grant(api, "Key Vault Secrets User", kv)
	az.must("login", "--identity")
	checkAzureCLI(t, p, az, kv)
	if out, err := az.run("group", "create", "-n", "more", "-l", "local"); err == nil || !strings.Contains(err.Error(), "AuthorizationFailed") {
		t.Errorf("a reader made a group: %s, %v", out, err)
	}
}

func TestInteropTheAzureCLISignsInWithAClientSecret(t *testing.T) {
	installed(t, "azure-cli")
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	kv := p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	deploy := register(t, p, map[string]any{"displayName": "deploy"})
	p.Grant(servicePrincipal(t, p, deploy), "Reader", everything(p))
	p.Grant(servicePrincipal(t, p, deploy), "Key Vault Secrets User", kv)
	az := newAzureCLI(t, p.App("shell")) // its identity may do nothing
	az.use(p)

	az.must("login", "--service-principal", "-u", string(deploy.Client), "--password="+deploy.secret, "--tenant", string(p.Admin.Info.Tenant))
	checkAzureCLI(t, p, az, kv)
}

func TestInteropTheAzureCLISignsInWithACertificateOrAFederatedToken(t *testing.T) {
	installed(t, "azure-cli")
	t.Parallel()
	issuer := newOutsideIssuer(t)
	p := innatetest.Start(t, innatetest.WithPrograms(t), issuer.allowed())
	kv := p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	c := newCredentials(t, p, issuer)
	p.Grant(servicePrincipal(t, p, c.r), "Reader", everything(p))
	p.Grant(servicePrincipal(t, p, c.r), "Key Vault Secrets User", kv)
	az := newAzureCLI(t, p.App("shell")) // its identity may do nothing
	az.use(p)

	for _, proof := range []string{"--password=" + c.certificate, "--federated-token=" + c.assertion} {
		az.must("login", "--service-principal", "-u", string(c.r.Client), proof, "--tenant", string(p.Admin.Info.Tenant))
		checkAzureCLI(t, p, az, kv)
		az.must("account", "clear")
	}
}

// With one address, az asks /metadata/endpoints for the rest; a managed identity
// needs no authority to sign in.
func TestInteropTheAzureCLIFindsThePlatformByOneAddress(t *testing.T) {
	installed(t, "azure-cli")
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api, kv := p.App("api"), p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	p.Grant(api, "Reader", everything(p))
	p.Grant(api, "Key Vault Secrets User", kv)
	az := newAzureCLI(t, api)

	az.must("cloud", "register", "-n", "ONE", "--endpoint-resource-manager", p.Admin.Info.Management)
	az.must("cloud", "set", "-n", "ONE")
	az.must("login", "--identity")
	checkAzureCLI(t, p, az, kv)
}

// A scope is granted on like a resource.
type scope innate.ResourceID

func (s scope) ID() innate.ResourceID { return innate.ResourceID(s) }

// everything is the subscription.
func everything(p *innatetest.Platform) scope {
	return scope("/subscriptions/" + p.Admin.Info.Subscription)
}

// An object is in the directory.
type object innate.ObjectID

func (o object) Principal() innate.ObjectID { return innate.ObjectID(o) }

// servicePrincipal is who a registration is when it signs in.
func servicePrincipal(t *testing.T, p *innatetest.Platform, r registration) object {
	t.Helper()
	var sp struct {
		ID object `json:"id"`
	}
	if err := p.Admin.Graph(t.Context(), http.MethodGet, "/v1.0/servicePrincipals(appId='"+string(r.Client)+"')", nil, &sp); err != nil {
		t.Fatal(err)
	}
	return sp.ID
}
