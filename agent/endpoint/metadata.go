package endpoint

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"innate"
	"innate/jsonobject"
)

// What a metadata service says, at 169.254.169.254 and where Azure Arc has its
// own (managed-identity-endpoints §1.2, §1.3, §3.2).

// MetadataToken adds the members of a 200 to b, for who asked for a resource,
// naming an identity by a selector (client_id, object_id, …; empty for none) and its value.
// The numbers are strings, and none is ever empty, because SDKs were built
// against the real endpoint's; the order is its order. There is no refresh_in:
// only one SDK reads it.
func MetadataToken(b []byte, t innate.Token, resource, selector, value string, now time.Time) []byte {
	left := int64(t.Expires.Sub(now) / time.Second)
	b = jsonobject.String(b, "access_token", t.Value)
	b = jsonobject.String(b, "client_id", t.Client)
	b = jsonobject.Digits(b, "expires_in", left)             // seconds from now
	b = jsonobject.Digits(b, "expires_on", t.Expires.Unix()) // seconds since the epoch
	b = jsonobject.Digits(b, "ext_expires_in", left)
	b = jsonobject.Digits(b, "not_before", t.NotBefore.Unix())
	b = jsonobject.String(b, "resource", resource) // byte for byte as asked: SDKs cache under it
	b = jsonobject.String(b, "token_type", "Bearer")
	// The selector that was used, as it was sent: at Arc, Go and Node throw a token without it away.
	switch selector {
	case "object_id", "principal_id":
		b = jsonobject.Present(b, "object_id", value)
	case "msi_res_id", "msi-res-id":
		b = jsonobject.Present(b, "msi_res_id", value)
	case "mi_res_id":
		b = jsonobject.Present(b, "mi_res_id", value)
	}
	return b
}

// A MetadataFailure is the body of every refusal; what relates to the token
// service's decision is there when it made one.
type MetadataFailure struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	Codes       []int  `json:"error_codes,omitempty"`
	Timestamp   string `json:"timestamp,omitempty"`
	Trace       string `json:"trace_id,omitempty"`
	Correlation string `json:"correlation_id,omitempty"`
}

// NewMetadataFailure is the body of a graded refusal.
func NewMetadataFailure(no innate.Refusal, correlation string, now time.Time) MetadataFailure {
	f := MetadataFailure{Error: no.OAuth, Description: no.Error()}
	if no.Code != 0 {
		f.Codes = []int{no.Code}
		f.Timestamp = now.UTC().Format("2006-01-02 15:04:05Z")
		f.Trace = no.Trace
		f.Correlation = correlation
	}
	return f
}

// GradeMetadata is Grade in a metadata service's words; people and SDKs know the phrases.
func GradeMetadata(err error) innate.Refusal {
	switch {
	case errors.Is(err, innate.ErrNoIdentity):
		return innate.Refusal{Status: http.StatusBadRequest, OAuth: "invalid_request", Text: "Identity not found", Cause: err}
	case errors.Is(err, innate.ErrManyIdentities):
		return innate.Refusal{Status: http.StatusBadRequest, OAuth: "invalid_request", Cause: err,
			Text: "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"}
	}
	no := Grade(err)
	if no.Status == http.StatusForbidden {
		// SDKs read a 403 with that word as a desktop proxy's, and go on to the next credential.
		no.Text = strings.ReplaceAll(no.Text, "unreachable", "out of reach")
	}
	return no
}
