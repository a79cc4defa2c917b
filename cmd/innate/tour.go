package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"innate"
	"innate/admin"
	"innate/platform"
)

// A tour walks the flow and tells it. Each station acts through the front door
// that a user would use, checks what came of it, and fails the tour if it is
// not what the station says.
type tour struct {
	out      io.Writer
	platform *platform.Platform
	program  string // this program, where every uid may start it
	begin    time.Time
	number   int
	began    time.Time // of the present station

	group, vm, app, vault innate.ResourceID
	vmIdentity, identity  identityBlock
	secret                string
	first                 *workload // the app's first generation
	held                  string    // a token that the app got
	weaker                []string  // what could not be proved as strongly as with root
	firstToken, total     time.Duration
	stations              []stationSummary
}

// A tourSummary is a tour for scripts.
type tourSummary struct {
	Began      time.Time        `json:"began"`
	Stations   []stationSummary `json:"stations"`
	FirstToken float64          `json:"firstTokenMilliseconds"` // from Began to the app's first answer by a token
	Total      float64          `json:"totalMilliseconds"`
	Weaker     []string         `json:"weaker"` // what was proved less strongly than root could
}

type stationSummary struct {
	Number int     `json:"number"`
	Title  string  `json:"title"`
	Took   float64 `json:"milliseconds"`
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// summary is the tour that was walked.
func (t *tour) summary() tourSummary {
	return tourSummary{
		Began: t.begin, Stations: t.stations, FirstToken: milliseconds(t.firstToken), Total: milliseconds(t.total),
		Weaker: append([]string{}, t.weaker...),
	}
}

type identityBlock struct {
	Principal innate.ObjectID `json:"principalId"`
	Tenant    innate.TenantID `json:"tenantId"`
}

func (t *tour) walk(ctx context.Context) error {
	defer func() {
		if t.first != nil {
			t.first.end()
		}
	}()
	for _, st := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"A control plane and this host's agent", t.start},
		{"Four resources", t.create},
		{"Identity on: a service principal appears", t.identityOn},
		{"A secret goes into the vault", t.putSecret},
		{"The app starts, with four variables and no password", t.startApp},
		{"It asks for the secret and is refused", t.refused},
		{"Granted one role, it reads the secret at once", t.granted},
		{"The article's own request, by plain HTTP", t.article},
		{"The same header from outside the app", t.outside},
		{"The VM asks 169.254.169.254", t.machine},
		{"The app logs in at PostgreSQL, with no password", t.logIn},
		{"Rotation: a second generation beside the first", t.rotate},
		{"The app is deleted, and everything that was its own", t.remove},
	} {
		t.number++
		t.began = time.Now()
		fmt.Fprintf(t.out, "\n%2d. %s\n", t.number, st.title)
		if err := st.do(ctx); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("ended at station %d, before the last", t.number)
			}
			fmt.Fprintf(t.out, "    FAILED: %v\n", err)
			return fmt.Errorf("station %d did not do what it says", t.number)
		}
		took := time.Since(t.began)
		t.stations = append(t.stations, stationSummary{t.number, st.title, milliseconds(took)})
		fmt.Fprintf(t.out, "    (%s)\n", brief(took))
	}
	t.total = time.Since(t.begin)
	fmt.Fprintf(t.out, "\nEvery station did what it said. First token %s after the program started; %s in all.\n",
		brief(t.firstToken), brief(t.total))
	for _, w := range t.weaker {
		fmt.Fprintf(t.out, "Weaker than with root: %s\n", w)
	}
	return nil
}

// tell writes one line of a station.
func (t *tour) tell(format string, args ...any) {
	fmt.Fprintf(t.out, "    "+format+"\n", args...)
}

