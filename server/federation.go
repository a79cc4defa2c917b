package server

import (
	"fmt"
	"net/http"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/bearer"
	"innate/rest"
)

// readDirectory is the right to read others in the directory: what a federated
// credential wants is part of it.
var readDirectory = access.Control("microsoft.directory/read")

// serveFederationTest answers POST /federation/test {clientId, assertion}: which
// federated credential of that client admits the assertion, or how far each is
// from it. Nothing is issued, and the assertion is kept nowhere.
func (s *Server) serveFederationTest(w http.ResponseWriter, r *http.Request) {
	who, _ := bearer.From(r.Context())
	if err := s.access.Require(r.Context(), who, readDirectory, innate.Root); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	var asked struct {
		Client    string `json:"clientId"`
		Assertion string `json:"assertion"`
	}
	if err := rest.Read(r, &asked); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	client, err := innate.ParseGUID(asked.Client)
	if err != nil || asked.Assertion == "" {
		rest.WriteError(w, r, rest.Errorf(http.StatusBadRequest, "InvalidRequestContent",
			"want {\"clientId\": the GUID of an app registration or user-assigned identity, \"assertion\": a JWT}"))
		return
	}
	x, err := s.tokens.Explain(r.Context(), innate.ClientID(client), asked.Assertion)
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	if err := s.audit.Record(r.Context(), audit.Event{
		Time: s.config.Now(), Action: "test-federation", Allowed: true, Target: client, Why: x.Verdict + ": " + x.Why,
		Principal: who.Object, Name: who.Name, Client: who.Client,
		Hosting: string(who.Hosting), Host: string(who.Host), Assurance: who.Assurance, Token: who.Token,
		Trace: rest.RequestID(r.Context()),
	}); err != nil {
		rest.WriteError(w, r, fmt.Errorf("recording the test of an assertion: %w", err))
		return
	}
	rest.Write(w, http.StatusOK, x)
}
