package vault_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/store"
	"innate/vault"
)

func TestWhoeverHasNoTokenIsTheSameEverywhere(t *testing.T) {
	w := newWorld(t)
	w.must("officer", "PUT", "/secrets/there"+api, `{"value":"v"}`)
	want := `Bearer authorization="https://login.innate.test/` + tenant + `", resource="https://vault.innate.test:8443"`
	for _, path := range []string{"/", "/secrets/there/" + api, "/secrets/not-there" + api, "/secrets/there", "/keys/x", "/../..", "/secrets/\x00"} {
		for _, who := range []string{"", "not-a-token"} {
			a := w.send(who, "GET", path, "")
			w.refused(a, http.StatusUnauthorized, "Unauthorized", "")
			if got := a.header.Get("WWW-Authenticate"); got != want {
				t.Errorf("%s: challenge %q, want %q", path, got, want)
			}
		}
	}
	w.refused(w.sendTo("no-such.vault.innate.test:8443", "", "GET", "/secrets/x"+api, ""), http.StatusUnauthorized, "Unauthorized", "")
}

func TestWhoMayNotLearnsHowAndNotWhat(t *testing.T) {
	w := newWorld(t)
	w.join("web-1")
	w.must("officer", "PUT", "/secrets/there"+api, `{"value":"hunter2"}`)
	there := w.send("web-1", "GET", "/secrets/there"+api, "")
	absent := w.send("web-1", "GET", "/secrets/gone"+api, "")
	for _, a := range []answer{there, absent} {
		w.refused(a, http.StatusForbidden, "Forbidden", "ForbiddenByRbac")
		for _, want := range []string{
			"Caller is not authorized to perform action on resource.", "name=web-1;oid=" + string(w.people["web-1"].Object),
			"Action: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'", "Assignment: (not found)",
			"'Key Vault Secrets User'", "innate role assign --to " + string(w.people["web-1"].Object), "--at " + string(kv1),
		} {
			if !strings.Contains(a.Error.Message, want) {
				t.Errorf("the refusal does not say %q:\n%s", want, a.Error.Message)
			}
		}
	}
	if got := strings.ReplaceAll(absent.text, "/secrets/gone", "/secrets/there"); got != there.text {
		t.Errorf("what is there and what is not are answered differently:\n%s\n%s", there.text, absent.text)
	}
	events := w.events()
	i := slices.IndexFunc(events, func(ev audit.Event) bool { return !ev.Allowed })
	if i < 0 {
		t.Fatalf("no refusal in the audit log: %+v", events)
	}
	who := w.people["web-1"]
	want := audit.Event{
		Time: w.clock(), Action: "Microsoft.KeyVault/vaults/secrets/getSecret/action", Target: string(kv1) + "/secrets/there",
		Principal: who.Object, Name: "web-1", Client: who.Client, Hosting: string(who.Hosting), Assurance: innate.NetNS, Token: "uti-web-1",
		Why: events[i].Why, Trace: there.header.Get("x-ms-request-id"), Address: "192.0.2.1:1234",
	}
	if diff := cmp.Diff(want, events[i]); diff != "" || want.Why == "" {
		t.Errorf("audit event (-want +got):\n%s", diff)
	}
}

