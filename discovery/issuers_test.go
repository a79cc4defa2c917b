package discovery_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"

	"innate/discovery"
	"innate/jwt"
)

// A city of issuers, https://<n>.example.com, each with one key of its own.
type city struct {
	mu     sync.Mutex
	issuer map[string]*issuer // by host
}

func (c *city) RoundTrip(r *http.Request) (*http.Response, error) {
	return c.at(r.URL.Host).RoundTrip(r)
}

func (c *city) at(host string) *issuer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.issuer[host] == nil {
		c.issuer[host] = newIssuer(ec("key of " + host))
		c.issuer[host].name = "https://" + host
	}
	return c.issuer[host]
}

func (c *city) believe(most int) *discovery.Issuers {
	return discovery.NewIssuers(discovery.IssuersConfig{
		HTTP: &http.Client{Transport: c}, Most: most, Now: newIssuer().clock, Log: slog.New(slog.DiscardHandler),
	})
}

func TestEachIssuerVouchesWithItsOwnKeysAlone(t *testing.T) {
	issuers := (&city{issuer: map[string]*issuer{}}).believe(0)
	for _, c := range []struct{ issuer, kid, want string }{
		{"https://1.example.com", "key of 1.example.com", ""},
		{"https://2.example.com", "key of 2.example.com", ""},
		{"https://2.example.com", "key of 1.example.com", "final"},
		{"https://1.example.com/", "key of 1.example.com", "temporary"}, // another issuer, whose document is not there
		{"http://1.example.com", "key of 1.example.com", "final"},
	} {
		_, err := issuers.Get(t.Context(), c.issuer, c.kid, jwt.ES256)
		how, why := "", ""
		if err != nil {
			how, why = kind(t, err)
		}
		if how != c.want {
			t.Errorf("%s of %s: %q (%s), want %q", c.kid, c.issuer, how, why, c.want)
		}
	}
}

func TestTheIssuerThatWasNotAskedForTheLongestIsForgotten(t *testing.T) {
	town := &city{issuer: map[string]*issuer{}}
	issuers := town.believe(3)
	for _, step := range []struct {
		n       int
		fetches int // of that issuer's keys, in all
	}{
		{1, 1}, {2, 1}, {3, 1}, {1, 1},
		{4, 1},         // 2 goes
		{3, 1}, {1, 1}, // and these are still there
		{2, 2}, // 4 goes
		{4, 2},
	} {
		host := fmt.Sprintf("%d.example.com", step.n)
		if _, err := issuers.Get(t.Context(), "https://"+host, "key of "+host, jwt.ES256); err != nil {
			t.Fatal(err)
		}
		if n := town.at(host).documents(); n != step.fetches {
			t.Errorf("%+v: %d fetches", step, n)
		}
	}
}

func TestManyMayAskForManyIssuersAtOnce(t *testing.T) {
	issuers := (&city{issuer: map[string]*issuer{}}).believe(4)
	var all sync.WaitGroup
	for n := range 64 {
		host := fmt.Sprintf("%d.example.com", n%8)
		all.Go(func() {
			if _, err := issuers.Get(t.Context(), "https://"+host, "key of "+host, jwt.ES256); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func BenchmarkGet(b *testing.B) {
	issuers := (&city{issuer: map[string]*issuer{}}).believe(0)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := issuers.Get(b.Context(), "https://1.example.com", "key of 1.example.com", jwt.ES256); err != nil {
			b.Fatal(err)
		}
	}
}
