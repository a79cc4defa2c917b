package imds_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"innate"
	"innate/agent/endpoint/endpointtest"
	"innate/agent/imds"
	"innate/audit"
)

const (
	vm     = innate.ResourceID("/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/web-1")
	userID = innate.ResourceID("/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u1")
	system = "aaaaaaaa-0000-0000-0000-000000000001"
	user   = "bbbbbbbb-0000-0000-0000-00000000000f"
)

var now = time.Unix(1790000000, 0)

var machine = imds.Machine{
	Resource: vm, VMID: "cccccccc-0000-0000-0000-000000000001", Location: "local",
	Tags: map[string]string{"owner": "a<b", "env": "test"}, Tenant: "72f988bf-0000-0000-0000-2d7cd011db47", HasIdentity: true,
	Told: map[string]string{"compute.vmSize": "Standard_B1s", "compute.sku": "12", "compute.licenseType": "RHEL_BYOS", "compute.plan.name": "p"},
}

// links are the machine's interfaces: an ordinary one, and one with a public
// address and one that only a carrier's translation hides.
func links() ([]imds.Interface, error) {
	return []imds.Interface{
		{MAC: net.HardwareAddr{0, 0x0d, 0x3a, 0x12, 0x34, 0x56}, IPv4: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/24")}, IPv6: []netip.Addr{netip.MustParseAddr("fd00::1")}},
		{MAC: net.HardwareAddr{0, 0x0d, 0x3a, 0x12, 0x34, 0x57}, IPv4: []netip.Prefix{netip.MustParsePrefix("203.0.113.9/28"), netip.MustParsePrefix("100.64.0.9/10")}},
	}, nil
}

// A tokenSource is where tokens come from in these tests.
type tokenSource func(innate.Selector, string) (innate.Token, error)

func (f tokenSource) Token(_ context.Context, workload innate.ResourceID, which innate.Selector, resource string, proof innate.Assurance) (innate.Token, error) {
	if workload != vm || proof != innate.NetNS {
		return innate.Token{}, fmt.Errorf("asked for a token of %s at %s", workload, proof)
	}
	return f(which, resource)
}

// identities answers for a VM with a system-assigned and a user-assigned identity.
func identities(which innate.Selector, resource string) (innate.Token, error) {
	switch resource {
	case "several":
		return innate.Token{}, innate.ErrManyIdentities
	case "unknown-audience":
		return innate.Token{}, &innate.Refusal{Status: 400, OAuth: "invalid_resource", Code: 500011, Text: "the resource principal was not found", Trace: "trace-1"}
	case "too-weak":
		return innate.Token{}, &innate.Refusal{Status: 403, Text: "netns reached; device demanded, which is unreachable here"}
	case "throttled":
		return innate.Token{}, &innate.Refusal{Status: 429, Text: "slow down", RetryAfter: time.Minute}
	case "away":
		return innate.Token{}, &innate.Refusal{Status: 503, Text: "the control plane is away"}
	case "broken":
		return innate.Token{}, errors.New("disk on fire")
	case "expired":
		return innate.Token{Value: "old", Client: system, Expires: now}, nil
	}
	id := innate.ClientID(system)
	switch {
	case which == innate.Selector{}, which.Client == system:
	case which.Client == user, which.Object == user, which.Resource.Equal(userID):
		id = user
	default:
		return innate.Token{}, innate.ErrNoIdentity
	}
	return innate.Token{Value: "token of " + string(id) + " for " + resource, Client: id, Object: innate.ObjectID(id),
		Resource: resource, NotBefore: now, Expires: now.Add(time.Hour)}, nil
}

// newServer is the metadata service of machine; its audit log is at path.
func newServer(t testing.TB, c imds.Config) (s *imds.Server, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	c.Audit, c.Assurance, c.Hosts = log, innate.NetNS, []string{"metadata.innate.test"}
	if c.Tokens == nil {
		c.Tokens = tokenSource(identities)
	}
	if c.Machine == nil {
		c.Machine = func() (imds.Machine, bool) { return machine, true }
	}
	if c.Interfaces == nil {
		c.Interfaces = links
	}
	if c.Now == nil {
		c.Now = func() time.Time { return now }
	}
	if s, err = imds.New(c); err != nil {
		t.Fatal(err)
	}
	return s, path
}

// serve serves h on loopback until the test ends.
func serve(t testing.TB, h http.Handler) (addr string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestRequests(t *testing.T) {
	words := map[string]string{
		"host": "169.254.169.254", "system": system, "user": user, "USER": strings.ToUpper(user),
		"userid": string(userID), "useridquoted": strings.ReplaceAll(string(userID), "/", "%2F"),
	}
	for _, file := range []string{"token", "instance", "events"} {
		s, _ := newServer(t, imds.Config{})
		endpointtest.Play(t, "testdata/"+file+".txt", serve(t, s), words)
	}
}

func get(t *testing.T, addr, target string) int {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+addr+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "169.254.169.254"
	req.Header.Set("Metadata", "true")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

const tokenURL = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource="

func TestAMachineThatIsNoLongerHereHasNoIdentity(t *testing.T) {
	s, _ := newServer(t, imds.Config{Machine: func() (imds.Machine, bool) { return imds.Machine{}, false }})
	addr := serve(t, s)
	for target, want := range map[string]int{
		tokenURL + "x": 400,
		"/metadata/identity/info?api-version=2018-02-01": 400,
		"/metadata/instance?api-version=2021-02-01":      404,
	} {
		if got := get(t, addr, target); got != want {
			t.Errorf("%s: %d, want %d", target, got, want)
		}
	}
}

func TestAMachineWithoutIdentityHasNoTenantToTell(t *testing.T) {
	s, _ := newServer(t, imds.Config{Machine: func() (imds.Machine, bool) { return imds.Machine{Resource: vm, Tenant: machine.Tenant}, true }})
	if got := get(t, serve(t, s), "/metadata/identity/info?api-version=2018-02-01"); got != 400 {
		t.Errorf("%d, want 400", got)
	}
}

func TestTokensAndRefusalsAreRecorded(t *testing.T) {
	s, path := newServer(t, imds.Config{})
	addr := serve(t, s)
	for _, target := range []string{"r1", "r1", "r1", "unknown-audience"} {
		get(t, addr, tokenURL+target)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for ev, err := range audit.Read(path) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Action != "get-token" || ev.Hosting != string(vm) || ev.Assurance != innate.NetNS {
			t.Errorf("event %+v does not say whose it is", ev)
		}
		got = append(got, fmt.Sprintf("%v %s %s%s %s", ev.Allowed, ev.Target, ev.Client, ev.Detail["repeats"], ev.Trace))
	}
	want := "true r1 " + system + " \nfalse unknown-audience  trace-1\ntrue r1 " + system + "2 "
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("recorded\n%s\nwant\n%s", text, want)
	}
}

func TestAnIncompleteConfigIsRefusedByName(t *testing.T) {
	for _, missing := range []string{"Tokens", "Machine", "Audit", "Assurance"} {
		c := imds.Config{
			Tokens: tokenSource(identities), Machine: func() (imds.Machine, bool) { return machine, true },
			Audit: new(audit.Log), Assurance: innate.NetNS,
		}
		switch missing {
		case "Tokens":
			c.Tokens = nil
		case "Machine":
			c.Machine = nil
		case "Audit":
			c.Audit = nil
		case "Assurance":
			c.Assurance = innate.Unproved
		}
		if _, err := imds.New(c); err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
}
