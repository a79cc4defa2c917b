package hosts_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/feed"
	"innate/feed/client"
	"innate/store"
)

func TestEveryHostIsToldOfARevokedSigningKey(t *testing.T) {
	w := newWorld(t)
	_, err := w.db.Update(t.Context(), func(tx store.Tx) error {
		return errors.Join(
			feed.Revoke(tx, client.RevokedKey, "kId", w.now(), time.Hour),
			feed.Revoke(tx, client.RevokedToken, "uti", w.now(), time.Hour), // not a host's business
		)
	})
	w.must(err)
	for _, machine := range []innate.ResourceID{node1, node2} {
		r, _ := w.joined(machine).feed()
		if d := cmp.Diff([]string{"revoked/key/kId", key(machine)}, keys(r.rows)); d != "" {
			t.Errorf("%s was told (-want +got):\n%s", machine.Name(), d)
		}
	}
}
