package imds_test

import (
	"net/http"
	"strings"
	"testing"

	"innate/agent/imds"
)

func TestAnApprovalIsTakenWhateverBecameOfItsEvent(t *testing.T) {
	s, _ := newServer(t, imds.Config{})
	addr := serve(t, s)
	const event = `{"EventId":"602d9444-d2cd-49c7-8624-8643e7171297"}`
	for _, test := range []struct {
		body string
		want int
	}{
		{`{"StartRequests":[` + event + `]}`, 200},
		{`{"StartRequests":[` + event + `,` + event + `]}`, 200},                    // again
		{`{"DocumentIncarnation":5,"StartRequests":[` + event + `]}`, 200},          // as older clients send it
		{`{"StartRequests":[{"EventId":"f5a1"}]}`, 400},                             // no GUID
		{`{"StartRequests":[]}`, 400},                                               // nothing is approved
		{`StartRequests`, 400},                                                      //
		{`{"StartRequests":[` + strings.Repeat(event+",", 400) + event + `]}`, 400}, // more than 16 kB
	} {
		req, err := http.NewRequest("POST", "http://"+addr+"/metadata/scheduledevents?api-version=2020-07-01", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "169.254.169.254"
		req.Header.Set("Metadata", "true")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != test.want || resp.Close != (test.want != 200) {
			t.Errorf("%.80s: got %s, closed %v; want %d", test.body, resp.Status, resp.Close, test.want)
		}
	}
}
