package directory_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/directory"
	"innate/rest"
	"innate/store"
)

const (
	vm1 = innate.ResourceID("/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm1")
	h1  = innate.ResourceID("/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg/providers/Microsoft.HybridCompute/machines/h1")
	h2  = innate.ResourceID("/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg/providers/Microsoft.HybridCompute/machines/h2")
)

func TestNewNamesTheMissingField(t *testing.T) {
	_, err := directory.New(directory.Config{})
	if err == nil || !strings.Contains(err.Error(), "DB") {
		t.Errorf("got %v, want an error that names DB", err)
	}
}

func TestGroupsAreTransitiveAndCyclesAreHarmless(t *testing.T) {
	w := newWorld(t)
	me := w.identity("me", vm1, false)
	inner := w.group("inner", me.ID)
	outer := w.group("outer", inner.ID)
	beside := w.group("beside")
	check := func(why string, want ...innate.ObjectID) {
		t.Helper()
		got := slices.Sorted(slices.Values(w.Groups(me.ID)))
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", why, diff)
		}
	}
	check("through a group", inner.ID, outer.ID)
	w.do(func(tx store.Tx) error { return w.AddMember(tx, inner.ID, outer.ID) })
	check("a cycle", inner.ID, outer.ID)
	w.do(func(tx store.Tx) error { return w.AddMember(tx, beside.ID, outer.ID) })
	check("a membership far above is felt", inner.ID, outer.ID, beside.ID)
	w.do(func(tx store.Tx) error { return w.RemoveMember(tx, inner.ID, me.ID) })
	check("and so is the loss of one")
}