func TestARoleOpensWhatItSaysAtOnce(t *testing.T) {
	w := newWorld(t)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"1"}`)
	w.must("officer", "PUT", "/secrets/b"+api, `{"value":"2"}`)
	w.must("officer", "PUT", "/secrets/d"+api, `{"value":"3"}`)
	w.must("officer", "DELETE", "/secrets/d"+api, "")
	w.join("user")
	w.join("one")
	w.join("reader")
	w.join("control")
	w.grant("user", access.KeyVaultSecretsUser, innate.Scope(group))
	w.grant("one", access.KeyVaultSecretsUser, kv1.Scope()+"/secrets/A")
	w.grant("reader", access.KeyVaultReader, kv1.Scope())
	w.grant("control", access.Owner, innate.Root) // control actions do not open what is inside
	for _, c := range []struct {
		who, method, path string
		want              int
	}{
		{"user", "GET", "/secrets/a", 200},
		{"user", "GET", "/secrets", 200},
		{"user", "GET", "/secrets/a/versions", 200},
		{"user", "GET", "/secrets/none", 404},
		{"user", "PUT", "/secrets/a", 403},
		{"user", "PATCH", "/secrets/a", 403},
		{"user", "DELETE", "/secrets/a", 403},
		{"user", "DELETE", "/secrets/none", 403},
		{"user", "DELETE", "/deletedsecrets/d", 403},
		{"user", "POST", "/deletedsecrets/d/recover", 403},
		{"one", "GET", "/secrets/a", 200},
		{"one", "GET", "/secrets/b", 403},
		{"one", "GET", "/secrets", 403},
		{"reader", "GET", "/secrets", 200},
		{"reader", "GET", "/deletedsecrets/d", 200},
		{"reader", "GET", "/secrets/a", 403},
		{"control", "GET", "/secrets/a", 403},
		{"control", "GET", "/secrets", 403},
		{"control", "PUT", "/secrets/a", 403},
	} {
		if a := w.send(c.who, c.method, c.path+api, `{"value":"x"}`); a.status != c.want {
			t.Errorf("%s %s %s: %d, want %d: %s", c.who, c.method, c.path, a.status, c.want, a.text)
		}
	}
}

func TestASecretsLife(t *testing.T) {
	w := newWorld(t)
	first := w.must("officer", "PUT", "/secrets/Db-Password"+api, `{"value":"one","contentType":"text/plain","tags":{"a":"b"},"attributes":{"nbf":1,"exp":2}}`)
	if first.Value != "one" || first.Type != "text/plain" || first.Tags["a"] != "b" || first.Attributes.Expires == nil || *first.Attributes.Expires != 2 {
		t.Errorf("set: %s", first.text)
	}
	if at := first.Attributes; !at.Enabled || at.Created != w.clock().Unix() || at.RecoveryLevel != "Recoverable+Purgeable" || at.RecoverableDays != 90 {
		t.Errorf("attributes: %s", first.text)
	}
	if prefix := "https://" + host + "/secrets/Db-Password/"; !strings.HasPrefix(first.ID, prefix) || len(first.version()) != 32 {
		t.Errorf("id %q, want %s and 32 digits", first.ID, prefix)
	}
	w.pass(time.Second)
	second := w.must("officer", "PUT", "/secrets/DB-PASSWORD"+api, `{"value":"two"}`)
	if !strings.Contains(second.ID, "/secrets/Db-Password/") || second.version() == first.version() || second.version() < first.version() {
		t.Errorf("second version %q after %q: want the first writer's case and a later version", second.ID, first.ID)
	}

	for path, want := range map[string]string{
		"/secrets/db-password": "two", "/secrets/db-password/": "two", "//Secrets/db-password/": "two",
		"/secrets/db-password/" + first.version():                        "one",
		"/secrets/db-password/" + strings.ToUpper(first.version()) + "/": "one",
	} {
		if got := w.must("officer", "GET", path+api, ""); got.Value != want {
			t.Errorf("GET %s: %s, want the value %q", path, got.text, want)
		}
	}
	versions := w.must("officer", "GET", "/secrets/db-password/versions"+api, "").items()
	if diff := cmp.Diff([]string{first.ID, second.ID}, versions); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"https://" + host + "/secrets/Db-Password"}, w.must("officer", "GET", "/secrets"+api, "").items()); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}

	gone := w.must("officer", "DELETE", "/secrets/db-password"+api, "")
	if gone.RecoveryID != "https://"+host+"/deletedsecrets/Db-Password" || gone.Deleted != w.clock().Unix() || gone.Purge <= gone.Deleted || gone.Value != nil {
		t.Errorf("deleted: %s", gone.text)
	}
	w.refused(w.send("officer", "GET", "/secrets/db-password/"+api, ""), 404, "SecretNotFound", "")
	w.refused(w.send("officer", "GET", "/secrets/db-password/"+first.version()+api, ""), 404, "SecretNotFound", "")
	w.refused(w.send("officer", "GET", "/secrets/db-password/versions"+api, ""), 404, "SecretNotFound", "")
	w.refused(w.send("officer", "DELETE", "/secrets/db-password"+api, ""), 404, "SecretNotFound", "")
	w.refused(w.send("officer", "PUT", "/secrets/db-password"+api, `{"value":"three"}`), 409, "Conflict", "ObjectIsDeletedButRecoverable")
	if got := w.must("officer", "GET", "/secrets"+api, "").items(); len(got) != 0 {
		t.Errorf("list after the deletion: %v", got)
	}
	if got := w.must("officer", "GET", "/deletedsecrets"+api, "").items(); len(got) != 1 {
		t.Errorf("list of deleted: %v", got)
	}
	if got := w.must("officer", "GET", "/deletedsecrets/DB-password"+api, ""); got.Deleted != gone.Deleted || got.Value != nil {
		t.Errorf("get deleted: %s", got.text)
	}

	back := w.must("officer", "POST", "/deletedsecrets/db-password/recover"+api, "")
	if back.ID != second.ID || back.Deleted != 0 {
		t.Errorf("recovered: %s", back.text)
	}
	if got := w.must("officer", "GET", "/secrets/db-password/"+first.version()+api, ""); got.Value != "one" {
		t.Errorf("an old version after the recovery: %s", got.text)
	}
	w.refused(w.send("officer", "POST", "/deletedsecrets/db-password/recover"+api, ""), 404, "SecretNotFound", "")

	w.must("officer", "DELETE", "/secrets/db-password"+api, "")
	if a := w.must("officer", "DELETE", "/deletedsecrets/db-password"+api, ""); a.status != 204 || a.text != "" {
		t.Errorf("purge: %d %q", a.status, a.text)
	}
	w.refused(w.send("officer", "DELETE", "/deletedsecrets/db-password"+api, ""), 404, "SecretNotFound", "")
	again := w.must("officer", "PUT", "/secrets/db-PASSWORD"+api, `{"value":"new"}`)
	if !strings.Contains(again.ID, "/secrets/db-PASSWORD/") {
		t.Errorf("made again: %s", again.text)
	}
	if got := w.must("officer", "GET", "/secrets/db-password/versions"+api, "").items(); len(got) != 1 {
		t.Errorf("versions of the new one: %v", got)
	}
}

func TestAnUpdateChangesWhatItNames(t *testing.T) {
	w := newWorld(t)
	first := w.must("officer", "PUT", "/secrets/a"+api, `{"value":"one","contentType":"x","tags":{"a":"b"},"attributes":{"exp":5}}`)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"two"}`)
	path := "/secrets/a/" + first.version() + api
	w.pass(time.Minute)
	for _, c := range []struct {
		body, contentType string
		tags              map[string]string
		enabled           bool
		exp               int64
	}{
		{`{}`, "x", map[string]string{"a": "b"}, true, 5},
		{`{"attributes":{"exp":7}}`, "x", map[string]string{"a": "b"}, true, 7},
		{`{"contentType":"y","value":"ignored","id":"ignored"}`, "y", map[string]string{"a": "b"}, true, 7},
		{`{"tags":{"c":"d"}}`, "y", map[string]string{"c": "d"}, true, 7},
		{`{"tags":null,"attributes":null}`, "y", map[string]string{"c": "d"}, true, 7},
		{`{"tags":{},"contentType":""}`, "", map[string]string{}, true, 7},
		{`{"attributes":{"enabled":false}}`, "", map[string]string{}, false, 7},
	} {
		a := w.must("officer", "PATCH", path, c.body)
		if a.Value != nil || a.ID != first.ID || a.Attributes.Updated != w.clock().Unix() || a.Attributes.Created != first.Attributes.Created {
			t.Errorf("%s: %s", c.body, a.text)
		}
		if a.Type != c.contentType || !maps.Equal(a.Tags, c.tags) || a.Attributes.Enabled != c.enabled || *a.Attributes.Expires != c.exp {
			t.Errorf("%s: %s; want %+v", c.body, a.text, c)
		}
	}
	w.refused(w.send("officer", "GET", path, ""), 403, "Forbidden", "SecretDisabled")
	if got := w.must("officer", "GET", "/secrets/a"+api, ""); got.Value != "two" {
		t.Errorf("the latest version: %s", got.text)
	}
	w.must("officer", "PATCH", path, `{"attributes":{"enabled":true}}`)
	if got := w.must("officer", "GET", path, ""); got.Value != "one" {
		t.Errorf("enabled again: %s", got.text)
	}
	if got := w.must("officer", "PATCH", "/secrets/a/"+api, `{"contentType":"z"}`); got.version() == first.version() || got.Type != "z" {
		t.Errorf("update without a version: %s; want the latest", got.text)
	}
}

