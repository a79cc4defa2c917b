package imds_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	"innate/agent/imds"
)

// leaping is a clock by which nobody asks too often.
func leaping() func() time.Time {
	var seconds atomic.Int64
	return func() time.Time { return now.Add(time.Duration(seconds.Add(1)) * time.Second) }
}

// What a caller puts into a document is its nonce, and never more.
func FuzzNonce(f *testing.F) {
	for _, nonce := range []string{"1234567890", "", "20201130-211924", `1","vmId":"x`, strings.Repeat("n", 33), "é", "a\x00b", " 1", "1\n"} {
		f.Add(nonce)
	}
	_, key := voucher(f)
	s, _ := newServer(f, imds.Config{Now: leaping(), Voucher: func(context.Context) (*tls.Certificate, error) { return key, nil }})
	f.Fuzz(func(t *testing.T, nonce string) {
		r := httptest.NewRequest("GET", "/metadata/attested/document?api-version=2020-09-01&nonce="+url.QueryEscape(nonce), nil)
		r.Host = "169.254.169.254"
		r.Header.Set("Metadata", "true")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 200 {
			if w.Code != 400 || !json.Valid(w.Body.Bytes()) {
				t.Errorf("%d %s for %q", w.Code, w.Body, nonce)
			}
			return
		}
		var a struct{ Signature []byte }
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		p7, err := pkcs7.Parse(a.Signature)
		if err != nil {
			t.Fatal(err)
		}
		var document struct{ Nonce, VMID string }
		if err := json.Unmarshal(p7.Content, &document); err != nil || document.VMID != machine.VMID || nonce != "" && document.Nonce != nonce {
			t.Errorf("%q became %s: %v", nonce, p7.Content, err)
		}
	})
}

func FuzzApproval(f *testing.F) {
	for _, body := range []string{
		`{"StartRequests":[{"EventId":"602d9444-d2cd-49c7-8624-8643e7171297"}]}`, `{"DocumentIncarnation":1,"StartRequests":[{"EventId":"x"}]}`,
		`{"StartRequests":[]}`, `{"StartRequests":null}`, `[]`, `null`, `{`, "", `{"startrequests":[{"eventid":"602D9444-D2CD-49C7-8624-8643E7171297"}]} `,
		strings.Repeat("[", 9000), `{"StartRequests":[{"EventId":"602d9444-d2cd-49c7-8624-8643e7171297"}` + strings.Repeat(" ", 17<<10) + `]}`,
	} {
		f.Add(body)
	}
	s, _ := newServer(f, imds.Config{Now: leaping()})
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "/metadata/scheduledevents?api-version=2020-07-01", strings.NewReader(body))
		r.Host = "169.254.169.254"
		r.Header.Set("Metadata", "true")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 200 && w.Code != 400 || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%d %s for %q", w.Code, w.Body, body)
		}
		if w.Code == 200 && len(body) > 16<<10 {
			t.Errorf("200 for %d bytes", len(body))
		}
	})
}

// A recorder is enough here: what net/http itself does with broken bytes is its own.
func FuzzRequest(f *testing.F) {
	for _, target := range []string{
		"/metadata/identity/oauth2/token?api-version=2018-02-01&resource=x", "//metadata//instance/compute/tagsList/0/?api-version=2020-06-01&format=text",
		"/metadata/versions", "/metadata/instance?api-version=x", "/metadata/loadbalancer?api-version=2020-10-01", "/metadata/scheduledevents?api-version=2020-07-01",
		"/metadata/instance/network/interface/0/ipv4/subnet/0/prefix?api-version=2017-08-01&format=text", "/metadata/identity/oauth2/token??resource=%zz&&=", "/metadata/identity/info?api-version=2018-02-01",
	} {
		f.Add(target, "true", "169.254.169.254")
	}
	s, _ := newServer(f, imds.Config{Now: leaping()})
	f.Fuzz(func(t *testing.T, target, metadata, host string) {
		path, query, _ := strings.Cut(target, "?")
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path, r.URL.RawQuery, r.RequestURI, r.Host = path, query, target, host
		r.Header.Set("Metadata", metadata)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code == 200 && !strings.EqualFold(strings.TrimSpace(metadata), "true") {
			t.Errorf("200 for %q with Metadata: %q", target, metadata)
		}
		if w.Code != 200 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%d %q for %q", w.Code, w.Body, target)
		}
	})
}
