package server

import (
	"net/http"

	"innate"
	"innate/access"
	"innate/bearer"
	"innate/rest"
	"innate/tokens"
)

// What the management surface asks access about the token service's keys, at the root.
var (
	readKeys = access.Control("Innate.Tokens/keys/read")
	rollKeys = access.Control(tokens.RollKeys)
)

// keysHandler serves the signing keys to those who may administer them:
//
//	GET /keys                      → {value: [tokens.Key]}
//	POST /keys/roll {compromised}  → the same, after the roll
func (s *Server) keysHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /keys", s.serveKeys)
	mux.HandleFunc("POST /keys/roll", s.serveRoll)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		rest.WriteError(w, r, rest.Errorf(http.StatusNotFound, "NotFound",
			"%s %s is not served here: want GET /keys or POST /keys/roll", r.Method, r.URL.Path))
	})
	return mux
}

func (s *Server) serveKeys(w http.ResponseWriter, r *http.Request) {
	who, _ := bearer.From(r.Context())
	if err := s.access.Require(r.Context(), who, readKeys, innate.Root); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	s.listKeys(w, r)
}

func (s *Server) serveRoll(w http.ResponseWriter, r *http.Request) {
	who, _ := bearer.From(r.Context())
	if err := s.access.Require(r.Context(), who, rollKeys, innate.Root); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	// Which of the two it is to be is said, never guessed.
	var how struct {
		Compromised *bool `json:"compromised"`
	}
	if err := rest.Read(r, &how); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	if how.Compromised == nil {
		rest.WriteError(w, r, rest.Errorf(http.StatusBadRequest, "InvalidRequestContent",
			"compromised is missing: true withdraws the old keys and ends every token they signed, false lets them verify what is out"))
		return
	}
	if err := s.tokens.Roll(r.Context(), who, *how.Compromised); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	s.listKeys(w, r)
}

func (s *Server) listKeys(w http.ResponseWriter, r *http.Request) {
	keys, err := s.tokens.Keys(r.Context())
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	rest.Write(w, http.StatusOK, map[string]any{"value": keys})
}