func TestAListComesInPages(t *testing.T) {
	w := newWorld(t)
	var want []string
	for n := range 31 {
		name := fmt.Sprintf("s-%02d", n)
		w.must("officer", "PUT", "/secrets/"+name+api, `{"value":"v"}`)
		want = append(want, "https://"+host+"/secrets/"+name)
	}
	pages := func(path string) (ids []string, sizes []int) {
		for path != "" {
			a := w.must("officer", "GET", path, "")
			ids, sizes = append(ids, a.items()...), append(sizes, len(a.items()))
			if path = a.NextLink; path != "" {
				var ours bool
				if path, ours = strings.CutPrefix(path, "https://"+host); !ours || !strings.Contains(path, "api-version=7.6") {
					t.Fatalf("nextLink %q", a.NextLink)
				}
			}
		}
		return ids, sizes
	}
	ids, sizes := pages("/secrets" + api)
	if diff := cmp.Diff(want, ids); diff != "" || !slices.Equal(sizes, []int{25, 6}) {
		t.Errorf("pages of %v (-want +got):\n%s", sizes, diff)
	}
	if ids, sizes := pages("/secrets" + api + "&maxresults=11"); !slices.Equal(ids, want) || !slices.Equal(sizes, []int{11, 11, 9}) {
		t.Errorf("by eleven: %v %v", sizes, ids)
	}
	if !strings.Contains(w.must("officer", "GET", "/secrets"+api+"&maxresults=25&$skiptoken=cy0zMA", "").text, `"nextLink":null`) {
		t.Error("the last page has a nextLink")
	}
	for range 25 {
		w.must("officer", "PUT", "/secrets/s-00"+api, `{"value":"v"}`)
	}
	if ids, sizes := pages("/secrets/s-00/versions" + api); !slices.Equal(sizes, []int{25, 1}) || len(slices.Compact(ids)) != 26 {
		t.Errorf("versions: %v %v", sizes, ids)
	}
	for n := range 31 {
		w.must("officer", "DELETE", fmt.Sprintf("/secrets/s-%02d%s", n, api), "")
	}
	if _, sizes := pages("/deletedsecrets" + api); !slices.Equal(sizes, []int{25, 6}) {
		t.Errorf("deleted: %v", sizes)
	}
	for _, query := range []string{"&maxresults=0", "&maxresults=26", "&maxresults=x", "&$skiptoken=%00"} {
		if a := w.send("officer", "GET", "/secrets"+api+query, ""); a.status != 400 {
			t.Errorf("%s: %d %s", query, a.status, a.text)
		}
	}
}

