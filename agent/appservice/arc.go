package appservice

import (
	"net/http"
	"time"

	"innate"
	"innate/agent/endpoint"
)

// himds is Azure Arc's dialect (managed-identity-endpoints §3.2): the first
// request is answered by 401 and the name of a file, whose content is the secret
// of the second. Reading the file is a proof beside the kernel's.
var himds = dialect{
	path: "/metadata/identity/oauth2/token",
	versions: []version{
		{"2020-06-01", "Authorization", himdsSelectors},
		{"2019-11-01", "Authorization", himdsSelectors}, // Java, and the documented shell script
		{"2019-08-15", "Authorization", himdsSelectors},
	},
	metadata: true,
	alone:    true,
	refusal:  func(err error, _ innate.Selector) innate.Refusal { return endpoint.GradeMetadata(err) },
	token: func(b []byte, q question, t innate.Token, now time.Time) []byte {
		return endpoint.MetadataToken(b, t, q.resource, q.selector, q.value, now)
	},
	failure: func(no innate.Refusal, correlation string, now time.Time) any {
		return endpoint.NewMetadataFailure(no, correlation, now)
	},
}

var himdsSelectors = []string{"client_id", "object_id", "principal_id", "msi_res_id", "mi_res_id"}

// challenge answers the first request of the app itself. A stranger's makes no file.
func (e *Endpoint) challenge(w http.ResponseWriter, r *http.Request, p *peer) {
	err := e.check(r)
	file := ""
	if err == nil {
		file, err = e.challenges.issue()
	}
	if err != nil {
		e.refuse(w, r, p, "", e.dialect.refusal(err, innate.Selector{}))
		return
	}
	// Unquoted, and nothing after it: that is how SDKs read it. They look for
	// this spelling of the header or, as newer ones of Java, do not find it.
	w.Header().Set("Www-Authenticate", "Basic realm="+file)
	no := innate.Refusal{Status: http.StatusUnauthorized, OAuth: "unauthorized",
		Text: "read the file that Www-Authenticate names, and ask again with its content as Authorization: Basic"}
	e.say(w, no, endpoint.RequestID(r))
}