func TestDeletingAPrincipalTakesAllOfItAlong(t *testing.T) {
	w := newWorld(t)
	app, sp := w.application("orders", "api://orders")
	g := w.group("g", sp.ID)
	parent := w.group("parent", g.ID)
	vm := w.identity("vm1", vm1, false)
	w.do(func(tx store.Tx) error {
		return directory.AddKey(tx, directory.Key{
			Thumbprint: strings.Repeat("ab", 32), Principal: vm.ID, Hosting: vm1, Host: h1, NotAfter: start.Add(time.Hour),
		}, start)
	})
	w.do(func(tx store.Tx) error {
		for _, id := range []innate.ObjectID{sp.ID, g.ID, vm.ID} {
			if err := w.DeleteObject(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	for _, id := range []innate.ObjectID{sp.ID, g.ID, vm.ID} {
		if o, ok := w.Object(id); ok {
			t.Errorf("%s is still there", o.Name)
		}
		if groups := w.Groups(id); len(groups) != 0 {
			t.Errorf("%s is still in %v", id, groups)
		}
	}
	if _, ok := w.Registration(app.Client); ok {
		t.Error("the registration outlived its service principal")
	}
	if _, ok := w.Audience("api://orders"); ok {
		t.Error("the identifier URI still names the deleted application")
	}
	if _, ok := w.Holder(strings.Repeat("ab", 32)); ok {
		t.Error("the key outlived its holder")
	}
	if got := w.Groups(parent.ID); len(got) != 0 {
		t.Errorf("parent is in %v", got)
	}
	if len(w.deleted) < 3 {
		t.Errorf("OnDelete heard of %d objects, want 3", len(w.deleted))
	}
	w.application("other", "api://orders") // the URI is free again
}

func TestKeysAreHeldByIdentityResourceAndHost(t *testing.T) {
	w := newWorld(t)
	a, b := w.identity("a", vm1, false), w.identity("b", "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg/providers/x/y/b", true)
	vmUpper := innate.ResourceID(strings.ToUpper(string(vm1)))
	held := []directory.Key{
		{Thumbprint: strings.Repeat("0a", 32), Principal: a.ID, Hosting: vm1, Host: h1, NotAfter: start.Add(time.Hour)},
		{Thumbprint: strings.Repeat("0b", 32), Principal: a.ID, Hosting: vm1, Host: h2, NotAfter: start.Add(time.Hour)},
		{Thumbprint: strings.Repeat("0c", 32), Principal: b.ID, Hosting: vm1, Host: h1, NotAfter: start.Add(time.Hour)},
	}
	fill := func() {
		t.Helper()
		w.do(func(tx store.Tx) error {
			for _, k := range held {
				if err := directory.AddKey(tx, k, start); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, c := range []struct {
		name          string
		principal     innate.ObjectID
		hosting, host innate.ResourceID
		left          string // of abc
	}{
		{"one identity", a.ID, "", "", "c"},
		{"a host", "", "", h1, "b"},
		{"an identity on a host", a.ID, "", h1, "bc"},
		{"a resource in other letters", "", vmUpper, "", ""},
		{"everything", "", "", "", ""},
		{"another resource", "", h1, "", "abc"},
	} {
		fill()
		w.do(func(tx store.Tx) error { return directory.DropKeys(tx, c.principal, c.hosting, c.host) })
		left := ""
		for i, k := range held {
			if _, ok := w.Holder(strings.ToUpper(k.Thumbprint)); ok {
				left += string(rune('a' + i))
			}
		}
		if left != c.left {
			t.Errorf("dropping the keys of %s: %q are left, want %q", c.name, left, c.left)
		}
	}
}

func TestAnExpiredKeyGoesWhenItsHolderGetsAnother(t *testing.T) {
	w := newWorld(t)
	o := w.identity("a", vm1, false)
	add := func(thumb string, host innate.ResourceID, now time.Time) {
		t.Helper()
		w.do(func(tx store.Tx) error {
			return directory.AddKey(tx, directory.Key{
				Thumbprint: strings.Repeat(thumb, 32), Principal: o.ID, Hosting: vm1, Host: host,
				NotBefore: now, NotAfter: now.Add(time.Hour),
			}, now)
		})
	}
	add("0a", h1, start)
	add("0b", h2, start)
	add("0c", h1, start.Add(30*time.Minute)) // beside the first: a rotation
	if got := len(w.Keys(o.ID)); got != 3 {
		t.Fatalf("%d keys are held during a rotation, want 3", got)
	}
	w.now = start.Add(80 * time.Minute)
	add("0d", h1, w.now)
	if _, ok := w.Holder(strings.Repeat("0a", 32)); ok {
		t.Error("the expired key of the same holder is still there")
	}
	if _, ok := w.Holder(strings.Repeat("0b", 32)); !ok {
		t.Error("the key on another host was dropped")
	}
	if got := len(w.Keys(o.ID)); got != 2 {
		t.Errorf("%d keys are held now, want 2: an expired one is not held", got)
	}
}

func TestAKeyThatNobodyCouldHoldIsRefused(t *testing.T) {
	w := newWorld(t)
	o := w.identity("a", vm1, false)
	for _, k := range []directory.Key{
		{Thumbprint: "xyz", Principal: o.ID},
		{Thumbprint: strings.Repeat("ab", 20), Principal: o.ID}, // SHA-1
		{Thumbprint: strings.Repeat("ab", 32), Principal: "no-such"},
	} {
		if _, err := w.db.Update(t.Context(), func(tx store.Tx) error { return directory.AddKey(tx, k, start) }); err == nil {
			t.Errorf("key %q of %q was accepted", k.Thumbprint, k.Principal)
		}
	}
}

func TestASecretMatchesOnlyItsOwnClientAndTime(t *testing.T) {
	w := newWorld(t)
	app, _ := w.application("orders")
	var s directory.Secret
	var value string
	w.do(func(tx store.Tx) (err error) {
		s, value, err = directory.AddSecret(tx, app.Client, "ci", start, start.Add(time.Hour))
		return err
	})
	if len(value) != 43 || !strings.HasPrefix(value, s.Hint) || len(s.Hint) != 3 {
		t.Errorf("a secret of %d characters with the hint %q, want 43 and the first three", len(value), s.Hint)
	}
	for _, c := range []struct {
		name        string
		client      innate.ClientID
		secret      string
		now         time.Time
		ok, expired bool
	}{
		{"the right one", app.Client, value, start, true, false},
		{"a wrong one", app.Client, value + "x", start, false, false},
		{"none", app.Client, "", start, false, false},
		{"of another client", "other", value, start, false, false},
		{"before its time", app.Client, value, start.Add(-time.Second), false, false},
		{"at its end", app.Client, value, start.Add(time.Hour), false, true},
		{"a wrong one after the end", app.Client, "x", start.Add(time.Hour), false, false},
	} {
		if ok, expired := s.Matches(c.client, c.secret, c.now); ok != c.ok || expired != c.expired {
			t.Errorf("%s: got %v, %v, want %v, %v", c.name, ok, expired, c.ok, c.expired)
		}
	}
}

func TestAnAudienceIsFoundInEveryFormThatClientsSend(t *testing.T) {
	w := newWorld(t)
	app, _ := w.application("orders", "https://Orders.example.org/Api", "api://orders")
	client := string(app.Client)
	for _, c := range []struct {
		audience string
		found    bool
	}{
		{"https://orders.example.org/Api", true},
		{"HTTPS://ORDERS.EXAMPLE.ORG/Api/", true},
		{"https://orders.example.org/api", false}, // a path has its case
		{"https://orders.example.org/Api//", false},
		{"https://orders.example.org", false},
		{"https://orders.example.org.evil.test/Api", false},
		{"api://orders", true},
		{"api://" + client, true},
		{"API://" + strings.ToUpper(client) + "/", true},
		{client, true},
		{strings.ToUpper(client), true},
		{"", false},
		{"/", false},
		{"api://", false},
	} {
		if _, ok := w.Audience(c.audience); ok != c.found {
			t.Errorf("Audience(%q) is %v, want %v", c.audience, ok, c.found)
		}
	}
}

func TestIdentifierURIsAreUniqueAndWellFormed(t *testing.T) {
	w := newWorld(t)
	first, _ := w.application("first", "https://orders.example.org")
	for _, c := range []struct {
		uri    string
		status int // 0: accepted
	}{
		{"https://ORDERS.example.org/", 409}, // the same one
		{"api://" + string(first.Client), 409},
		{"https://vault.example.org/x", 0}, // reserved is what the platform says, exactly
		{"orders", 400},
		{"https://", 400},
		{"https://*.example.org", 400},
		{"https://a.example.org?x=1", 400},
		{"https://a.example.org#f", 400},
		{"https://user@a.example.org", 400},
		{"https://" + strings.Repeat("a", 300), 400},
		{"https://a b", 400},
		{"https://orders.example.org//", 400}, // beside the first's, which a client may send with a slash of its own
		{"\x00", 400},
	} {
		_, err := w.db.Update(t.Context(), func(tx store.Tx) error {
			_, _, err := directory.CreateRegistration(tx, directory.Registration{Name: "second", IdentifierURIs: []string{c.uri}}, start)
			return err
		})
		status := 0
		var e *rest.Error
		if errors.As(err, &e) {
			status = e.Status
		} else if err != nil {
			t.Errorf("%q: %v is no *rest.Error", c.uri, err)
		}
		if status != c.status {
			t.Errorf("%q: got %d (%v), want %d", c.uri, status, err, c.status)
		}
	}
}

func TestNamesAreBounded(t *testing.T) {
	w := newWorld(t)
	for name, ok := range map[string]bool{
		"x": true, "Ümläut 日本": true, strings.Repeat("ü", 256): true,
		"": false, strings.Repeat("x", 257): false, "a\nb": false, "a\x00": false, "\xff": false,
	} {
		_, err := w.db.Update(t.Context(), func(tx store.Tx) error {
			_, err := directory.CreateGroup(tx, name, start)
			return err
		})
		if (err == nil) != ok {
			t.Errorf("name %.20q: got %v, accepted should be %v", name, err, ok)
		}
	}
}

func TestTheDirectoryIsTheSameAfterARestart(t *testing.T) {
	w := newWorld(t)
	app, sp := w.application("orders", "api://orders")
	g := w.group("g", sp.ID)
	w.do(func(tx store.Tx) error {
		pattern := numbered(sp.ID, 2)
		pattern.Subject, pattern.Matching = "", "claims['sub'] matches 'repo:contoso/*:*'"
		for _, c := range []directory.FederatedCredential{numbered(sp.ID, 1), pattern} {
			if _, _, err := directory.PutFederated(tx, c, start); err != nil {
				return err
			}
		}
		_, err := directory.AssignAppRole(tx, directory.AppRoleAssignment{Resource: sp.ID, Principal: g.ID, Role: directory.NoAppRole}, start)
		return err
	})
	again, err := directory.New(directory.Config{
		DB: w.db, Audit: auditOf(t), Tenant: "t", Graph: "https://graph.example.org", MayEdit: allowAll,
	})
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := again.ByClient(app.Client); !ok || o.ID != sp.ID {
		t.Errorf("ByClient after a restart: got %v, %v", o.ID, ok)
	}
	if diff := cmp.Diff([]innate.ObjectID{g.ID}, again.Groups(sp.ID)); diff != "" {
		t.Errorf("groups after a restart (-want +got)\n%s", diff)
	}
	if _, ok := again.Audience("api://orders"); !ok {
		t.Error("the audience is not found after a restart")
	}
	if c, ok := again.FederatedExact(sp.ID, numbered(sp.ID, 1).Issuer, subject(1)); !ok || len(again.FederatedPatterns(sp.ID)) != 1 {
		t.Errorf("after a restart the federated credentials are %v and %d patterns", c, len(again.FederatedPatterns(sp.ID)))
	}
	if _, assigned := again.AppRoles(app, sp.ID); !assigned {
		t.Error("after a restart nobody is assigned")
	}
}