func TestEverythingOfAVaultGoesWithIt(t *testing.T) {
	w := newWorld(t)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"old"}`)
	w.must("officer", "PUT", "/secrets/b"+api, `{"value":"old"}`)
	w.must("officer", "DELETE", "/secrets/b"+api, "")
	w.update(func(tx store.Tx) error { return w.service.Delete(tx, kv1) })
	w.refused(w.send("officer", "GET", "/secrets/a"+api, ""), 404, "VaultNotFound", "")
	check(t, w.service.Sweep(t.Context()))
	var rows []string
	check(t, w.db.View(t.Context(), func(r store.Reader) error {
		for key := range r.Scan("vault/", "") {
			rows = append(rows, key)
		}
		return nil
	}))
	if diff := cmp.Diff([]string{"vault/keys/backup", "vault/vaults/" + kv2.Key()}, rows); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	w.refused(w.send("officer", "GET", "/secrets/a"+api, ""), 404, "VaultNotFound", "")
	w.update(func(tx store.Tx) error { return w.service.Put(tx, kv1, vault.Settings{}) })
	w.refused(w.send("officer", "GET", "/secrets/a"+api, ""), 404, "SecretNotFound", "")
	w.update(func(tx store.Tx) error { return w.service.Delete(tx, "/subscriptions/never/was") })
}

func TestACiphertextOpensOnlyWhereItWasSealed(t *testing.T) {
	w := newWorld(t)
	w.grant("officer", access.KeyVaultSecretsOfficer, kv2.Scope())
	rows := map[string][]byte{}
	value := func(host, name, value string) (key string) {
		t.Helper()
		made := w.sendTo(host, "officer", "PUT", "/secrets/"+name+api, `{"value":"`+value+`"}`)
		check(t, w.db.View(t.Context(), func(r store.Reader) error {
			for k, v := range r.Scan("vault/values/", "") {
				if strings.HasSuffix(k, "/"+name+"/"+made.version()) {
					key, rows[k] = k, v
				}
			}
			return nil
		}))
		return key
	}
	a1, a2, b := value(host, "a", "first"), value(host, "a", "second"), value(host, "b", "other")
	far := value("kv2.vault.innate.test", "a", "far")
	for name, planted := range map[string][]byte{
		"an older version's": rows[a1], "another name's": rows[b], "another vault's": rows[far],
		"a flipped bit": append(bytes.Clone(rows[a2][:len(rows[a2])-1]), rows[a2][len(rows[a2])-1]^1),
		"nothing":       {}, "half of it": rows[a2][:len(rows[a2])/2],
	} {
		w.update(func(tx store.Tx) error { tx.Put(a2, planted); return nil })
		a := w.send("officer", "GET", "/secrets/a"+api, "")
		w.refused(a, 500, "InternalServerError", "")
		for _, value := range []string{"first", "second", "other", "far"} {
			if strings.Contains(a.text, value) {
				t.Errorf("%s: the answer has a value in it: %s", name, a.text)
			}
		}
	}
	w.update(func(tx store.Tx) error { tx.Put(a2, rows[a2]); return nil })
	if got := w.must("officer", "GET", "/secrets/a"+api, ""); got.Value != "second" {
		t.Errorf("put back: %s", got.text)
	}
}

func TestAFlippedBitIsNeverAWrongSecret(t *testing.T) {
	w := newWorld(t)
	first := w.must("officer", "PUT", "/secrets/a"+api, `{"value":"first"}`)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"second"}`)
	rows := map[string][]byte{}
	check(t, w.db.View(t.Context(), func(r store.Reader) error {
		for key, value := range r.Scan("vault/", "") {
			rows[key] = value
		}
		return nil
	}))
	for key, row := range rows {
		for i := range row {
			flipped := bytes.Clone(row)
			flipped[i] ^= 1 << (i % 8)
			w.update(func(tx store.Tx) error { tx.Put(key, flipped); return nil })
			for path, want := range map[string]string{"/secrets/a": "second", "/secrets/a/" + first.version(): "first"} {
				if a := w.send("officer", "GET", path+api, ""); a.status == 200 && a.Value != want {
					t.Errorf("%s, byte %d: %s is %s", key, i, path, a.text)
				}
			}
		}
		w.update(func(tx store.Tx) error { tx.Put(key, row); return nil })
	}
	if got := w.must("officer", "GET", "/secrets/a"+api, ""); got.Value != "second" {
		t.Errorf("put back: %s", got.text)
	}
}

