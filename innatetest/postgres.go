package innatetest

import (
	"net/http"

	"innate"
)

// A Postgres is a PostgreSQL server's resource. The server itself is the test's.
type Postgres struct{ resource }

// Postgres makes one, with properties such as fullyQualifiedDomainName and port
// over their defaults. Server names are unique on a platform.
func (p *Platform) Postgres(name string, properties ...map[string]any) *Postgres {
	p.t.Helper()
	id := p.id("Microsoft.DBforPostgreSQL/flexibleServers", name)
	body := map[string]any{}
	for _, more := range properties {
		for k, v := range more {
			body[k] = v
		}
	}
	p.put(id, map[string]any{"properties": body})
	return &Postgres{resource{p, id}}
}

// Audience is what tokens for this server alone are asked for by.
func (s *Postgres) Audience() string {
	s.p.t.Helper()
	var got struct {
		Properties struct {
			Audience string `json:"audience"`
		} `json:"properties"`
	}
	s.p.ARM(http.MethodGet, string(s.id), nil, &got)
	return got.Properties.Audience
}

// MayLogIn lets who, or all who are in it when it is a group, log in at a server
// as any of these roles, and as no other any more.
func (p *Platform) MayLogIn(who Holder, at *Postgres, roles ...string) {
	p.t.Helper()
	p.ARM(http.MethodPut, at.mapping(who), map[string]any{"properties": map[string]any{"roles": roles}}, nil)
}

// MayNotLogIn takes back what MayLogIn gave.
func (p *Platform) MayNotLogIn(who Holder, at *Postgres) {
	p.t.Helper()
	p.ARM(http.MethodDelete, at.mapping(who), nil, nil)
}

func (s *Postgres) mapping(who Holder) string {
	return string(s.id) + "/principals/" + string(who.Principal())
}

// An Object is who is named by an object id: a group, say.
type Object innate.ObjectID

// Principal is that object id.
func (o Object) Principal() innate.ObjectID { return innate.ObjectID(o) }

// Group makes a group of the directory.
func (p *Platform) Group(name string, members ...Holder) Object {
	p.t.Helper()
	var made struct {
		ID innate.ObjectID `json:"id"`
	}
	p.graph(http.MethodPost, "/v1.0/groups", map[string]any{"displayName": name}, &made)
	for _, m := range members {
		p.Join(Object(made.ID), m)
	}
	return Object(made.ID)
}

// Join puts a member into a group.
func (p *Platform) Join(group Object, member Holder) {
	p.t.Helper()
	p.graph(http.MethodPost, "/v1.0/groups/"+string(group)+"/members/$ref",
		map[string]any{"@odata.id": p.Admin.Info.Graph + "/v1.0/directoryObjects/" + string(member.Principal())}, nil)
}

// Leave takes a member out of a group.
func (p *Platform) Leave(group Object, member Holder) {
	p.t.Helper()
	p.graph(http.MethodDelete, "/v1.0/groups/"+string(group)+"/members/"+string(member.Principal())+"/$ref", nil, nil)
}

func (p *Platform) graph(method, path string, in, out any) {
	p.t.Helper()
	if err := p.Admin.Graph(p.t.Context(), method, path, in, out); err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
}
