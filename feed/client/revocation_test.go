package client_test

import (
	"encoding/json"
	"testing"
	"time"

	"innate/feed/client"
)

var issued = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// token is what of a token decides in these tests.
var token = client.Claim{
	Object: "5B0E9B0A-0000-4000-8000-000000000001", Hosting: "/subscriptions/s/resourceGroups/RG/providers/x/y/VM-1",
	Host: "/subscriptions/s/resourceGroups/RG/providers/x/y/M-1", Token: "uTi-1", Key: "kId-1", IssuedAt: issued,
}

func event(t *testing.T, row client.Revocation) client.Event {
	t.Helper()
	value, err := json.Marshal(row)
	if err != nil {
		t.Fatal(err)
	}
	return client.Event{Revision: 1, Key: client.RevocationKey(row.Kind, row.ID), Value: value}
}

func TestATokenIsRevokedByAnyOfWhatItNames(t *testing.T) {
	all := time.Time{}
	for _, c := range []struct {
		name   string
		row    client.Revocation
		wanted bool
	}{
		{"nothing of it", client.Revocation{Kind: client.RevokedIdentity, ID: "other", Before: all}, false},
		{"its identity", client.Revocation{Kind: client.RevokedIdentity, ID: string(token.Object), Before: all}, true},
		{"its resource, in other letters", client.Revocation{Kind: client.RevokedResource, ID: "/subscriptions/s/resourcegroups/rg/providers/X/Y/vm-1", Before: all}, true},
		{"a resource whose name begins the same", client.Revocation{Kind: client.RevokedResource, ID: string(token.Hosting) + "0", Before: all}, false},
		{"its machine", client.Revocation{Kind: client.RevokedHost, ID: string(token.Host), Before: all}, true},
		{"a machine of its resource's name", client.Revocation{Kind: client.RevokedHost, ID: string(token.Hosting), Before: all}, false},
		{"itself", client.Revocation{Kind: client.RevokedToken, ID: "uTi-1", Before: all}, true},
		{"another token, the same but for case", client.Revocation{Kind: client.RevokedToken, ID: "uti-1", Before: all}, false},
		{"its key", client.Revocation{Kind: client.RevokedKey, ID: "kId-1", Before: all}, true},
		{"those issued a second before", client.Revocation{Kind: client.RevokedIdentity, ID: string(token.Object), Before: issued.Add(-time.Second)}, false},
		{"those issued in its second", client.Revocation{Kind: client.RevokedIdentity, ID: string(token.Object), Before: issued.Add(time.Millisecond)}, true},
		{"those issued later too", client.Revocation{Kind: client.RevokedIdentity, ID: string(token.Object), Before: issued.Add(time.Hour)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := client.NewRevocations(nil)
			set.Apply(event(t, c.row))
			if why, revoked := set.Revoked(token); revoked != c.wanted || revoked != (why != "") {
				t.Errorf("revoked %v (%q), want %v", revoked, why, c.wanted)
			}
			set.Apply(client.Event{Revision: 2, Key: client.RevocationKey(c.row.Kind, c.row.ID)})
			if why, revoked := set.Revoked(token); revoked {
				t.Errorf("the row is gone: still revoked (%s)", why)
			}
		})
	}
}

func TestARowThatCannotBeReadRevokesAll(t *testing.T) {
	set := client.NewRevocations(nil)
	set.Apply(client.Event{Key: client.RevocationKey(client.RevokedToken, token.Token), Value: json.RawMessage(`{"before":"yesterday"}`)})
	if _, revoked := set.Revoked(token); !revoked {
		t.Error("not revoked")
	}
}

func TestASnapshotReplacesTheSetOnlyWhenItIsWhole(t *testing.T) {
	set := client.NewRevocations(nil)
	byKey := event(t, client.Revocation{Kind: client.RevokedKey, ID: token.Key})
	byToken := event(t, client.Revocation{Kind: client.RevokedToken, ID: token.Token})
	why := func() string { why, _ := set.Revoked(token); return why }

	set.Apply(byKey)
	before := why()
	set.Apply(client.Event{Reset: true})
	set.Apply(byToken)
	if got := why(); got != before || got == "" {
		t.Errorf("in the middle of a snapshot: %q, want what it was: %q", got, before)
	}
	set.Apply(client.Event{Revision: 9, Synced: true})
	if got := why(); got == before || got == "" {
		t.Errorf("after the snapshot: %q, want the token itself to be revoked", got)
	}
}

func BenchmarkRevoked(b *testing.B) {
	set := client.NewRevocations(nil)
	for i := range 1000 {
		set.Apply(client.Event{Key: client.RevocationKey(client.RevokedToken, time.Duration(i).String()), Value: json.RawMessage(`{}`)})
	}
	for b.Loop() {
		if _, revoked := set.Revoked(token); revoked {
			b.Fatal("revoked")
		}
	}
}
