package innatetest_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"

	"innate/audit"
	"innate/innatetest"
	"innate/rest"
	"innate/tokens"
)

// A keyring is a platform whose clock goes ahead when it is told to, and an app
// that may read a secret of it.
type keyring struct {
	*innatetest.Platform
	t     *testing.T
	kv    *innatetest.Vault
	api   *innatetest.App
	door  door
	ahead atomic.Int64 // by how much the platform's clock is
}

func newKeyring(t *testing.T) *keyring {
	t.Helper()
	k := &keyring{t: t}
	k.Platform = innatetest.Start(t, innatetest.WithClock(func() time.Time { return time.Now().Add(time.Duration(k.ahead.Load())) }))
	k.kv, k.api = k.Vault("kv1"), k.App("api")
	k.kv.Put("db-password", "hunter2")
	k.Grant(k.api, "Key Vault Secrets User", k.kv)
	k.door = doorOf(t, k.api.Env())
	return k
}

// roll rolls the keys.
func (k *keyring) roll(compromised bool) (list []tokens.Key) {
	k.t.Helper()
	var page struct {
		Value []tokens.Key `json:"value"`
	}
	k.ARM(http.MethodPost, "/keys/roll", map[string]bool{"compromised": compromised}, &page)
	return page.Value
}

// published is the ids of the published keys.
func (k *keyring) published() (kids []string) {
	k.t.Helper()
	resp, err := k.Client().Get(k.Admin.Info.Login + "/common/discovery/keys")
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	var set struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		k.t.Fatal(err)
	}
	for _, key := range set.Keys {
		kids = append(kids, key.ID)
	}
	slices.Sort(kids)
	return kids
}

// ids are those of the keys in a state.
func ids(list []tokens.Key, state tokens.KeyState) (kids []string) {
	for _, k := range list {
		if k.State == state {
			kids = append(kids, k.ID)
		}
	}
	slices.Sort(kids)
	return kids
}

func TestNoTokenFailsWhenTheKeysAreRolled(t *testing.T) {
	t.Parallel()
	k := newKeyring(t)
	v1 := k.Admin.Info.Login + "/" + string(k.Admin.Info.Tenant) + "/"
	ctx := oidc.ClientContext(t.Context(), k.Client())
	provider, err := oidc.NewProvider(ctx, v1)
	if err != nil {
		t.Fatal(err)
	}
	stranger := provider.Verifier(&oidc.Config{ClientID: "https://vault.azure.net"})
	old := k.door.token(t, "https://vault.azure.net").Token
	if _, err := stranger.Verify(ctx, old); err != nil {
		t.Fatal(err)
	}
	if code, text := k.kv.GetWith(old, "db-password"); code != http.StatusOK { // the vault has the keys of now
		t.Fatalf("before: got %d %s", code, text)
	}
	before := k.published()
	list := k.roll(false)
	if diff := cmp.Diff(before, ids(list, tokens.KeyVerifying)); diff != "" {
		t.Errorf("the keys that verify only are not those of before (-want +got):\n%s", diff)
	}
	fresh := k.App("other").Token("https://vault.azure.net")
	for name, token := range map[string]string{"before": old, "after": fresh} {
		if _, err := stranger.Verify(ctx, token); err != nil {
			t.Errorf("a stranger, a token from %s the roll: %v", name, err)
		}
	}
	for _, token := range []string{old, k.door.token(t, "https://vault.azure.net").Token} {
		if code, text := k.kv.GetWith(token, "db-password"); code != http.StatusOK {
			t.Errorf("after the roll: got %d %s, want the secret", code, text)
		}
	}
	if code, text := k.kv.GetWith(fresh, "db-password"); code != http.StatusForbidden {
		t.Errorf("another app's token, of after the roll: got %d %s, want 403: known, and not allowed", code, text)
	}
	if both := k.published(); len(both) != 4 {
		t.Errorf("%d keys are published after the roll, want two old and two new: %q", len(both), both)
	}
}

