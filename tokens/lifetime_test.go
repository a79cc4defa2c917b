package tokens_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/directory"
	"innate/rest"
	"innate/store"
	"innate/tokens"
)

// operator is who changes lifetimes here.
var operator = innate.Principal{Object: "5f2b5b7e-0000-4000-8000-000000000001", Name: "operator"}

func (w *world) setLife(of, name string, life time.Duration) tokens.Lifetime {
	w.t.Helper()
	l, err := w.tokens.SetLifetime(w.t.Context(), operator, of, name, tokens.Life(life))
	if err != nil {
		w.t.Fatalf("%s of %s %q: %v", life, of, name, err)
	}
	return l
}

func (w *world) clearLife(of, name string) {
	w.t.Helper()
	if err := w.tokens.ClearLifetime(w.t.Context(), operator, of, name); err != nil {
		w.t.Fatalf("clearing that of %s %q: %v", of, name, err)
	}
}

func TestATokensLifeIsTheShorterOfItsAudiencesAndItsIdentitys(t *testing.T) {
	w := start(t)
	w.orders(nil)
	client, secret := w.application()
	who, _ := w.directory.ByClient(client)
	const m = time.Minute
	for _, c := range []struct {
		tenant, audience, identity time.Duration // 0: not set
		want                       time.Duration
	}{
		{0, 0, 0, 60 * m},
		{30 * m, 0, 0, 30 * m},
		{30 * m, 20 * m, 0, 20 * m},
		{30 * m, 0, 15 * m, 15 * m},
		{30 * m, 20 * m, 15 * m, 15 * m},
		{30 * m, 12 * m, 15 * m, 12 * m},
		{30 * m, 12 * m, 12 * m, 12 * m},
		{10 * m, 8 * 60 * m, 0, 8 * 60 * m},            // the tenant's is no bound, it is for the rest
		{10 * m, 0, 24 * 60 * m, 24 * 60 * m},          // nor here
		{10 * m, 24 * 60 * m, 8 * 60 * m, 8 * 60 * m},  // of two the shorter
		{24 * 60 * m, 0, 0, 24 * 60 * m},               // the longest
		{0, 10 * m, 24*60*m - time.Second, 10 * m},     // the shortest
		{0, 0, 24*60*m - time.Second, 24*60*m - 1*1e9}, // whole seconds
	} {
		for of, life := range map[string]time.Duration{"tenant": c.tenant, "audience": c.audience, "identity": c.identity} {
			name := map[string]string{"audience": "api://orders", "identity": string(who.ID)}[of]
			if life == 0 {
				w.clearLife(of, name)
			} else {
				w.setLife(of, name, life)
			}
		}
		a := w.ask(client, secret, "api://orders")
		claims := w.claims(a)
		if got := time.Duration(claims["exp"].(float64)-claims["iat"].(float64)) * time.Second; got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
		if got := a.member("expires_in"); got != fmt.Sprint(int(c.want.Seconds())) {
			t.Errorf("%+v: expires_in %s", c, got)
		}
		hint := "" // a client is told to renew at half life only above two hours
		if c.want > 2*time.Hour {
			hint = fmt.Sprint(int(c.want.Seconds()) / 2)
		}
		if got := a.member("refresh_in"); got != hint {
			t.Errorf("%+v: refresh_in %q, want %q", c, got, hint)
		}
	}
	// Neither holds for another audience and another identity.
	w.setLife("audience", "api://orders", 10*m)
	w.setLife("identity", string(who.ID), 11*m)
	other, otherSecret := w.application()
	if got := w.ask(other, otherSecret, vault).member("expires_in"); got != "3600" {
		t.Errorf("others: expires_in %s", got)
	}
	if got := w.ask(client, secret, vault).member("expires_in"); got != "660" {
		t.Errorf("the identity at another audience: expires_in %s", got)
	}
}