func TestEveryUseIsOnRecordAndNoValueIs(t *testing.T) {
	w := newWorld(t)
	const value = "correct-horse-battery-staple"
	made := w.must("officer", "PUT", "/secrets/a"+api, `{"value":"`+value+`"}`)
	w.must("officer", "GET", "/secrets/a"+api, "")
	w.must("officer", "GET", "/secrets"+api, "")
	w.must("officer", "PATCH", "/secrets/a"+api, `{"attributes":{"enabled":false}}`)
	w.send("officer", "GET", "/secrets/a"+api, "")
	w.send("officer", "GET", "/secrets/none"+api, "")
	w.send("officer", "DELETE", "/secrets/none"+api, "")
	w.must("officer", "DELETE", "/secrets/a"+api, "")
	w.must("officer", "POST", "/deletedsecrets/a/recover"+api, "")

	var got []string
	for _, ev := range w.events() {
		action, ours := strings.CutPrefix(ev.Action, "Microsoft.KeyVault/vaults/secrets/")
		if !ours || !ev.Allowed || ev.Why == "" {
			t.Errorf("event %+v", ev)
		}
		line := action + " " + strings.TrimPrefix(ev.Target, string(kv1))
		if v := ev.Detail["version"]; v != "" {
			if v != made.version() {
				t.Errorf("event of version %q", v)
			}
			line += " version"
		}
		if outcome := ev.Detail["outcome"]; outcome != "" {
			line += " " + outcome
		}
		got = append(got, line)
	}
	slices.Sort(got) // those of changes are still in the outbox
	want := []string{
		"delete /secrets/a", "delete /secrets/none SecretNotFound",
		"getSecret/action /secrets/a version", "getSecret/action /secrets/a version SecretDisabled", "getSecret/action /secrets/none SecretNotFound",
		"readMetadata/action ", "recover/action /secrets/a", "setSecret/action /secrets/a version", "update/action /secrets/a version",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("on record (-want +got):\n%s", diff)
	}
	for _, name := range []string{"audit.log", "store"} {
		content, err := os.ReadFile(w.path(name))
		check(t, err)
		if bytes.Contains(content, []byte(value)) {
			t.Errorf("the value stands in %s", name)
		}
	}
}

