package server

import (
	"context"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/bearer"
	"innate/ca"
	"innate/rest"
	"innate/seal"
	"innate/store"
	"innate/tokens"
	"innate/vault"
)

// What the management surface asks access about the master key, at the root.
var (
	readSeal = access.Control("Innate.Seal/master/read")
	reseal   = access.Control("Innate.Seal/master/reseal/action")
)

func (s *Server) masterPath() string { return filepath.Join(s.config.Dir, masterFile) }

// A sealState is the master key as its administrators see it.
type sealState struct {
	In string `json:"in"` // who keeps it: file, tpm, pkcs11
}

// sealHandler serves the master key to those who may administer it:
//
//	GET /seal               → sealState
//	POST /seal/reseal {in}  → the same, after it was replaced
func (s *Server) sealHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /seal", s.serveSeal)
	mux.HandleFunc("POST /seal/reseal", s.serveReseal)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		rest.WriteError(w, r, rest.Errorf(http.StatusNotFound, "NotFound",
			"%s %s is not served here: want GET /seal or POST /seal/reseal", r.Method, r.URL.Path))
	})
	return mux
}

func (s *Server) serveSeal(w http.ResponseWriter, r *http.Request) {
	who, _ := bearer.From(r.Context())
	if err := s.access.Require(r.Context(), who, readSeal, innate.Root); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	s.showSeal(w, r)
}

func (s *Server) serveReseal(w http.ResponseWriter, r *http.Request) {
	who, _ := bearer.From(r.Context())
	if err := s.access.Require(r.Context(), who, reseal, innate.Root); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	var want sealState
	if err := rest.Read(r, &want); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	in, err := s.keeper(want.In)
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	// Half a replacement is no harm, and still not left behind by a client that hangs up.
	if err := s.reseal(context.WithoutCancel(r.Context()), who, in, "asked for"); err != nil {
		rest.WriteError(w, r, &rest.Error{
			Status: http.StatusServiceUnavailable, Code: "ResealFailed", Cause: err,
			Message: err.Error() + ": the server goes on as it was; ask again, which goes on from there",
		})
		return
	}
	s.showSeal(w, r)
}

func (s *Server) showSeal(w http.ResponseWriter, r *http.Request) {
	by, err := seal.KeptBy(s.masterPath())
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	rest.Write(w, http.StatusOK, sealState{by})
}

// keeper finds a keeper by its name; nil is the file.
func (s *Server) keeper(name string) (seal.Keeper, error) {
	if name == seal.InFile {
		return nil, nil
	}
	names := []string{seal.InFile}
	for _, k := range s.config.Keepers {
		if k.Name() == name {
			return k, nil
		}
		names = append(names, k.Name())
	}
	slices.Sort(names)
	return nil, rest.Errorf(http.StatusBadRequest, "InvalidRequestContent",
		"in %.40q: want who shall keep the master key, one of %s", name, strings.Join(names, ", "))
}

// reseal replaces the master key by a new one: all that it seals is sealed again
// in one transaction, while the server serves.
func (s *Server) reseal(ctx context.Context, who innate.Principal, in seal.Keeper, why string) error {
	s.resealing.Lock()
	defer s.resealing.Unlock()
	return seal.Reseal(s.masterPath(), s.master, in, func() error {
		_, err := s.db.Update(ctx, func(tx store.Tx) error {
			for _, again := range []func(store.Tx, *seal.Key) error{ca.Reseal, tokens.Reseal, vault.Reseal, resealChallenges} {
				if err := again(tx, s.master); err != nil {
					return err
				}
			}
			return audit.Leave(tx, audit.Event{
				Time: s.config.Now(), Action: reseal.Name, Allowed: true, Target: string(innate.Root),
				Principal: who.Object, Name: who.Name, Client: who.Client,
				Hosting: string(who.Hosting), Host: string(who.Host), Assurance: who.Assurance, Token: who.Token,
				Why: why, Trace: rest.RequestID(ctx),
			})
		})
		return err
	})
}
