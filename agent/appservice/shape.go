package appservice

import (
	"net"
	"net/http"
	"strings"
	"time"

	"innate"
	"innate/agent/endpoint"
)

// A Shape is one of the hosting shapes by which SDKs find an identity. The
// variables of exactly one are given to a process: with those of two, each SDK
// has an order of its own (managed-identity-endpoints §6).
type Shape string

// The shapes. Cloud Shell's is none of them: it has no secret.
const (
	AppService    Shape = "appservice"    // every SDK knows it, and the older ones too
	ServiceFabric Shape = "servicefabric" // https with a certificate that the process is told the thumbprint of
	AzureML       Shape = "azureml"       // App Service of 2017-09-01, found by MSI_ENDPOINT and MSI_SECRET
	Arc           Shape = "arc"           // no secret in the environment: each request proves itself by a file
)

// A dialect is how a shape speaks. What is decided is the same in all of them.
type dialect struct {
	path     string
	versions []version // the first is what a request without a good one is read as
	metadata bool      // wants "Metadata: true", which no tricked browser sends
	alone    bool      // no selector may mean the only identity, as at 169.254.169.254
	refusal  func(err error, which innate.Selector) innate.Refusal
	token    func(b []byte, q question, t innate.Token, now time.Time) []byte // adds its members
	failure  func(no innate.Refusal, correlation string, now time.Time) any
}

// A version is one api-version of a dialect.
type version struct {
	name      string
	header    string   // carries the secret, in canonical form
	selectors []string // how the query names an identity
}

// dialect is nil for a shape that there is not.
func (s Shape) dialect() *dialect {
	switch s {
	case AppService, AzureML:
		return &webApp
	case ServiceFabric:
		return &fabric
	case Arc:
		return &himds
	}
	return nil
}

// version is the one that a request names; where there is none such, it has the
// header of the first and no selectors.
func (d *dialect) version(q endpoint.Query) version {
	for _, v := range d.versions {
		if v.name == q.Get("api-version") {
			return v
		}
	}
	return version{header: d.versions[0].header}
}

func (d *dialect) badVersion() error {
	var names []string
	for _, v := range d.versions {
		names = append(names, v.name+" with the header "+strings.ToUpper(v.header))
	}
	return &innate.Refusal{Status: http.StatusBadRequest, Cause: errVersion,
		Text: "The parameter 'api-version' is required: " + strings.Join(names, ", or ")}
}

// Environment is what the app's process is given so that SDKs find the endpoint,
// in its shape and in no other. secret is Config.Secret, which is not kept.
func (e *Endpoint) Environment(secret string) []string {
	base := "http://" + e.listener.Addr().String()
	switch e.shape {
	case ServiceFabric:
		return []string{
			"IDENTITY_ENDPOINT=https://" + e.listener.Addr().String() + fabric.path,
			"IDENTITY_HEADER=" + secret,
			"IDENTITY_SERVER_THUMBPRINT=" + thumbprint(e.certificate),
			"IDENTITY_API_VERSION=" + fabric.versions[0].name, // AppAuthentication wants it
		}
	case AzureML:
		env := []string{"MSI_ENDPOINT=" + base + webApp.path, "MSI_SECRET=" + secret}
		if e.client != "" {
			env = append(env, "DEFAULT_IDENTITY_CLIENT_ID="+string(e.client))
		}
		return env
	case Arc:
		return []string{"IDENTITY_ENDPOINT=" + base + himds.path, "IMDS_ENDPOINT=" + base}
	}
	// Both pairs, or SDKs take the endpoint for another product's (managed-identity-endpoints §0.10).
	return []string{
		"IDENTITY_ENDPOINT=" + base + webApp.path,
		"IDENTITY_HEADER=" + secret,
		"MSI_ENDPOINT=" + base + webApp.path,
		"MSI_SECRET=" + secret,
	}
}

// hostsOf is what Host may be at a listener.
func hostsOf(l net.Listener) []string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return []string{"127.0.0.1:" + port, "localhost:" + port, "127.0.0.1", "localhost"}
}