// brief rounds a duration to what people care about.
func brief(d time.Duration) string {
	if d < time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// put makes or changes a resource and reads its identity block back.
func (t *tour) put(ctx context.Context, method string, id innate.ResourceID, body map[string]any) (identityBlock, error) {
	body["location"] = "local"
	var r struct {
		Identity identityBlock `json:"identity"`
	}
	err := t.platform.Admin.ARM(ctx, method, string(id), body, &r)
	return r.Identity, err
}

func (t *tour) start(context.Context) error {
	p := t.platform
	t.tell("answers at   %s   (tenant %s)", p.Server.Endpoints.Login, p.Server.Platform.Tenant)
	t.tell("this host    %s, joined with a one-time token", p.Machine)
	t.tell("proof        %s", p.Agent.Assurance())
	t.tell("up           %s after the program started", brief(time.Since(t.begin)))
	return nil
}

func (t *tour) create(ctx context.Context) error {
	a := t.platform.Admin
	t.group = a.Group("rg1")
	t.vm = t.group + innate.ResourceID("/providers/"+typeVM+"/web-1")
	t.app = t.group + innate.ResourceID("/providers/"+typeSite+"/fn1")
	t.vault = t.group + innate.ResourceID("/providers/"+typeVault+"/kv1")
	plan, err := ensurePlan(ctx, a, "rg1", t.platform.Machine)
	if err != nil {
		return err
	}
	for _, r := range []struct {
		id   innate.ResourceID
		body map[string]any
	}{
		{t.vm, map[string]any{"properties": map[string]any{"host": map[string]any{"id": t.platform.Machine}}}},
		{t.app, map[string]any{"kind": "functionapp", "properties": map[string]any{"serverFarmId": plan}}},
		{t.vault, map[string]any{"properties": map[string]any{
			"tenantId": a.Info.Tenant, "sku": map[string]string{"family": "A", "name": "standard"}, "enableRbacAuthorization": true,
		}}},
	} {
		if _, err := t.put(ctx, http.MethodPut, r.id, r.body); err != nil {
			return err
		}
	}
	t.tell("a group         %s", t.group)
	t.tell("a VM            %s", t.vm)
	t.tell("a function app  %s", t.app)
	t.tell("a vault         %s", t.vault)
	return nil
}

func (t *tour) identityOn(ctx context.Context) (err error) {
	on := func() map[string]any {
		return map[string]any{"identity": map[string]string{"type": "SystemAssigned"}}
	}
	if t.vmIdentity, err = t.put(ctx, http.MethodPatch, t.vm, on()); err != nil {
		return err
	}
	if t.identity, err = t.put(ctx, http.MethodPatch, t.app, on()); err != nil {
		return err
	}
	for _, id := range []innate.ObjectID{t.identity.Principal, t.vmIdentity.Principal} {
		var sp struct {
			ID    innate.ObjectID `json:"id"`
			App   innate.ClientID `json:"appId"`
			Name  string          `json:"displayName"`
			Type  string          `json:"servicePrincipalType"`
			Other []string        `json:"alternativeNames"`
		}
		if err := t.platform.Admin.Graph(ctx, http.MethodGet, "/v1.0/servicePrincipals/"+string(id), nil, &sp); err != nil {
			return err
		}
		t.tell("%-6s object id %s, client id %s", sp.Name, sp.ID, sp.App)
		t.tell("       a %s that lives with %s", sp.Type, sp.Other[len(sp.Other)-1])
	}
	return nil
}

func (t *tour) putSecret(ctx context.Context) error {
	t.secret = "hunter2-" + innate.NewGUID()[:8]
	var b secretBundle
	if err := t.platform.Admin.Vault(ctx, "kv1", http.MethodPut, "/secrets/db-password", map[string]string{"value": t.secret}, &b); err != nil {
		return err
	}
	t.tell("%s", b.ID)
	t.tell("sealed with the vault's own key; the administrator put it there, the app has never seen it")
	return nil
}

// vaultURL is the vault as an SDK is told it.
func (t *tour) vaultURL() string { return "https://kv1." + t.platform.Server.Endpoints.VaultSuffix }

func (t *tour) startApp(ctx context.Context) (err error) {
	if t.first, err = t.launch(ctx); err != nil {
		return err
	}
	r, err := t.first.do(sampleOrder{Do: "env"})
	if err != nil {
		return err
	}
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET"} {
		v := r.Env[name]
		if v == "" {
			return fmt.Errorf("the app has no %s", name)
		}
		if strings.HasSuffix(name, "HEADER") || strings.HasSuffix(name, "SECRET") {
			v = v[:4] + strings.Repeat("·", 12)
		}
		t.tell("%s=%s", name, v)
	}
	t.first.env = r.Env
	t.tell("%s", t.first.describe())
	return nil
}

