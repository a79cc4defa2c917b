package vault_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate/access"
	"innate/store"
	"innate/vault"
)

const otherHost = "kv2.vault.innate.test:8443"

// backup is a backup of a secret of kv1's.
func (w *world) backup(name string) string {
	w.t.Helper()
	blob, _ := w.must("officer", "POST", "/secrets/"+name+"/backup"+api, "").Value.(string)
	return blob
}

func restoring(blob string) string { return `{"value":"` + blob + `"}` }

func TestABackupBringsASecretBackWithAllItsVersions(t *testing.T) {
	w := newWorld(t)
	w.grant("officer", access.KeyVaultSecretsOfficer, kv2.Scope())
	first := w.must("officer", "PUT", "/secrets/Db"+api, `{"value":"one","tags":{"a":"b"},"contentType":"x","attributes":{"exp":5}}`)
	second := w.must("officer", "PUT", "/secrets/db"+api, `{"value":"two"}`)
	w.must("officer", "PATCH", "/secrets/db/"+first.version()+api, `{"attributes":{"enabled":false}}`)
	before := w.must("officer", "GET", "/secrets/db/versions"+api, "")
	blob := w.backup("db")
	if strings.ContainsAny(blob, "+/=") || bytes.Contains([]byte(blob), []byte("one")) {
		t.Errorf("a backup is sealed base64url: %s", blob)
	}

	w.refused(w.send("officer", "POST", "/secrets/restore"+api, restoring(blob)), 409, "Conflict", "")
	w.must("officer", "DELETE", "/secrets/db"+api, "")
	w.refused(w.send("officer", "POST", "/secrets/restore"+api, restoring(blob)), 409, "Conflict", "ObjectIsDeletedButRecoverable")
	w.must("officer", "DELETE", "/deletedsecrets/db"+api, "")

	back := w.must("officer", "POST", "/Secrets/Restore/"+api, restoring(blob+"=")) // Python pads
	if back.ID != second.ID || back.Value != nil {
		t.Errorf("restored: %s; want %s without its value", back.text, second.ID)
	}
	if diff := cmp.Diff(before.text, w.must("officer", "GET", "/secrets/db/versions"+api, "").text); diff != "" {
		t.Errorf("versions (-before +after):\n%s", diff)
	}
	w.refused(w.send("officer", "GET", "/secrets/db/"+first.version()+api, ""), 403, "Forbidden", "SecretDisabled")
	if got := w.must("officer", "GET", "/secrets/db"+api, ""); got.Value != "two" {
		t.Errorf("value: %s", got.text)
	}
	third := w.must("officer", "PUT", "/secrets/db"+api, `{"value":"three"}`)
	if third.version() <= second.version() {
		t.Error("a version made after the restore comes before those restored")
	}

	// Into another vault, after the first is gone for good and another has its name.
	w.update(func(tx store.Tx) error { return w.service.Delete(tx, kv1) })
	w.set(vault.Settings{})
	for _, host := range []string{host, otherHost} {
		if a := w.sendTo(host, "officer", "POST", "/secrets/restore"+api, restoring(blob)); a.status != 200 {
			t.Errorf("restore in %s: %d %s", host, a.status, a.text)
		}
		if got := w.sendTo(host, "officer", "GET", "/secrets/db"+api, ""); got.Value != "two" {
			t.Errorf("from %s: %s", host, got.text)
		}
	}
}

func TestABackupThatWasChangedOrIsOfAnotherPlatformIsRefused(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
	blob := w.backup("a")
	w.must("officer", "DELETE", "/secrets/a"+api, "")
	w.must("officer", "DELETE", "/deletedsecrets/a"+api, "")
	w.refused(other.send("officer", "POST", "/secrets/restore"+api, restoring(blob)), 400, "BadParameter", "")
	sealed, err := base64.RawURLEncoding.DecodeString(blob)
	check(t, err)
	for i := range sealed {
		flipped := bytes.Clone(sealed)
		flipped[i] ^= 1
		w.refused(w.send("officer", "POST", "/secrets/restore"+api, restoring(base64.RawURLEncoding.EncodeToString(flipped))), 400, "BadParameter", "")
	}
	for _, text := range []string{"", "?", blob[:len(blob)/2], strings.Repeat("A", 2000)} {
		w.refused(w.send("officer", "POST", "/secrets/restore"+api, restoring(text)), 400, "BadParameter", "")
	}
	w.must("officer", "POST", "/secrets/restore"+api, restoring(blob))
}

func TestABackupOfTheLongestSecretIsRestored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long := `{"value":"` + strings.Repeat("x", 25_600) + `"}`
	for range 500 {
		w.must("officer", "PUT", "/secrets/a"+api, long)
	}
	blob := w.backup("a")
	w.must("officer", "DELETE", "/secrets/a"+api, "")
	w.must("officer", "DELETE", "/deletedsecrets/a"+api, "")
	w.must("officer", "POST", "/secrets/restore"+api, restoring(blob))
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"one more"}`)
	a := w.send("officer", "POST", "/secrets/a/backup"+api, "")
	w.refused(a, 400, "BadParameter", "")
	if !strings.Contains(a.text, "500") {
		t.Errorf("the refusal does not say how many: %s", a.text)
	}
}

func TestOnlyAnOfficerRestoresAndNobodyElsesBodyIsRead(t *testing.T) {
	w := newWorld(t)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
	w.join("user")
	w.grant("user", access.KeyVaultSecretsUser, kv1.Scope())
	w.refused(w.send("user", "POST", "/secrets/a/backup"+api, ""), 403, "Forbidden", "ForbiddenByRbac")
	w.refused(w.send("user", "POST", "/secrets/none/backup"+api, ""), 403, "Forbidden", "ForbiddenByRbac")
	w.refused(w.send("officer", "POST", "/secrets/none/backup"+api, ""), 404, "SecretNotFound", "")
	w.refused(w.send("user", "POST", "/secrets/restore"+api, "no JSON"), 403, "Forbidden", "ForbiddenByRbac")
	if a := w.send("officer", "POST", "/secrets/restore"+api, restoring(strings.Repeat("A", vault.MaxBody))); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body too large: %d %.200s", a.status, a.text)
	}
	// A secret may be called restore; its values come by PUT.
	if got := w.must("officer", "PUT", "/secrets/restore"+api, `{"value":"v"}`); !strings.Contains(got.ID, "/secrets/restore/") {
		t.Errorf("a secret called restore: %s", got.text)
	}
	for _, action := range []string{"backup", "restore"} {
		if n := w.recorded(fmt.Sprintf("Microsoft.KeyVault/vaults/secrets/%s/action", action)); n == 0 {
			t.Errorf("no %s is on record", action)
		}
	}
}

// recorded counts the events of an action.
func (w *world) recorded(action string) (n int) {
	w.t.Helper()
	for _, ev := range w.events() {
		if ev.Action == action {
			n++
		}
	}
	return n
}

func FuzzRestore(f *testing.F) {
	w := newWorld(f)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
	blob := w.backup("a")
	f.Add(restoring(blob))
	f.Add(restoring(blob[:8]))
	f.Add(`{"value":"AA"}`)
	f.Add(`{"value":null}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, content string) {
		w.t = t
		// The name is taken: what is whole is a conflict, and nothing else opens.
		if a := w.send("officer", "POST", "/secrets/restore"+api, content); a.status != http.StatusConflict && a.status != http.StatusBadRequest {
			t.Errorf("%q: %d %s", content, a.status, a.text)
		}
	})
}