func TestAnAudienceHasOneLifetimeUnderAllItsNames(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	w.setLife("audience", "https://VAULT.azure.net/", 10*time.Minute)
	for _, name := range []string{vault, vault + "/", "https://vault.azure.net", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093"} {
		if got := w.ask(client, secret, name).member("expires_in"); got != "600" {
			t.Errorf("%s: expires_in %s", name, got)
		}
	}
	w.clearLife("audience", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093")
	if got := w.ask(client, secret, vault).member("expires_in"); got != "3600" {
		t.Errorf("cleared by its id: expires_in %s", got)
	}
}

func TestALifetimeIsKeptAndRecorded(t *testing.T) {
	w := start(t)
	r := w.orders(nil)
	w.now = noon.Add(time.Hour)
	w.setLife("audience", "api://orders", 90*time.Minute)
	w.setLife("tenant", "", 24*time.Hour)

	again, err := tokens.New(t.Context(), w.config) // as after a restart
	if err != nil {
		t.Fatal(err)
	}
	all, usual, err := again.Lifetimes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []tokens.Lifetime{
		{Of: "audience", ID: string(r.Client), Name: "orders", Life: tokens.Life(90 * time.Minute), By: operator.Object, Changed: w.now},
		{Of: "tenant", Life: tokens.Life(24 * time.Hour), By: operator.Object, Changed: w.now},
	}
	if diff := cmp.Diff(want, all); diff != "" || usual != tokens.Life(time.Hour) {
		t.Errorf("usual %s (-want +got)\n%s", time.Duration(usual), diff)
	}
	w.clearLife("tenant", "")
	w.clearLife("tenant", "") // there is none: nothing changes
	var got []string
	for _, ev := range w.left() {
		if !strings.Contains(ev.Action, "/lifetimes/") {
			continue // the first signing keys
		}
		if !ev.Allowed || ev.Principal != operator.Object || ev.Name != "operator" || !ev.Time.Equal(w.now) {
			t.Errorf("event %+v", ev)
		}
		got = append(got, ev.Action+" "+ev.Target+" "+ev.Detail["lifetime"])
	}
	if diff := cmp.Diff([]string{
		"Innate.Tokens/lifetimes/write audience/" + string(r.Client) + " 1h30m0s",
		"Innate.Tokens/lifetimes/write tenant 24h0m0s",
		"Innate.Tokens/lifetimes/delete tenant 24h0m0s",
	}, got); diff != "" {
		t.Errorf("left in the outbox (-want +got)\n%s", diff)
	}
}

func TestALifetimeOfNothingOrNoLifetimeIsRefused(t *testing.T) {
	w := start(t)
	client, _ := w.application()
	who, _ := w.directory.ByClient(client)
	group := w.in(who.ID, "people")
	before := w.revision()
	for name, c := range map[string]struct {
		of, name string
		life     time.Duration
		status   int
		says     string
	}{
		"too short":          {"tenant", "", 10*time.Minute - time.Second, 400, "10m0s to 24h0m0s"},
		"too long":           {"tenant", "", 24*time.Hour + time.Second, 400, "10m0s to 24h0m0s"},
		"none":               {"tenant", "", 0, 400, "10m0s to 24h0m0s"},
		"half a second":      {"tenant", "", time.Hour + time.Second/2, 400, "whole seconds"},
		"a tenant by name":   {"tenant", tenant, time.Hour, 400, "leave"},
		"of something else":  {"key", "x", time.Hour, 400, "tenant, an audience or an identity"},
		"of no audience":     {"audience", "", time.Hour, 400, "'of'"},
		"of no identity":     {"identity", "", time.Hour, 400, "'of'"},
		"unknown audience":   {"audience", "https://example.org", time.Hour, 404, "innate services"},
		"unknown identity":   {"identity", "0f8fad5b-d9cb-469f-a165-70867728950e", time.Hour, 404, "object id"},
		"a client id":        {"identity", string(client), time.Hour, 404, "object id"},
		"a group":            {"identity", string(group), time.Hour, 404, "groups are given no tokens"},
		"not even an object": {"identity", "../tenant", time.Hour, 404, "object id"},
	} {
		_, err := w.tokens.SetLifetime(t.Context(), operator, c.of, c.name, tokens.Life(c.life))
		var e *rest.Error
		if !errors.As(err, &e) || e.Status != c.status || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: got %v, want %d that says %q", name, err, c.status, c.says)
		}
	}
	if after := w.revision(); after != before {
		t.Errorf("a refusal wrote to the store: revision %d, was %d", after, before)
	}
}

func TestLifetimesGoWithWhatTheyAreOf(t *testing.T) {
	w := start(t)
	r := w.orders(nil)
	identity := w.identity(app, false)
	w.setLife("audience", "api://orders", 10*time.Minute)
	w.setLife("identity", string(r.Principal), 10*time.Minute)
	w.setLife("identity", string(identity.ID), 10*time.Minute)
	w.setLife("audience", vault, 10*time.Minute)
	for _, id := range []innate.ObjectID{r.Principal, identity.ID} {
		w.update(func(tx store.Tx) error { return w.directory.DeleteObject(tx, id) })
	}
	all, _, err := w.tokens.Lifetimes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0].Name != "Azure Key Vault" {
		t.Errorf("left: %+v", all)
	}
	// One that comes back under the same app id starts anew.
	w.register(directory.Registration{Client: r.Client, Name: "orders", IdentifierURIs: []string{"api://orders"}})
	client, secret := w.application()
	if got := w.ask(client, secret, "api://orders").member("expires_in"); got != "3600" {
		t.Errorf("expires_in %s", got)
	}
}

func TestALifeIsWrittenAsISO8601(t *testing.T) {
	for text, want := range map[string]string{ // what it is written back as; empty: refused
		"PT1H": "PT1H", "PT60M": "PT1H", "PT3600S": "PT1H", "P1D": "PT24H", "P0DT90M": "PT1H30M",
		"PT10M": "PT10M", "PT599S": "", "PT24H1S": "", "PT1H30M5S": "PT1H30M5S", "PT86400S": "PT24H", "P1DT": "",
		"": "", "P": "", "PT": "", "1h": "", "PT1.5H": "", "pt1h": "", "PT1M1H": "", "P1M": "", "P1W": "", "-PT1H": "",
		"PT100000S": "", "PT1H\n": "", "PT99999H": "", "PT١H": "", // a digit elsewhere
	} {
		var l tokens.Life
		err := l.UnmarshalText([]byte(text))
		if (err == nil) != (want != "") {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if err != nil {
			continue
		}
		if got, err := l.MarshalText(); err != nil || string(got) != want {
			t.Errorf("%q: written as %s, %v; want %s", text, got, err, want)
		}
	}
}

// FuzzLife reads any text: what is accepted is a life, and reads back the same.
func FuzzLife(f *testing.F) {
	for _, seed := range []string{"PT1H", "P1D", "PT90M", "PT", "P1DT0S", "PT00010M", "PT86401S"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var l, again tokens.Life
		if l.UnmarshalText([]byte(text)) != nil {
			return
		}
		if l < tokens.Life(10*time.Minute) || l > tokens.Life(24*time.Hour) {
			t.Errorf("%q is %s", text, time.Duration(l))
		}
		written, err := l.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalText(written); err != nil || again != l {
			t.Errorf("%q is %s, written as %s and read as %s, %v", text, time.Duration(l), written, time.Duration(again), err)
		}
	})
}