func (t *tour) refused(context.Context) error {
	r, err := t.first.do(sampleOrder{Do: "secret", Vault: t.vaultURL(), Name: "db-password"})
	if err != nil {
		return err
	}
	t.firstToken = time.Since(t.begin)
	if r.Status != http.StatusForbidden {
		return fmt.Errorf("want 403, got %d %s %s", r.Status, r.Value, r.Error)
	}
	t.tell("azidentity got it a token, azsecrets asked the vault, the vault said:")
	for line := range strings.Lines(r.Error) {
		t.tell("  %s", strings.TrimSpace(line))
	}
	return nil
}

const secretsUser = "4633458b-17de-408a-b874-0445c86b69e6"

func (t *tour) granted(ctx context.Context) error {
	grant := string(t.vault) + authorization + "roleAssignments/" + innate.NewGUID()
	if err := t.platform.Admin.ARM(ctx, http.MethodPut, grant, map[string]any{"properties": map[string]any{
		"roleDefinitionId": authorization + "roleDefinitions/" + secretsUser, "principalId": t.identity.Principal,
	}}, nil); err != nil {
		return err
	}
	t.tell("'Key Vault Secrets User' for fn1 at %s", t.vault)
	r, err := t.first.do(sampleOrder{Do: "secret", Vault: t.vaultURL(), Name: "db-password"})
	if err != nil {
		return err
	}
	if r.Value != t.secret {
		return fmt.Errorf("want the secret, got %d %s", r.Status, r.Error)
	}
	t.tell("the app reads db-password, %d characters, the right ones, in %s", len(r.Value), brief(r.Took))
	return nil
}

func (t *tour) article(ctx context.Context) error {
	r, err := t.first.do(sampleOrder{Do: "ask", Resource: "https://database.windows.net/"})
	if err != nil {
		return err
	}
	if r.Token == "" {
		return fmt.Errorf("want a token, got %d %s", r.Status, r.Error)
	}
	t.tell(`curl -H "X-IDENTITY-HEADER: …" "$IDENTITY_ENDPOINT?resource=https://database.windows.net/&api-version=2019-08-01"`)
	if err := t.claims(r.Token, map[string]string{
		"aud": "https://database.windows.net/", "oid": string(t.identity.Principal), "xms_az_rid": string(t.app),
	}); err != nil {
		return err
	}
	v, err := t.first.do(sampleOrder{Do: "ask", Resource: "https://vault.azure.net"})
	if err != nil {
		return err
	}
	t.held = v.Token
	if code := t.present(ctx, t.held); code != http.StatusOK {
		return fmt.Errorf("a token for the vault, presented by hand: want 200, got %d", code)
	}
	return nil
}

// claims prints what a token says, never the token, and checks what it must say.
func (t *tour) claims(token string, want map[string]string) error {
	claims, err := decodeClaims(token)
	if err != nil {
		return err
	}
	for _, row := range claimRows(claims) {
		t.tell("  %-16s %s", row[0], row[1])
	}
	for name, value := range want {
		if got := fmt.Sprint(claims[name]); !strings.EqualFold(got, value) {
			return fmt.Errorf("claim %s: want %s, got %s", name, value, got)
		}
	}
	return nil
}

