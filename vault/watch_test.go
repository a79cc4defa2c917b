package vault_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate/access"
	"innate/store"
)

// follow lets the vaults hear what changes; stop is their server's stop.
func (w *world) follow() (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.service.Follow(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// A heard is an answer to a watch.
type heard struct {
	status   int
	Revision uint64
	Changes  []struct {
		Revision              uint64
		Change, Name, Version string
	}
	text string
}

// said is what was heard: a line a change.
func (h heard) said() (lines []string) {
	for _, c := range h.Changes {
		lines = append(lines, c.Change+" "+c.Name+" "+c.Version)
	}
	return lines
}

// ask asks for changes; what is empty, name or since, or a query of its own.
func (w *world) ask(who, what string) heard {
	w.t.Helper()
	path, query, _ := strings.Cut(what, "?")
	a := w.send(who, "GET", "/changes"+path+api+"&"+query, "")
	h := heard{status: a.status, text: a.text}
	if a.status == 200 {
		check(w.t, json.Unmarshal([]byte(a.text), &h))
	}
	return h
}

// begin is the revision that a watch begins with.
func (w *world) begin(who string) uint64 {
	w.t.Helper()
	h := w.ask(who, "")
	if h.status != 200 || h.Revision == 0 || len(h.Changes) != 0 {
		w.t.Fatalf("a watch begins with %d %s", h.status, h.text)
	}
	return h.Revision
}

// later asks in the background.
func (w *world) later(who, what string) <-chan heard {
	answer := make(chan heard, 1)
	go func() { answer <- w.ask(who, what) }()
	return answer
}

func TestAWatchTellsWhatHappenedToEverySecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.follow()
		from := w.begin("officer")
		first := w.must("officer", "PUT", "/secrets/Db-Password"+api, `{"value":"hunter2"}`).version()
		w.must("officer", "PATCH", "/secrets/db-password/"+first+api, `{"tags":{"a":"b"}}`)
		second := w.must("officer", "PUT", "/secrets/db-password"+api, `{"value":"hunter3"}`).version()
		w.must("officer", "DELETE", "/secrets/db-password"+api, "")
		w.must("officer", "POST", "/deletedsecrets/db-password/recover"+api, "")
		other := w.must("officer", "PUT", "/secrets/other"+api, `{"value":"hunter4"}`).version()
		w.must("officer", "DELETE", "/secrets/other"+api, "")
		w.must("officer", "DELETE", "/deletedsecrets/other"+api, "")
		synctest.Wait()

		h := w.ask("officer", fmt.Sprintf("?since=%d", from))
		want := []string{
			"set Db-Password " + first, "updated Db-Password " + first, "set Db-Password " + second,
			"deleted Db-Password " + second, "recovered Db-Password " + second,
			"set other " + other, "deleted other " + other, "purged other ",
		}
		if diff := cmp.Diff(want, h.said()); diff != "" {
			t.Errorf("heard (-want +got):\n%s", diff)
		}
		if strings.Contains(h.text, "hunter") {
			t.Errorf("a value is told: %s", h.text)
		}
		if one := w.ask("officer", fmt.Sprintf("/DB-password?since=%d", from)); !cmp.Equal(one.said(), want[:5]) {
			t.Errorf("of one secret, in another case: heard %q", one.said())
		}
		if none := w.ask("officer", fmt.Sprintf("?since=%d&wait=0", h.Revision)); len(none.Changes) != 0 || none.Revision < h.Revision {
			t.Errorf("from the answer's revision: %s", none.text)
		}
	})
}

func TestAWaitEndsWithTheChangeOrWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.grant("officer", access.KeyVaultSecretsOfficer, kv2.Scope())
		w.follow()
		from := w.begin("officer")
		began := time.Now()
		of := map[string]<-chan heard{}
		for _, what := range []string{"?", "/a?", "/b?wait=5&"} {
			of[what] = w.later("officer", what+fmt.Sprintf("since=%d", from))
		}
		synctest.Wait()
		w.sendTo("kv2.vault.innate.test:8443", "officer", "PUT", "/secrets/a"+api, `{"value":"of another vault"}`)
		synctest.Wait()
		w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
		for _, what := range []string{"?", "/a?"} {
			if h := <-of[what]; len(h.Changes) != 1 || time.Since(began) != 0 {
				t.Errorf("/changes%s: heard %q after %s", what, h.said(), time.Since(began))
			}
		}
		if h := <-of["/b?wait=5&"]; len(h.Changes) != 0 || h.Revision <= from || time.Since(began) != 5*time.Second {
			t.Errorf("where nothing happened: %s after %s", h.text, time.Since(began))
		}
	})
}

func TestThousandsMayWaitButNotOneForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.follow()
		from := w.begin("officer")
		const each, crowd = 500, 4
		var all []<-chan heard
		for n := range crowd {
			who := fmt.Sprint("reader-", n)
			w.join(who)
			w.grant(who, access.KeyVaultReader, kv1.Scope())
			for range each {
				all = append(all, w.later(who, fmt.Sprintf("/a?since=%d&wait=60", from)))
			}
		}
		synctest.Wait()
		if h := w.ask("reader-0", fmt.Sprintf("?since=%d", from)); h.status != 429 || !strings.Contains(h.text, "wait=0") {
			t.Errorf("one more than may wait: %d %s", h.status, h.text)
		}
		if h := w.ask("reader-0", fmt.Sprintf("?since=%d&wait=0", from)); h.status != 200 {
			t.Errorf("without a wait: %d %s", h.status, h.text)
		}
		began := time.Now()
		version := w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`).version()
		for _, one := range all {
			if h := <-one; len(h.Changes) != 1 || h.Changes[0].Version != version {
				t.Fatalf("one of the crowd: %d %s", h.status, h.text)
			}
		}
		if late := time.Since(began); late != 0 {
			t.Errorf("the crowd waited on for %s", late)
		}
		if h := w.ask("reader-0", fmt.Sprintf("?since=%d", from)); h.status != 200 {
			t.Errorf("when all have left: %d %s", h.status, h.text)
		}
	})
}

func TestOnlyWhoMayReadMetadataHearsWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.follow()
		from := w.begin("officer")
		w.join("nobody")
		w.join("of-one")
		w.grant("of-one", access.KeyVaultSecretsUser, kv1.Scope()+"/secrets/a")
		w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
		w.must("officer", "PUT", "/secrets/b"+api, `{"value":"v"}`)
		synctest.Wait()
		since := fmt.Sprintf("?since=%d", from)
		for _, c := range []struct {
			who, what string
			want      int
		}{
			{"", "", 401},
			{"nobody", "", 403}, // not even where the vault is now
			{"nobody", since, 403},
			{"nobody", "/a" + since, 403},
			{"of-one", since, 403},
			{"of-one", "/a" + since, 200},
			{"of-one", "/b" + since, 403},
			{"nobody", "/absent" + since, 403},
		} {
			began := time.Now()
			if h := w.ask(c.who, c.what); h.status != c.want || time.Since(began) != 0 {
				t.Errorf("%s at /changes%s: %d %s after %s, want %d at once", c.who, c.what, h.status, h.text, time.Since(began), c.want)
			}
		}
		if h := w.ask("of-one", "/a"+since); len(h.Changes) != 1 {
			t.Errorf("of its own secret: %s", h.text)
		}
	})
}

func TestWhoLosesTheRoleDuringTheWaitHearsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.join("reader")
		w.grant("reader", access.KeyVaultReader, kv1.Scope())
		w.follow()
		waiting := w.later("reader", fmt.Sprintf("?since=%d", w.begin("reader")))
		synctest.Wait()
		w.update(func(tx store.Tx) error { return access.DeleteOf(tx, w.people["reader"].Object) })
		w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
		if h := <-waiting; h.status != 403 {
			t.Errorf("answered %d %s", h.status, h.text)
		}
		last := w.events()[len(w.events())-1]
		for _, ev := range w.events() {
			if ev.Name == "reader" {
				last = ev
			}
		}
		if last.Name != "reader" || last.Allowed {
			t.Errorf("on record last: %+v", last)
		}
	})
}

func TestAWatchIsRefusedWhereItCouldMissSomething(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.begin("officer")
		waiting := w.later("officer", fmt.Sprintf("?since=%d", first)) // before anything is followed
		synctest.Wait()
		w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
		w.follow() // after a restart: the store still has what happened
		if h := <-waiting; len(h.Changes) != 1 {
			t.Errorf("from before the start: %d %s", h.status, h.text)
		}
		synctest.Wait()
		began := time.Now()
		if h := w.ask("officer", fmt.Sprintf("?since=%d", first+1000)); h.status != 410 || !strings.Contains(h.text, "without since") || time.Since(began) != 0 {
			t.Errorf("ahead of the store, which was restored: %d %s after %s", h.status, h.text, time.Since(began))
		}
		for range 3 { // more than is remembered, by the thousand
			w.update(func(tx store.Tx) error {
				for n := range 10_000 {
					tx.Put(fmt.Sprintf("vault/secrets/somebody-elses/n%d", n), []byte(`{"name":"n","latest":"1"}`))
				}
				return nil
			})
		}
		synctest.Wait()
		if h := w.ask("officer", fmt.Sprintf("?since=%d", first)); h.status != 410 {
			t.Errorf("what is remembered no more: %d %s", h.status, h.text)
		}
	})
}

func TestWaitsEndWhenTheServerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.follow()
		from := w.begin("officer")
		waiting := w.later("officer", fmt.Sprintf("?since=%d", from))
		synctest.Wait()
		began := time.Now()
		stop()
		if h := <-waiting; h.status != 200 || len(h.Changes) != 0 || time.Since(began) != 0 {
			t.Errorf("answered %d %s after %s", h.status, h.text, time.Since(began))
		}
	})
}

func TestWhoHangsUpWaitsNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.follow()
		ctx, hangUp := context.WithCancel(t.Context())
		r := httptest.NewRequestWithContext(ctx, "GET", fmt.Sprintf("https://%s/changes%s&since=%d", host, api, w.begin("officer")), nil)
		r.Header.Set("Authorization", "Bearer officer")
		rec, ended := httptest.NewRecorder(), make(chan bool)
		go func() {
			w.front.ServeHTTP(rec, r)
			close(ended)
		}()
		synctest.Wait()
		began := time.Now()
		hangUp()
		<-ended
		if rec.Code != 408 || time.Since(began) != 0 { // a 5xx would be an error in the server's log
			t.Errorf("answered %d after %s", rec.Code, time.Since(began))
		}
	})
}

func TestWatchersMissNothingWhileOthersWrite(t *testing.T) {
	w := newWorld(t)
	w.follow()
	from := w.begin("officer")
	const writers, each, watchers = 4, 60, 8
	var g sync.WaitGroup
	for n := range watchers {
		g.Go(func() {
			last := map[string]string{}
			for since, left := from, writers*each; left > 0; {
				h := w.ask("officer", fmt.Sprintf("?since=%d&wait=20", since))
				if h.status != 200 || len(h.Changes) == 0 || h.Revision <= since {
					t.Errorf("watcher %d, %d left: %d %s", n, left, h.status, h.text)
					return
				}
				for _, c := range h.Changes {
					if c.Revision <= since || c.Revision > h.Revision || c.Version <= last[c.Name] {
						t.Errorf("watcher %d: %+v after %d and version %s", n, c, since, last[c.Name])
					}
					last[c.Name] = c.Version
				}
				left -= len(h.Changes)
				since = h.Revision
			}
		})
	}
	for n := range writers {
		g.Go(func() {
			for range each {
				w.must("officer", "PUT", fmt.Sprintf("/secrets/s%d", n)+api, `{"value":"v"}`)
			}
		})
	}
	g.Wait()
}

func TestWhatIsNoWatchIsRefused(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ what, target string }{
		{"?since=-1", "since"}, {"?since=0", "since"}, {"?since=x", "since"}, {"?since=99999999999999999999", "since"},
		{"?since=9223372036854775808", "since"}, // JSON's readers have no such number
		{"?wait=61", "wait"}, {"?wait=-1", "wait"}, {"?wait=1.5", "wait"}, {"?wait=30s", "wait"}, {"?wait=99999999999", "wait"},
	} {
		if h := w.ask("officer", c.what); h.status != 400 || !strings.Contains(h.text, c.target+" is no") {
			t.Errorf("%s: %d %s", c.what, h.status, h.text)
		}
	}
	w.refused(w.send("officer", "POST", "/changes"+api, ""), 404, "NotFound", "")
	w.refused(w.send("officer", "GET", "/changes/a_b"+api, ""), 400, "BadParameter", "")
}

func FuzzWatchQuery(f *testing.F) {
	w := newWorld(f)
	for _, query := range []string{"since=1&wait=0", "since=18446744073709551615&wait=0", "since=&wait=", "since=1&since=2&wait=0", "wait=%30", "since=+1&wait=0;"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		w.t = t
		q, err := url.ParseQuery(query)
		if wait, _ := strconv.Atoi(q.Get("wait")); err != nil || wait != 0 || q.Get("wait") == "" && q.Get("since") != "" || q.Has("api-version") {
			return // it would wait, or is another parser's
		}
		if h := w.ask("officer", "?"+q.Encode()); h.status != 200 && h.status != 400 && h.status != 410 {
			t.Errorf("%q: %d %s", query, h.status, h.text)
		}
	})
}
