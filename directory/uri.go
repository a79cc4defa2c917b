package directory

import (
	"net/url"
	"strings"

	"innate"
	"innate/store"
)

// maxURI bounds an identifier URI, maxURIs their number on one registration.
const (
	maxURI  = 255
	maxURIs = 50
)

// uriKey is an identifier URI in the form that compares: without one trailing
// slash, scheme and host in lower case.
func uriKey(uri string) string {
	uri = strings.TrimSuffix(uri, "/")
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return uri
	}
	host, path, _ := strings.Cut(rest, "/")
	key := strings.ToLower(scheme + "://" + host)
	if path != "" {
		key += "/" + path
	}
	return key
}

// clientOf is the client id that api://{client id} or a bare GUID names.
func clientOf(audience string) (innate.ClientID, bool) {
	id, err := innate.ParseGUID(strings.TrimPrefix(uriKey(audience), "api://"))
	return innate.ClientID(id), err == nil
}

func checkURI(uri string) error {
	u, err := url.Parse(uri)
	switch {
	case len(uri) > maxURI:
		return bad("An identifier URI has %d characters: want at most %d.", len(uri), maxURI)
	case err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return bad("'%s' is no identifier URI: want a scheme and a host, such as api://orders or https://orders.example.org, and no query or fragment.", uri)
	case strings.Contains(uri, "*") || strings.ContainsAny(uri, " \\"):
		return bad("The identifier URI '%s' has a wildcard, a space or a backslash.", uri)
	}
	return nil
}

// claimURIs gives client the URIs of now instead of those of old; one that
// belongs to another registration is refused.
func claimURIs(tx store.Tx, client innate.ClientID, old, now []string) error {
	if len(now) > maxURIs {
		return bad("The application has %d identifier URIs: want at most %d.", len(now), maxURIs)
	}
	for _, uri := range old {
		uris.Delete(tx, uriKey(uri))
	}
	for _, uri := range now {
		if err := checkURI(uri); err != nil {
			return err
		}
		if named, ok := clientOf(uri); ok && named != client {
			return taken("The identifier URI '%s' is that of the application with this appId.", uri)
		}
		holder, ok, err := uris.Get(tx, uriKey(uri))
		if err != nil {
			return err
		}
		if ok && holder != client {
			return taken("Another application has the identifier URI '%s'.", uri)
		}
		if err := uris.Put(tx, uriKey(uri), client); err != nil {
			return err
		}
	}
	return nil
}
