package appservice

import (
	"errors"
	"net/http"
	"time"

	"innate"
	"innate/agent/endpoint"
	"innate/jsonobject"
)

// webApp is App Service's dialect (managed-identity-endpoints §2); its older
// version is also Azure ML's (§3.3).
var webApp = dialect{
	path: "/msi/token",
	versions: []version{
		{"2019-08-01", "X-Identity-Header", []string{"client_id", "object_id", "principal_id", "mi_res_id", "msi_res_id"}},
		{"2025-03-30", "X-Identity-Header", []string{"client_id", "object_id", "principal_id", "mi_res_id", "msi_res_id"}}, // may have token_sha256_to_refresh and xms_cc
		{"2017-09-01", "Secret", []string{"clientid"}},
	},
	refusal: refusalOfWebApp,
	token:   tokenOfWebApp,
	failure: failureOfWebApp,
}

func refusalOfWebApp(err error, which innate.Selector) innate.Refusal {
	// SDKs' own tests look for the first text.
	const noUser = "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId."
	const noSystem = "No Managed Identity found for specified ClientId/ResourceId/PrincipalId. The system-assigned identity is not enabled."
	if !errors.Is(err, innate.ErrNoIdentity) && !errors.Is(err, innate.ErrManyIdentities) {
		return endpoint.Grade(err)
	}
	no := innate.Refusal{Status: http.StatusBadRequest, Text: noUser, Cause: err}
	if which.System {
		no.Text = noSystem
	}
	return no
}

// tokenOfWebApp is of a 200; the numbers are strings because SDKs were built
// against the real endpoint's.
func tokenOfWebApp(b []byte, q question, t innate.Token, now time.Time) []byte {
	b = jsonobject.String(b, "access_token", t.Value)
	b = jsonobject.Digits(b, "expires_on", t.Expires.Unix())                      // seconds since the epoch
	b = jsonobject.Digits(b, "expires_in", int64(t.Expires.Sub(now)/time.Second)) // seconds from now
	b = jsonobject.Digits(b, "not_before", t.NotBefore.Unix())
	b = jsonobject.String(b, "resource", q.resource) // byte for byte as asked: SDKs cache under it
	b = jsonobject.String(b, "token_type", "Bearer")
	return jsonobject.String(b, "client_id", t.Client)
}

func failureOfWebApp(no innate.Refusal, correlation string, _ time.Time) any {
	return struct {
		StatusCode    int    `json:"statusCode"`
		Message       string `json:"message"`
		CorrelationID string `json:"correlationId"`
	}{no.Status, no.Error(), correlation}
}
