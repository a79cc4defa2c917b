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

// URIKey is an identifier URI, or a client id, in the form that compares: without
// one trailing slash, scheme and host in lower case (managed-identity-endpoints §5.1).
func URIKey(uri string) string {
	uri = strings.TrimSuffix(uri, "/")
	end := len(uri) // of what is compared without its case
	if scheme, after, ok := strings.Cut(uri, "://"); ok {
		host, _, _ := strings.Cut(after, "/")
		end = len(scheme) + len("://") + len(host)
	}
	if lower := strings.ToLower(uri[:end]); lower != uri[:end] {
		return lower + uri[end:]
	}
	return uri
}

// clientOf is the client id that api://{client id} or a bare GUID names.
func clientOf(audience string) (innate.ClientID, bool) {
	name := strings.TrimPrefix(URIKey(audience), "api://")
	if len(name) != len("00000000-0000-0000-0000-000000000000") {
		return "", false // most are URIs: no error is made of each
	}
	id, err := innate.ParseGUID(name)
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
	case strings.HasSuffix(uri, "//"): // beside another's URI, which clients send with a slash of their own
		return bad("The identifier URI '%s' ends in two slashes.", uri)
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
		uris.Delete(tx, URIKey(uri))
	}
	for _, uri := range now {
		if err := checkURI(uri); err != nil {
			return err
		}
		if named, ok := clientOf(uri); ok && named != client {
			return taken("The identifier URI '%s' is that of the application with this appId.", uri)
		}
		holder, ok, err := uris.Get(tx, URIKey(uri))
		if err != nil {
			return err
		}
		if ok && holder != client {
			return taken("Another application has the identifier URI '%s'.", uri)
		}
		if err := uris.Put(tx, URIKey(uri), client); err != nil {
			return err
		}
	}
	return nil
}
