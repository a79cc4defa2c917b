package vault

import (
	"context"
	"net/http"
	"strings"

	"innate"
	"innate/bearer"
	"innate/rest"
)

// An operation answers one kind of request. The vault and the names in u are
// known to be well formed; who asks may be anybody.
type operation func(s *Service, r *http.Request, u use) (body any, err error)

// operations is the API (control-plane §5.3), by path and method.
var operations = map[string]map[string]operation{
	"secrets": {
		http.MethodGet: (*Service).serveList,
	},
	"secrets/restore": {
		http.MethodPost: (*Service).serveRestore,
	},
	"secrets/{name}": {
		http.MethodPut:    (*Service).serveSet,
		http.MethodGet:    (*Service).serveGet,
		http.MethodPatch:  (*Service).serveUpdate,
		http.MethodDelete: (*Service).serveDelete,
	},
	"secrets/{name}/versions": {
		http.MethodGet: (*Service).serveVersions,
	},
	"secrets/{name}/backup": {
		http.MethodPost: (*Service).serveBackup,
	},
	"secrets/{name}/{version}": {
		http.MethodGet:   (*Service).serveGet,
		http.MethodPatch: (*Service).serveUpdate,
	},
	"changes": { // ours, see watch
		http.MethodGet: (*Service).serveChanges,
	},
	"changes/{name}": {
		http.MethodGet: (*Service).serveChanges,
	},
	"deletedsecrets": {
		http.MethodGet: (*Service).serveListDeleted,
	},
	"deletedsecrets/{name}": {
		http.MethodGet:    (*Service).serveGetDeleted,
		http.MethodDelete: (*Service).servePurge,
	},
	"deletedsecrets/{name}/recover": {
		http.MethodPost: (*Service).serveRecover,
	},
}

// Handler serves {name}.{Suffix}; the vault is told by the Host header. The caller wraps it in bearer.Require with Challenge.
func (s *Service) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := bearer.From(r.Context())
		if !ok {
			w.Header().Set("WWW-Authenticate", s.Challenge(r, nil))
			rest.WriteError(w, r, rest.Errorf(http.StatusUnauthorized, "Unauthorized", "this request has no access token"))
			return
		}
		body, err := s.answer(r, who)
		switch {
		case err != nil:
			rest.WriteError(w, r, err)
		case body == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			rest.Write(w, http.StatusOK, body)
		}
	})
}

// Challenge tells a client where to get a token, and for what. Clients check
// that the host they called ends in a dot and the resource's host, in Go with
// the port, and some read no word but these two (control-plane §5.1), except in
// a claims challenge (managed-identity-endpoints §4.7).
func (s *Service) Challenge(_ *http.Request, err *bearer.Error) string {
	c := `Bearer authorization="` + s.config.Login + "/" + string(s.config.Tenant) + `", resource="https://` + s.config.Suffix + `"`
	if err != nil && err.Claims != "" {
		c += ", " + err.Params()
	}
	return c
}

