package innatetest_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
)

// A fence is an HTTP proxy that lets nothing through and remembers what was
// asked for: a client that wants the Internet fails the test.
type fence struct {
	mu    sync.Mutex
	asked []string
}

func (f *fence) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.Method+" "+r.Host)
	http.Error(w, "nothing outside is reached from this test", http.StatusForbidden)
}

// fenced is the environment behind a fence that is looked over when the test
// ends. Of what was tried, only what is expected is forgiven.
func fenced(t *testing.T, expected ...string) (env []string) {
	t.Helper()
	f := new(fence)
	s := httptest.NewServer(f)
	t.Cleanup(func() {
		s.Close()
		slices.Sort(f.asked)
		for _, what := range slices.Compact(f.asked) {
			if !slices.Contains(expected, what) {
				t.Errorf("the client asked the Internet: %s", what)
			}
		}
	})
	const platform = "127.0.0.1,localhost,.innate.test"
	return []string{
		"http_proxy=" + s.URL, "https_proxy=" + s.URL, "no_proxy=" + platform,
		"HTTP_PROXY=" + s.URL, "HTTPS_PROXY=" + s.URL, "NO_PROXY=" + platform,
	}
}
