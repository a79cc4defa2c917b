package appservice_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"innate"
	"innate/agent/appservice"
	"innate/agent/caller"
	"innate/agent/launch"
)

// The test binary is also the stub, and the apps: each a process of its own.
func TestMain(m *testing.M) {
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	switch role {
	case "launch":
		fmt.Fprintln(os.Stderr, launch.Main())
		os.Exit(1)
	case "ask":
		report(ask())
	case "sdk":
		report(sdk(os.Args[2:]))
	default:
		os.Exit(m.Run())
	}
}

func report(answer string, err error) {
	if err != nil {
		answer = err.Error()
	}
	fmt.Println(answer)
}

// ask makes the request of the article by hand.
func ask() (string, error) {
	req, err := http.NewRequest("GET", os.Getenv("IDENTITY_ENDPOINT")+"?resource=r1&api-version=2019-08-01", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-IDENTITY-HEADER", os.Getenv("IDENTITY_HEADER"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	return strconv.Itoa(resp.StatusCode), resp.Body.Close()
}

// sdk asks as an unmodified application would. Its cache belongs to the process.
func sdk(args []string) (string, error) {
	var options azidentity.ManagedIdentityCredentialOptions
	if len(args) == 2 {
		switch args[0] {
		case "client":
			options.ID = azidentity.ClientID(args[1])
		case "object":
			options.ID = azidentity.ObjectID(args[1])
		case "resource":
			options.ID = azidentity.ResourceID(args[1])
		}
	}
	credential, err := azidentity.NewManagedIdentityCredential(&options)
	if err != nil {
		return "", err
	}
	token, err := credential.GetToken(context.Background(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	if err != nil {
		return "", err
	}
	return token.Token, nil
}

// runApp runs this binary in a role, with the endpoint's variables, as whom spec says.
func runApp(t *testing.T, e endpoint, secret string, spec launch.Spec, role ...string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	spec.Args = append([]string{"/proc/self/exe"}, role...)
	spec.Stub = []string{"/proc/self/exe", "launch"}
	spec.Env = append(e.env(secret), "GORACE=atexit_sleep_ms=0")
	spec.Stdout, spec.Stderr = w, w
	p, err := launch.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(); err != nil || code != 0 {
		t.Fatalf("%v ended with %d, %v: %s", role, code, err, out)
	}
	return strings.TrimSpace(string(out))
}

func newDiag(t testing.TB) *caller.Diag {
	t.Helper()
	d, err := caller.NewDiag()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestARightSecretFromAnotherCgroupOrUIDIsRefusedAndRaisesTheAlarm(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for cgroups and uids of its own")
	}
	name, err := launch.OwnName("innate-test-appservice-")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := launch.OpenCgroups(name)
	if errors.Is(err, launch.ErrNoCgroups) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	own, err := tree.Make("api/g1")
	if err != nil {
		t.Fatal(err)
	}
	other, err := tree.Make("api/g2")
	if err != nil {
		t.Fatal(err)
	}
	const uid, stranger = 60001, 60002
	e := start(t, appservice.Config{
		Attestor:   newDiag(t),
		Generation: appservice.Generation{UID: uid, Cgroup: own.ID, Proof: innate.CgroupUID},
	})
	for _, test := range []struct {
		who    string
		spec   launch.Spec
		secret string
		want   string
	}{
		{"the app", launch.Spec{UID: uid, Cgroup: own}, testSecret, "200"},
		{"the app with a wrong secret", launch.Spec{UID: uid, Cgroup: own}, "guess", "401"},
		{"same uid, other cgroup", launch.Spec{UID: uid, Cgroup: other}, testSecret, "403"},
		{"other uid, the app's cgroup", launch.Spec{UID: stranger, Cgroup: own}, testSecret, "403"},
		{"root in the app's cgroup", launch.Spec{UID: 0, Cgroup: own}, testSecret, "403"},
		{"root elsewhere", launch.Spec{UID: 0}, testSecret, "403"},
		{"a stranger without the secret", launch.Spec{UID: stranger, Cgroup: other}, "", "401"},
	} {
		if got := runApp(t, e, test.secret, test.spec, "ask"); got != test.want {
			t.Errorf("%s: %s, want %s", test.who, got, test.want)
		}
	}
	var tokens int
	alarms := map[string]bool{}
	for _, ev := range e.events(t) {
		switch {
		case ev.Allowed:
			tokens++
			if ev.Assurance != innate.CgroupUID || ev.Detail["uid"] != "60001" || ev.Detail["cgroup"] != fmt.Sprint(own.ID) {
				t.Errorf("the token's event does not say how its holder was proved: %+v", ev)
			}
		case ev.Why == "right secret, wrong caller":
			alarms[ev.Detail["uid"]+" in "+ev.Detail["cgroup"]] = true
			if ev.Assurance != innate.Unproved {
				t.Errorf("an alarm claims assurance %v", ev.Assurance)
			}
		}
	}
	if tokens != 1 {
		t.Errorf("%d tokens were recorded, want 1", tokens)
	}
	for _, who := range []string{
		fmt.Sprintf("%d in %d", uid, other.ID), fmt.Sprintf("%d in %d", stranger, own.ID), fmt.Sprintf("0 in %d", own.ID),
	} {
		if !alarms[who] {
			t.Errorf("no alarm about uid %s; alarms: %v", who, alarms)
		}
	}
}

func TestWithoutCgroupsTheUIDDecides(t *testing.T) {
	spec := launch.Spec{UID: uint32(os.Getuid())}
	if spec.UID == 0 {
		spec.UID = 60001
	}
	for uid, want := range map[uint32]string{spec.UID: "200", spec.UID + 1: "403"} {
		e := start(t, appservice.Config{Attestor: newDiag(t), Generation: appservice.Generation{UID: uid, Proof: innate.UID}})
		if got := runApp(t, e, testSecret, spec, "ask"); got != want {
			t.Errorf("uid %d asks the endpoint of uid %d: %s, want %s", spec.UID, uid, got, want)
		}
	}
}

func TestAnUnmodifiedSDKGetsItsToken(t *testing.T) {
	e := start(t, appservice.Config{Now: time.Now, Tokens: tokenSource(func(which innate.Selector, resource string) (innate.Token, error) {
		token, err := identities(which, resource)
		token.Expires = time.Now().Add(time.Hour) // azidentity goes by the real clock
		return token, err
	})})
	for _, test := range []struct {
		role []string
		want string
	}{
		{[]string{"sdk"}, "token of " + system + " for https://vault.azure.net"},
		{[]string{"sdk", "client", user}, "token of " + user + " for https://vault.azure.net"},
		{[]string{"sdk", "object", user}, "token of " + user + " for https://vault.azure.net"},
		{[]string{"sdk", "resource", string(userID)}, "token of " + user + " for https://vault.azure.net"},
		{[]string{"sdk", "client", "00000000-0000-0000-0000-00000000dead"}, "No User Assigned or Delegated Managed Identity found"},
	} {
		if got := runApp(t, e, testSecret, launch.Spec{UID: uint32(os.Getuid())}, test.role...); !strings.Contains(got, test.want) {
			t.Errorf("%v: %s\nwant %s", test.role, got, test.want)
		}
	}
}