func TestACompromisedKeyOpensNothingFromTheMomentItIsRolled(t *testing.T) {
	t.Parallel()
	k := newKeyring(t)
	// A roll before: what it left behind leaks with the rest.
	oldest := k.door.token(t, "https://vault.azure.net").Token
	k.roll(false)
	old := k.App("other").Token("https://vault.azure.net")
	for _, token := range []string{oldest, old} {
		if code, text := k.kv.GetWith(token, "db-password"); code == http.StatusUnauthorized {
			t.Fatalf("before: got %d %s", code, text)
		}
	}
	before := k.published()

	list := k.roll(true)
	for name, token := range map[string]string{"that verified only": oldest, "that signed": old} {
		if code, text := k.kv.GetWith(token, "db-password"); code != http.StatusUnauthorized {
			t.Errorf("a token by the key %s: got %d %s, want 401", name, code, text)
		}
	}
	if diff := cmp.Diff(before, ids(list, tokens.KeyWithdrawn)); diff != "" {
		t.Errorf("withdrawn (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ids(list, tokens.KeySigning), k.published()); diff != "" {
		t.Errorf("what is published is not what signs (-want +got):\n%s", diff)
	}
	// The app is not locked out: its agent hears of it and asks for another.
	eventually(t, "the agent throws away tokens by the old keys", func() bool {
		token := k.door.token(t, "https://vault.azure.net").Token
		code, _ := k.kv.GetWith(token, "db-password")
		return code == http.StatusOK
	})
	eventually(t, "the audit log says which keys were withdrawn", func() bool {
		var page struct {
			Value []audit.Event `json:"value"`
		}
		if err := k.Admin.Get(t.Context(), "/audit?action="+tokens.RollKeys, &page); err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(page.Value, func(ev audit.Event) bool {
			withdrawn := strings.Fields(ev.Detail["withdrawn"])
			slices.Sort(withdrawn)
			return ev.Allowed && slices.Equal(withdrawn, before)
		})
	})
}

// A roll wakes the server's schedule, which finds the keys of three days ago.
func TestTheServerForgetsKeysThatNoTokenNeeds(t *testing.T) {
	t.Parallel()
	k := newKeyring(t)
	first := k.published()
	k.roll(false)
	k.ahead.Add(int64(3 * 24 * time.Hour))
	k.roll(false)
	eventually(t, "the keys of three days ago are forgotten", func() bool {
		var page struct {
			Value []tokens.Key `json:"value"`
		}
		k.ARM(http.MethodGet, "/keys", nil, &page)
		return !slices.ContainsFunc(page.Value, func(key tokens.Key) bool { return slices.Contains(first, key.ID) })
	})
}

func TestTheKeysAreForThoseWhoMayAdministerThem(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	token := p.App("api").Token("https://management.azure.com")
	for _, c := range []struct {
		method, path, token, body string
		status                    int
		says                      string // in the body
	}{
		{http.MethodGet, "/keys", "", "", 401, "InvalidAuthenticationToken"},
		{http.MethodPost, "/keys/roll", "", `{"compromised":true}`, 401, "InvalidAuthenticationToken"},
		{http.MethodGet, "/keys", token, "", 403, "Innate.Tokens/keys/read"},
		{http.MethodPost, "/keys/roll", token, `{"compromised":true}`, 403, tokens.RollKeys},
		{http.MethodDelete, "/keys", token, "", 404, "want GET /keys or POST /keys/roll"},
		{http.MethodGet, "/keys/roll", token, "", 404, "want GET /keys or POST /keys/roll"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, p.Admin.Info.Management+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.token != "" {
			r.Header.Set("Authorization", "Bearer "+c.token)
		}
		resp, err := p.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.says) || !strings.Contains(string(body), `"error":{"code"`) {
			t.Errorf("%s %s: got %d %s, want %d and %q", c.method, c.path, resp.StatusCode, body, c.status, c.says)
		}
	}
	// Which roll it is to be is said, never guessed.
	for _, body := range []any{nil, map[string]any{}, map[string]any{"compromised": "yes"}} {
		err := p.Admin.ARM(t.Context(), http.MethodPost, "/keys/roll", body, nil)
		var no *rest.Error
		if !errors.As(err, &no) || no.Status != http.StatusBadRequest || no.Code != "InvalidRequestContent" {
			t.Errorf("body %v: got %v, want 400 InvalidRequestContent", body, err)
		}
	}
}
