package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"innate"
)

// The URIs of certificates are innate://{domain}/{kind}{name}: a kind of these,
// then /{object id} or a resource id in lower case.
const (
	uriScheme    = "innate"
	identityKind = "/identities"
	resourceKind = "/resources"
	hostKind     = "/hosts"
)

func uri(domain, kind, name string) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: strings.ToLower(domain), Path: kind + strings.ToLower(name)}
}

// IdentityURIs are the names in a managed identity's certificate: the
// principal, the resource that hosts it and the machine that this runs on.
func IdentityURIs(domain string, id innate.ObjectID, hosting, host innate.ResourceID) []*url.URL {
	return []*url.URL{
		uri(domain, identityKind, "/"+string(id)),
		uri(domain, resourceKind, hosting.Key()),
		uri(domain, hostKind, host.Key()),
	}
}

// LoginURIs are the names in a certificate by which an identity logs in at a
// PostgreSQL server: the principal, and the server.
func LoginURIs(domain string, id innate.ObjectID, server innate.ResourceID) []*url.URL {
	return []*url.URL{uri(domain, identityKind, "/"+string(id)), uri(domain, resourceKind, server.Key())}
}

// DocumentURIs are the names in a certificate for a VM's attested documents: the
// VM, and the machine that may sign for it.
func DocumentURIs(domain string, vm, host innate.ResourceID) []*url.URL {
	return []*url.URL{uri(domain, resourceKind, vm.Key()), uri(domain, hostKind, host.Key())}
}

// ParseIdentityURIs reads what IdentityURIs wrote. The resource ids come back in lower case.
func ParseIdentityURIs(cert *x509.Certificate) (id innate.ObjectID, hosting, host innate.ResourceID, err error) {
	names, err := byKind(cert, identityKind, resourceKind, hostKind)
	if err != nil {
		return "", "", "", err
	}
	guid, err := innate.ParseGUID(strings.TrimPrefix(names[identityKind], "/"))
	if err != nil {
		return "", "", "", fmt.Errorf("certificate of an identity: %w", err)
	}
	if hosting, err = resource(names[resourceKind]); err != nil {
		return "", "", "", err
	}
	if host, err = resource(names[hostKind]); err != nil {
		return "", "", "", err
	}
	return innate.ObjectID(guid), hosting, host, nil
}

// HostURI is the name in a machine's certificate.
func HostURI(domain string, host innate.ResourceID) *url.URL {
	return uri(domain, hostKind, host.Key())
}

// ParseHostURI reads what HostURI wrote. The id comes back in lower case.
func ParseHostURI(cert *x509.Certificate) (innate.ResourceID, error) {
	names, err := byKind(cert, hostKind)
	if err != nil {
		return "", err
	}
	return resource(names[hostKind])
}

// byKind maps each of kinds to the name that cert has of it. A certificate with
// any other URI, or with two of a kind, is refused: it is for something else.
func byKind(cert *x509.Certificate, kinds ...string) (map[string]string, error) {
	if len(cert.URIs) != len(kinds) {
		return nil, fmt.Errorf("certificate with %d URIs: want %d", len(cert.URIs), len(kinds))
	}
	names := map[string]string{}
	for _, u := range cert.URIs {
		if u.Scheme != uriScheme || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, errors.New("certificate with a URI that is not ours")
		}
		for _, kind := range kinds {
			if name, ok := strings.CutPrefix(u.Path, kind); ok && strings.HasPrefix(name, "/") {
				names[kind] = name
			}
		}
	}
	if len(names) != len(kinds) {
		return nil, fmt.Errorf("certificate without one URI for each of %s", strings.Join(kinds, ", "))
	}
	return names, nil
}

func resource(s string) (innate.ResourceID, error) {
	id, err := innate.ParseResourceID(s)
	if err != nil {
		return "", fmt.Errorf("certificate: %w", err)
	}
	return innate.ResourceID(id.Key()), nil
}
