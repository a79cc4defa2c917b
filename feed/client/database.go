package client

import "innate"

// DatabaseServerKey is the key of the one DatabaseServer row in a gateway's feed.
const DatabaseServerKey = "server"

// DatabaseLoginKey is the key of a principal's DatabaseLogin row in a gateway's feed.
func DatabaseLoginKey(object innate.ObjectID) string { return "login/" + string(object) }

// DatabasePlaceKey is the key of a place's DatabasePlace row in a gateway's feed.
func DatabasePlaceKey(id string) string { return "place/" + id }

// RevokedPrefix stands before a RevocationKey in a gateway's feed; without it the event is one for Revocations.Apply.
const RevokedPrefix = "revoked/"

// A DatabaseServer is what a gateway must know of its PostgreSQL server.
type DatabaseServer struct {
	Resource    innate.ResourceID `json:"resource"`
	Audiences   []string          `json:"audiences"`             // accepted in tokens, byte for byte
	Certificate bool              `json:"certificate,omitempty"` // clients log in by certificate; the gateway keeps pg_ident rows
}

// A DatabaseLogin is what one principal may log in as at one PostgreSQL server. A group that is mapped is not in the
// feed: each of its members has a row, with the roles of all its groups. A principal that is disabled has none.
type DatabaseLogin struct {
	Object innate.ObjectID `json:"object"`
	Name   string          `json:"name,omitempty"`  // display name, for people
	Roles  []string        `json:"roles"`           // PostgreSQL roles, byte for byte; sorted, never empty
	Admin  bool            `json:"admin,omitempty"` // one of the roles is an administrator's
}

// A DatabasePlace is where an identity is held, by a resource on a host, and has been given certificates for a server.
// They carry the place's id beside the identity's, and are good while the place is in the feed: it goes when the
// resource leaves the host or the identity, or the host is evicted or joins again.
type DatabasePlace struct {
	Object  innate.ObjectID   `json:"object"`
	Hosting innate.ResourceID `json:"hosting"`
	Host    innate.ResourceID `json:"host"`
}

// A Login is a PostgreSQL role as which an identity of a placed resource may log in at one server: a row for each
// server, role and identity, whether the identity itself or one of its groups is mapped.
type Login struct {
	Server      innate.ResourceID `json:"server"`
	Host        string            `json:"host"` // as clients connect, and as its TLS certificate names it
	Port        int               `json:"port"`
	Role        string            `json:"role"`                  // byte for byte
	Audience    string            `json:"audience"`              // to ask a token for
	Identity    innate.ObjectID   `json:"identity"`              // whose token, or certificate, logs in
	Authorities string            `json:"authorities,omitempty"` // PEM that the server's TLS certificate is trusted by; empty: the platform's own
	Certificate bool              `json:"certificate,omitempty"` // log in by client certificate
	Place       string            `json:"place,omitempty"`       // that its certificates carry; another means that those of before are no good
}