// answer is the body of a success; nil means that it has none.
func (s *Service) answer(r *http.Request, who innate.Principal) (body any, err error) {
	vault, err := s.vaultAt(r.Context(), r.Host)
	if err != nil {
		return nil, err
	}
	pattern, name, version := parse(r.Method, r.URL.Path)
	op, ok := operations[pattern][r.Method]
	if !ok {
		return nil, rest.Errorf(http.StatusNotFound, "NotFound", "a vault has no operation %s on this path; secrets are at /secrets/{name}", r.Method)
	}
	if _, err := rest.Version(r, true); err != nil {
		return nil, err
	}
	if strings.Contains(pattern, "{name}") {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	return op(s, r, use{who: who, vault: vault, secret: name, version: version, address: r.RemoteAddr})
}

// parse tells the kind of a path and the words in it. Fixed words may be in any
// case, and a slash at the end, with which clients ask for the latest version,
// changes nothing (control-plane T5). A secret may be called restore, and none
// is posted to.
func parse(method, path string) (pattern, name, version string) {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	pattern = strings.ToLower(segments[0])
	if method == http.MethodPost && len(segments) == 2 && pattern == "secrets" {
		return pattern + "/" + strings.ToLower(segments[1]), "", ""
	}
	switch len(segments) {
	case 1:
		return pattern, "", ""
	case 2:
		return pattern + "/{name}", segments[1], ""
	case 3:
		switch word := strings.ToLower(segments[2]); word {
		case "versions", "recover", "backup":
			return pattern + "/{name}/" + word, segments[1], ""
		default:
			return pattern + "/{name}/{version}", segments[1], word
		}
	}
	return "", "", ""
}

// vaultAt is the vault that a Host header names.
func (s *Service) vaultAt(ctx context.Context, host string) (innate.ResourceID, error) {
	name, ok := vaultName(strings.ToLower(host), s.config.Suffix)
	if !ok {
		return "", noVault(host)
	}
	if id, ok := s.config.ByName(name); ok {
		return id, nil
	}
	if err := s.config.DB.Sync(ctx); err != nil {
		return "", err
	}
	if id, ok := s.config.ByName(name); ok {
		return id, nil
	}
	return "", noVault(name)
}

// vaultName cuts the suffix from a host. The port is the suffix's or none.
func vaultName(host, suffix string) (name string, ok bool) {
	bare, _, _ := strings.Cut(suffix, ":")
	if name, ok = strings.CutSuffix(host, "."+suffix); !ok {
		name, ok = strings.CutSuffix(host, "."+bare)
	}
	return name, ok && name != "" && !strings.Contains(name, ".")
}

func (s *Service) serveSet(r *http.Request, u use) (any, error) {
	var body setBody
	if err := readBody(r, &body); err != nil {
		return nil, err
	}
	made, err := s.set(r.Context(), u, body)
	return made.bundle(r.Host), err
}

func (s *Service) serveGet(r *http.Request, u use) (any, error) {
	found, err := s.get(r.Context(), u)
	return found.bundle(r.Host), err
}

func (s *Service) serveUpdate(r *http.Request, u use) (any, error) {
	var body patchBody
	if err := readBody(r, &body); err != nil {
		return nil, err
	}
	changed, err := s.update(r.Context(), u, body)
	return changed.bundle(r.Host), err
}

func (s *Service) serveDelete(r *http.Request, u use) (any, error) {
	gone, err := s.delete(r.Context(), u)
	return gone.bundle(r.Host), err
}

func (s *Service) serveGetDeleted(r *http.Request, u use) (any, error) {
	gone, err := s.getDeleted(r.Context(), u)
	return gone.bundle(r.Host), err
}

func (s *Service) serveRecover(r *http.Request, u use) (any, error) {
	back, err := s.recover(r.Context(), u)
	return back.bundle(r.Host), err
}

func (s *Service) servePurge(r *http.Request, u use) (any, error) {
	return nil, s.purge(r.Context(), u)
}

func (s *Service) serveBackup(r *http.Request, u use) (any, error) {
	blob, err := s.backup(r.Context(), u)
	return backupBody{blob}, err
}

// serveRestore reads the body, which may be large, of who may restore.
func (s *Service) serveRestore(r *http.Request, u use) (any, error) {
	allowed, err := s.allow(r.Context(), u, restoreSecret)
	if err != nil {
		return nil, err
	}
	var body backupBody
	if err := rest.ReadUpTo(r, &body, MaxBody); err != nil {
		return nil, err
	}
	back, err := s.restore(r.Context(), u, allowed, body.Value)
	return back.bundle(r.Host), err
}

func (s *Service) serveList(r *http.Request, u use) (any, error) {
	page, err := rest.PageOf(r, pageSize)
	if err != nil {
		return nil, err
	}
	found, next, err := s.list(r.Context(), u, page)
	return listed(r, page, found, next, secret.item), err
}

func (s *Service) serveVersions(r *http.Request, u use) (any, error) {
	page, err := rest.PageOf(r, pageSize)
	if err != nil {
		return nil, err
	}
	found, next, err := s.listVersions(r.Context(), u, page)
	return listed(r, page, found, next, secret.bundle), err
}

func (s *Service) serveListDeleted(r *http.Request, u use) (any, error) {
	page, err := rest.PageOf(r, pageSize)
	if err != nil {
		return nil, err
	}
	found, next, err := s.listDeleted(r.Context(), u, page)
	return listed(r, page, found, next, deletedSecret.item), err
}

// readBody reads and checks the body of a request.
func readBody[T any, P interface {
	*T
	check() error
}](r *http.Request, into P) error {
	if err := rest.Read(r, into); err != nil {
		return err
	}
	return into.check()
}