// present uses a token at the vault and returns the status.
func (t *tour) present(ctx context.Context, token string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.vaultURL()+"/secrets/db-password?api-version=7.4", nil)
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+token)
	client := t.platform.Client()
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// knock sends the app's own request, header and all, from this process, which is not the app.
func knock(ctx context.Context, endpoint, header string) (status int, text string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"?resource=https://vault.azure.net&api-version=2019-08-01", nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("X-IDENTITY-HEADER", header)
	_, status, err = answerOf(req)
	if status != 0 && err != nil {
		return status, err.Error(), nil
	}
	return status, "", err
}

func (t *tour) outside(ctx context.Context) error {
	status, text, err := knock(ctx, t.first.env["IDENTITY_ENDPOINT"], t.first.env["IDENTITY_HEADER"])
	if err != nil {
		return err
	}
	if t.first.started.Assurance < innate.CgroupUID {
		if status != http.StatusOK {
			return fmt.Errorf("want 200 at this assurance, got %d %s", status, text)
		}
		t.tell("%d: as an ordinary user this process and the app are one security domain, and the secret alone decides", status)
		t.weaker = append(t.weaker, "callers are proved by the secret alone, so a stolen one works for any process of this user")
		return nil
	}
	if status != http.StatusForbidden {
		return fmt.Errorf("want 403, got %d %s", status, text)
	}
	t.tell("this process, uid %d, sends the right secret to the right port: %d %s", os.Getuid(), status, text)
	t.tell("the kernel names the cgroup that a socket was made in, and it is not the app's; the agent's log has an alarm")
	return nil
}

// remove deletes the app and looks for anything that is left of it.
func (t *tour) remove(ctx context.Context) error {
	a := t.platform.Admin
	if err := a.ARM(ctx, http.MethodDelete, string(t.app), nil, nil); err != nil {
		return err
	}
	err := a.Graph(ctx, http.MethodGet, "/v1.0/servicePrincipals/"+string(t.identity.Principal), nil, nil)
	if err == nil {
		return errors.New("its service principal is still there")
	}
	if !admin.IsNotFound(err) {
		return fmt.Errorf("its service principal: want 404: %w", err)
	}
	t.tell("its service principal   gone")
	left, err := admin.Pages[assignment](ctx, a, string(t.vault)+authorization+"roleAssignments")
	if err != nil {
		return err
	}
	for _, as := range left {
		if as.Properties.Principal == t.identity.Principal {
			return errors.New("its role assignment is still there")
		}
	}
	t.tell("its role assignment     gone")
	if code := t.present(ctx, t.held); code != http.StatusUnauthorized {
		return fmt.Errorf("the token it held, good for almost an hour more: want 401 from the vault, got %d", code)
	}
	t.tell("the token it held       opens nothing: 401")
	if err := t.first.wait(ctx); err != nil {
		return err
	}
	if status, text, err := knock(ctx, t.first.env["IDENTITY_ENDPOINT"], t.first.env["IDENTITY_HEADER"]); err == nil {
		return fmt.Errorf("its endpoint still answers: %d %s", status, text)
	}
	t.tell("its endpoint            gone, and its process with it")
	return nil
}

// invite says how to go on from another shell.
func (t *tour) invite() {
	p := t.platform
	fmt.Fprintf(t.out, `
It stays up until Ctrl-C. From another shell:

  export INNATE_SOCKET=%s
  alias innate=%s
  innate vm list
  innate app create api -g rg1 --identity
  innate role assign --to api --role 'Key Vault Secrets User' --at kv1
  innate run --app api -- %s sample secret %s db-password
  innate run --app api -- sh -c 'curl -s -H "X-IDENTITY-HEADER: $IDENTITY_HEADER" "$IDENTITY_ENDPOINT?resource=https://vault.azure.net&api-version=2019-08-01"'
  innate audit
`, p.Dir.Socket(), t.program, t.program, t.vaultURL())
}