func TestWithoutARecordThereIsNoAnswer(t *testing.T) {
	w := newWorld(t)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"hunter2"}`)
	w.join("stranger")
	check(t, w.audit.Close())
	for _, who := range []string{"officer", "stranger"} {
		a := w.send(who, "GET", "/secrets/a"+api, "")
		w.refused(a, http.StatusServiceUnavailable, "ServiceUnavailable", "")
		if strings.Contains(a.text, "hunter2") {
			t.Errorf("%s has the value: %s", who, a.text)
		}
	}
}

func TestVersionsMadeTogetherAreAllThere(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			if a := w.send("officer", "PUT", "/secrets/a"+api, fmt.Sprintf(`{"value":"%d"}`, n)); a.status != 200 {
				t.Errorf("%d: %s", a.status, a.text)
			}
		})
	}
	wg.Wait()
	versions := w.must("officer", "GET", "/secrets/a/versions"+api, "").items()
	if len(versions) != 20 || !slices.IsSorted(versions) || len(slices.Compact(versions)) != 20 {
		t.Fatalf("%d versions: %v", len(versions), versions)
	}
	if got := w.must("officer", "GET", "/secrets/a"+api, ""); got.ID != versions[19] {
		t.Errorf("the latest is %s, want %s", got.ID, versions[19])
	}
}

func TestAServiceWithoutWhatItNeedsIsNotMade(t *testing.T) {
	if _, err := vault.New(vault.Config{}); err == nil || !strings.Contains(err.Error(), "DB") {
		t.Errorf("error %v, want one that names DB", err)
	}
}

func BenchmarkGet(b *testing.B) {
	w := newWorld(b)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"hunter2"}`)
	b.Run("decided, opened and on record", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				w.must("officer", "GET", "/secrets/a"+api, "")
			}
		})
	})
}
