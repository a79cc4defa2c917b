package server

import (
	"net/http"

	"innate"
	"innate/access"
	"innate/bearer"
	"innate/rest"
	"innate/tokens"
)

// lifetimesHandler serves how long tokens are good to those who may administer
// it. {of} is tenant, audience or identity; ?of= says which audience (any of its
// URIs, or its app id) or which identity (its object id).
//
//	GET /lifetimes                        → {value: [tokens.Lifetime], usual: "PT1H"}
//	PUT /lifetimes/{of}?of= {"lifetime"}  → the tokens.Lifetime
//	DELETE /lifetimes/{of}?of=            → 204, also when there was none
func (s *Server) lifetimesHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /lifetimes", s.lifetimes(tokens.ReadLifetimes, s.listLifetimes))
	mux.HandleFunc("PUT /lifetimes/{of}", s.lifetimes(tokens.WriteLifetimes, s.setLifetime))
	mux.HandleFunc("DELETE /lifetimes/{of}", s.lifetimes(tokens.DeleteLifetimes, s.clearLifetime))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		rest.WriteError(w, r, rest.Errorf(http.StatusNotFound, "NotFound",
			"%s %s is not served here: want GET /lifetimes, or PUT or DELETE of /lifetimes/tenant, /lifetimes/audience?of= or /lifetimes/identity?of=", r.Method, r.URL.Path))
	})
	return mux
}

// lifetimes serves verb to those who may do action at the root.
func (s *Server) lifetimes(action string, verb func(*http.Request, innate.Principal) (status int, body any, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, _ := bearer.From(r.Context())
		err := s.access.Require(r.Context(), who, access.Control(action), innate.Root)
		if err != nil {
			rest.WriteError(w, r, err)
			return
		}
		status, body, err := verb(r, who)
		if err != nil {
			rest.WriteError(w, r, err)
			return
		}
		rest.Write(w, status, body)
	}
}

func (s *Server) listLifetimes(r *http.Request, _ innate.Principal) (int, any, error) {
	all, usual, err := s.tokens.Lifetimes(r.Context())
	return http.StatusOK, map[string]any{"value": all, "usual": usual}, err
}

func (s *Server) setLifetime(r *http.Request, who innate.Principal) (int, any, error) {
	var body struct {
		Life tokens.Life `json:"lifetime"`
	}
	if err := rest.Read(r, &body); err != nil {
		return 0, nil, err
	}
	l, err := s.tokens.SetLifetime(r.Context(), who, r.PathValue("of"), r.URL.Query().Get("of"), body.Life)
	return http.StatusOK, l, err
}

func (s *Server) clearLifetime(r *http.Request, who innate.Principal) (int, any, error) {
	return http.StatusNoContent, nil, s.tokens.ClearLifetime(r.Context(), who, r.PathValue("of"), r.URL.Query().Get("of"))
}
