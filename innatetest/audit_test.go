package innatetest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"innate/admin"
	"innate/audit"
	"innate/innatetest"
)

// Whoever was refused can quote the trace id: it is all that its administrator needs.
func TestARefusalIsFoundInTheLogByWhatItsClientWasTold(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	const correlation = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.Admin.Info.Login+"/"+string(p.Admin.Info.Tenant)+"/oauth2/v2.0/token",
		strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("client-request-id", correlation)
	resp, err := p.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var no struct {
		Trace string `json:"trace_id"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&no); err != nil || no.Trace == "" {
		t.Fatalf("%d, trace %q, %v", resp.StatusCode, no.Trace, err)
	}
	for query, want := range map[string]int{
		"trace=" + no.Trace: 1, "correlation=" + strings.ToUpper(correlation): 1,
		"trace=" + no.Trace + "&correlation=" + correlation: 1,
		"trace=" + no.Trace[:8]:                             0, // an id matches as a whole
		"trace=" + correlation:                              0,
	} {
		if got := events(t, p.Admin, query); len(got) != want || want == 1 && (got[0].Trace != no.Trace || got[0].Allowed) {
			t.Errorf("%s: %+v", query, got)
		}
	}
}

func events(t *testing.T, c *admin.Client, query string) []audit.Event {
	t.Helper()
	var page struct {
		Value []audit.Event `json:"value"`
	}
	if err := c.Get(t.Context(), "/audit?"+query, &page); err != nil {
		t.Fatal(err)
	}
	return page.Value
}
