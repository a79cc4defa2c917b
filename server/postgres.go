package server

import (
	"innate"
	"innate/tokens"
)

// postgresAudience finds the PostgreSQL server that takes tokens for that audience.
func (s *Server) postgresAudience(audience string) (tokens.FirstParty, bool) {
	id, ok, _ := s.resources.PostgresByAudience(audience)
	return s.postgresService(id), ok
}

func (s *Server) postgresAudiences() (all []tokens.FirstParty) {
	for _, id := range s.resources.PostgresServers() {
		all = append(all, s.postgresService(id))
	}
	return all
}

func (s *Server) postgresService(id innate.ResourceID) tokens.FirstParty {
	return tokens.FirstParty{
		Name: "PostgreSQL server " + id.Name(), ID: tokens.Databases,
		URIs: []string{s.resources.PostgresAudience(id.Name())},
	}
}

// reserved reports whether an audience is a service's of the platform, or would
// be a PostgreSQL server's: no registration may take it.
func (s *Server) reserved(audience string) bool {
	_, _, server := s.resources.PostgresByAudience(audience)
	return server || s.tokens.FirstParty(audience)
}
