package server

import (
	"innate"
	"innate/databases"
	"innate/resources"
	"innate/store"
	"innate/tokens"
)

// postgresWritten tells databases what a server's resource says of it.
func (s *Server) postgresWritten(tx store.Tx, _, now *resources.Resource) error {
	if !now.ID.Is(resources.TypePostgres) {
		return nil
	}
	said := now.Postgres()
	return s.databases.PutServer(tx, databases.Server{
		Resource: now.ID, Host: s.resources.PostgresHost(now), Port: said.Port,
		Audience: s.resources.PostgresAudience(now.ID.Name()), AcceptAzure: said.AcceptAzure,
		Authorities: said.Authorities, Certificate: said.Certificate,
	})
}

// postgresGone takes away all who may log in at a server that is going.
func (s *Server) postgresGone(tx store.Tx, gone *resources.Resource) error {
	if !gone.ID.Is(resources.TypePostgres) {
		return nil
	}
	return s.databases.DeleteServer(tx, gone.ID)
}

// postgresAudience finds the PostgreSQL server that takes tokens for that audience.
func (s *Server) postgresAudience(audience string) (tokens.FirstParty, bool) {
	id, ok, _ := s.resources.PostgresByAudience(audience)
	if !ok {
		return tokens.FirstParty{}, false
	}
	return s.postgresService(id), true
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
