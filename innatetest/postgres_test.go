package innatetest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"innate"
	"innate/feed/client"
	"innate/innatetest"
)

// A heardFeed is a gateway's feed as it comes in.
type heardFeed struct {
	t    *testing.T
	body io.ReadCloser
	in   *bufio.Reader
	rows map[string]json.RawMessage
}

// hear opens the feed of a server with a gateway's token.
func hear(t *testing.T, p *innatetest.Platform, at *innatetest.Postgres, token string) (*heardFeed, *http.Response) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(stop)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Admin.Info.Management+string(at.ID())+"/gateway/feed?api-version=2025-08-01", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := p.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		return nil, resp
	}
	f := &heardFeed{t, resp.Body, bufio.NewReader(resp.Body), map[string]json.RawMessage{}}
	f.until(func(ev client.Event) bool { return ev.Synced })
	return f, resp
}

// next is the next event; ok is false when the feed has ended.
func (f *heardFeed) next() (ev client.Event, ok bool) {
	f.t.Helper()
	line, err := f.in.ReadBytes('\n')
	if err != nil {
		return ev, false
	}
	if err := json.Unmarshal(line, &ev); err != nil {
		f.t.Fatalf("%s: %v", line, err)
	}
	switch {
	case ev.Key == "":
	case ev.Value == nil:
		delete(f.rows, ev.Key)
	default:
		f.rows[ev.Key] = ev.Value
	}
	return ev, true
}

func (f *heardFeed) until(done func(client.Event) bool) {
	f.t.Helper()
	for {
		ev, ok := f.next()
		if !ok {
			f.t.Fatal("the feed ended")
		}
		if done(ev) {
			return
		}
	}
}

// ends waits for the feed's end.
func (f *heardFeed) ends() {
	f.t.Helper()
	for {
		if _, ok := f.next(); !ok {
			return
		}
	}
}

// roles hears until the principal may log in as exactly these.
func (f *heardFeed) roles(id innate.ObjectID, want ...string) {
	f.t.Helper()
	now := func() []string {
		var l client.DatabaseLogin
		if row := f.rows[client.DatabaseLoginKey(id)]; row != nil {
			if err := json.Unmarshal(row, &l); err != nil || l.Object != id {
				f.t.Fatalf("%s: %v", row, err)
			}
		}
		return l.Roles
	}
	if slices.Equal(now(), want) {
		return
	}
	f.until(func(client.Event) bool { return slices.Equal(now(), want) })
}

func gatewayOf(p *innatetest.Platform, at *innatetest.Postgres) *innatetest.App {
	app := p.App("pg-gateway")
	p.Grant(app, "PostgreSQL Gateway", at)
	return app
}

func TestAGatewayHearsWhoMayLogInThroughEveryGroup(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	db := p.Postgres("orders", map[string]any{"acceptAzureAudiences": true})
	api, shared := p.App("api"), p.Identity("shared")
	me, other := api.Principal(), shared.Principal()
	p.MayLogIn(api, db, "app-orders")
	f, _ := hear(t, p, db, gatewayOf(p, db).Token(p.Admin.Info.Management))

	var server client.DatabaseServer
	if err := json.Unmarshal(f.rows[client.DatabaseServerKey], &server); err != nil {
		t.Fatal(err)
	}
	if server.Resource != db.ID() || server.Certificate || !slices.Equal(server.Audiences,
		[]string{db.Audience(), "https://ossrdbms-aad.database.windows.net", "https://database.windows.net"}) {
		t.Errorf("the server: %+v", server)
	}
	f.roles(me, "app-orders")

	inner := p.Group("inner", api, shared)
	outer := p.Group("outer", inner)
	p.MayLogIn(outer, db, `we"ird, =+<>#;\ ro,le=x`, "reports", "reports")
	f.roles(me, "app-orders", "reports", `we"ird, =+<>#;\ ro,le=x`)
	f.roles(other, "reports", `we"ird, =+<>#;\ ro,le=x`)
	if _, told := f.rows[client.DatabaseLoginKey(outer.Principal())]; told {
		t.Error("a group may log in")
	}
	p.Join(inner, outer) // a ring
	p.Leave(outer, inner)
	f.roles(me, "app-orders")
	f.roles(other)
	p.Join(outer, inner)
	f.roles(other, "reports", `we"ird, =+<>#;\ ro,le=x`)

	able := func(id innate.ObjectID, on bool) {
		t.Helper()
		if err := p.Admin.Graph(t.Context(), http.MethodPatch, "/v1.0/servicePrincipals/"+string(id), map[string]any{"accountEnabled": on}, nil); err != nil {
			t.Fatal(err)
		}
	}
	able(me, false)
	f.roles(me)
	if f.rows[client.RevokedPrefix+client.RevocationKey(client.RevokedIdentity, string(me))] == nil {
		f.until(func(ev client.Event) bool {
			return ev.Key == client.RevokedPrefix+client.RevocationKey(client.RevokedIdentity, string(me)) && ev.Value != nil
		})
	}
	able(me, true)
	f.roles(me, "app-orders", "reports", `we"ird, =+<>#;\ ro,le=x`)

	if err := p.Admin.Graph(t.Context(), http.MethodDelete, "/v1.0/groups/"+string(inner), nil, nil); err != nil {
		t.Fatal(err)
	}
	f.roles(me, "app-orders")
	f.roles(other)
	p.MayNotLogIn(api, db)
	f.roles(me)
	p.MayNotLogIn(api, db) // is as it is
	p.MayLogIn(api, db, "app-orders")
	f.roles(me, "app-orders")
	p.Delete(api)
	f.roles(me)
	if left := slices.Sorted(maps.Keys(f.rows)); slices.ContainsFunc(left, func(k string) bool { return strings.HasPrefix(k, "login/") }) {
		t.Errorf("rows left: %q", left)
	}
}

func TestAGatewaysFeedEndsWithItsRightItsTokenOrItsServer(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	p := innatetest.Start(t, innatetest.WithClock(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }))
	db, other := p.Postgres("orders"), p.Postgres("payroll")
	gateway := gatewayOf(p, db)
	token := gateway.Token(p.Admin.Info.Management)
	if _, no := hear(t, p, other, token); no.StatusCode != http.StatusForbidden {
		t.Errorf("the feed of another server: %s", no.Status)
	} else if text, _ := io.ReadAll(no.Body); !strings.Contains(string(text), "PostgreSQL Gateway") {
		t.Errorf("the refusal does not name the role: %s", text)
	}

	f, _ := hear(t, p, db, token)
	lost := time.Now()
	ungrant(p, gateway, db)
	f.ends()
	t.Logf("the feed ended %v after the right was lost", time.Since(lost))
	if _, no := hear(t, p, db, token); no.StatusCode != http.StatusForbidden {
		t.Errorf("without the role: %s", no.Status)
	}

	p.Grant(gateway, "PostgreSQL Gateway", db)
	f, _ = hear(t, p, db, token)
	ahead.Store(int64(2 * time.Hour)) // a token lives for one
	f.ends()

	f, _ = hear(t, p, db, gateway.Token(p.Admin.Info.Management))
	p.Delete(db)
	f.ends()
}
