package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"innate"
	"innate/agent/opener"
	"innate/audit"
	"innate/feed/client"
)

// loggingIn is how long an app's start may wait for the first tokens of its
// log-ins. What is not there by then comes later: its program may be good for more.
const loggingIn = 5 * time.Second

// Files of a generation's folder of log-ins.
const (
	passFile  = "pgpass"
	rootsFile = "root.crt" // the servers' authorities, and no other
	nodeFile  = "node.crt" // the same and the platform's: Node has one file for all that it trusts
)

// logins keep what PostgreSQL clients read for a generation whose identities may
// log in at servers: a password file with a token for each log-in, as new as the
// agent's own, and the authorities by which the servers' certificates are trusted.
// Clients read the file at each connect, so no program has to know.
//
// A token belongs to one server: the audience is that server's own.
type logins struct {
	agent  *Agent
	app    innate.ResourceID
	number int // of the generation
	proof  innate.Assurance
	files  *opener.Folder

	stop    context.CancelFunc // nil: nothing is kept fresh
	keeping sync.WaitGroup

	mu           sync.Mutex // guards the files and:
	rows         []client.Login
	resting      bool                  // an earlier agent's password file stays until all that is to be in it is there
	tokens       map[loginToken]string // the last good ones
	recorded     map[loginToken]string // the last ones in the audit log
	certificates map[loginCertificate]*heldCertificate
	written      map[string]string // what is in the files, by name
}

// A loginToken says which token is the password of some log-ins.
type loginToken struct {
	identity innate.ObjectID
	audience string
}

func tokenOf(l client.Login) loginToken { return loginToken{l.Identity, l.Audience} }

// logIn makes the folder of a generation that may log in somewhere, and what its
// programs find it by: an app's own settings win. One that may not has neither.
func (s *apps) logIn(ctx context.Context, g *Generation, p *client.Placement, others ...[]string) (env []string, err error) {
	rows := usable(p)
	if len(rows) == 0 {
		return nil, nil
	}
	k := newLogins(s.agent, g)
	if k.files, err = g.home.Folder(opener.Logins); err != nil {
		return nil, err
	}
	g.logins = k
	if err := k.turn(rows); err != nil {
		return nil, fmt.Errorf("writing the app's log-ins at PostgreSQL: %w", err)
	}
	k.first(ctx, rows)
	return k.environment(rows, slices.Concat(others...)), nil
}

func newLogins(a *Agent, g *Generation) *logins {
	return &logins{
		agent: a, app: g.App, number: g.Generation, proof: g.Assurance,
		tokens: map[loginToken]string{}, recorded: map[loginToken]string{}, written: map[string]string{},
		certificates: map[loginCertificate]*heldCertificate{},
	}
}

// takeUp goes on with the files that an earlier agent made.
func (k *logins) takeUp(ctx context.Context) {
	ctx, k.stop = context.WithCancel(ctx)
	k.resting = true
	k.keeping.Go(func() {
		if p, placed := k.agent.placed.get(k.app); placed {
			rows := usable(p)
			k.mu.Lock()
			k.rows = rows
			k.mu.Unlock()
			k.first(ctx, rows)
		}
		k.mu.Lock()
		k.resting = false
		k.mu.Unlock()
		k.followPlacement(ctx)
	})
}

// usable are the log-ins of identities that the workload has. Where two of them may
// log in as one role, the one that is meant by default comes first: clients take
// the first line that fits.
func usable(p *client.Placement) []client.Login {
	rows := slices.Clone(p.Logins)
	rows = slices.DeleteFunc(rows, func(l client.Login) bool {
		_, held := holds(p, l.Identity)
		return !held
	})
	if own, err := byDefault(p.Identities); err == nil {
		slices.SortStableFunc(rows, func(a, b client.Login) int {
			return rank(a.Identity != own.Object) - rank(b.Identity != own.Object)
		})
	}
	return rows
}

func rank(later bool) int {
	if later {
		return 1
	}
	return 0
}

// tokens are those that log-ins take; those by certificate take none.
func tokens(rows []client.Login) (all []loginToken) {
	for _, l := range rows {
		if of := tokenOf(l); !l.Certificate && !slices.Contains(all, of) {
			all = append(all, of)
		}
	}
	return all
}

// A proof is what log-ins take and must be kept fresh: a loginToken or a
// loginCertificate.
type proof any

// proofs are what rows take, each with what brings it up to date.
func (k *logins) proofs(rows []client.Login) map[proof]func(context.Context) error {
	all := map[proof]func(context.Context) error{}
	for _, of := range tokens(rows) {
		all[of] = func(ctx context.Context) error { return k.fetch(ctx, of) }
	}
	for _, of := range certificates(rows) {
		all[of] = func(ctx context.Context) error { return k.certify(ctx, of) }
	}
	return all
}

// first gets what is to be there when the program starts.
func (k *logins) first(ctx context.Context, rows []client.Login) {
	ctx, cancel := context.WithTimeout(ctx, loggingIn)
	defer cancel()
	var all sync.WaitGroup
	for of, get := range k.proofs(rows) {
		all.Go(func() {
			if err := get(ctx); err != nil {
				k.log().Warn("an app starts and cannot log in at a PostgreSQL server yet", "by", of, "err", err)
			}
		})
	}
	all.Wait()
}

func (k *logins) log() *slog.Logger {
	return k.agent.config.Log.With("app", k.app, "generation", k.number)
}

// environment is what the app's programs find their log-ins by. others are the
// variables that somebody gave it.
func (k *logins) environment(rows []client.Login, others []string) []string {
	has := map[string]bool{}
	for _, v := range others {
		name, _, _ := strings.Cut(v, "=")
		has[name] = true
	}
	env := []string{
		"PGPASSFILE=" + filepath.Join(k.files.At, passFile), "PGSSLMODE=verify-full", "PGSSLROOTCERT=" + filepath.Join(k.files.At, rootsFile),
	}
	if all := certificates(rows); len(all) == 1 {
		cert, key := all[0].files()
		env = append(env, "PGSSLCERT="+filepath.Join(k.files.At, cert), "PGSSLKEY="+filepath.Join(k.files.At, key))
	}
	if name := "NODE_EXTRA_CA_CERTS"; !has[name] { // node-postgres does not look at PGSSLROOTCERT
		env = append(env, name+"="+filepath.Join(k.files.At, nodeFile))
	}
	// One log-in is where an app means to go, unless somebody said anything of where.
	if l, one := only(rows); one && !has["PGHOST"] && !has["PGHOSTADDR"] && !has["PGPORT"] && !has["PGUSER"] && !has["PGSERVICE"] {
		env = append(env, "PGHOST="+l.Host, "PGPORT="+strconv.Itoa(l.Port), "PGUSER="+l.Role)
	}
	return env
}

// only is the one log-in that there is, whichever identities may have it.
func only(rows []client.Login) (client.Login, bool) {
	first := rows[0]
	return first, !slices.ContainsFunc(rows, func(l client.Login) bool {
		return l.Host != first.Host || l.Port != first.Port || l.Role != first.Role
	})
}

// turn makes the files those of rows: what is in them of any other log-in is gone
// when it returns, error or not.
func (k *logins) turn(rows []client.Login) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rows = rows
	still := tokens(rows)
	maps.DeleteFunc(k.tokens, func(of loginToken, _ string) bool { return !slices.Contains(still, of) })
	errs := []error{k.writePasses(), k.writeRoots()}
	for of := range k.certificates {
		if !slices.Contains(certificates(rows), of) {
			errs = append(errs, k.dropCertificate(of))
		}
	}
	return errors.Join(errs...)
}

// writePasses writes the password file; k.mu is held.
func (k *logins) writePasses() error {
	var b []byte
	for _, l := range k.rows {
		if token := k.tokens[tokenOf(l)]; token != "" && !l.Certificate {
			b = passLine{l.Host, strconv.Itoa(l.Port), l.Role, token}.appendTo(b)
		}
	}
	return k.write(passFile, b)
}

// writeRoots writes the authorities of all servers, each once; k.mu is held. With
// the last log-in they stay: a client without any is to say that it has no
// password, not that its file of authorities is empty.
func (k *logins) writeRoots() error {
	if len(k.rows) == 0 {
		return nil
	}
	var servers []string
	for _, l := range k.rows {
		servers = append(servers, cmp.Or(l.Authorities, k.agent.machine.CA))
	}
	return errors.Join(
		k.write(rootsFile, bundle(servers...)),
		k.write(nodeFile, bundle(append(servers, k.agent.machine.CA)...)),
	)
}

// bundle is each certificate that is in some PEM, once.
func bundle(all ...string) (b []byte) {
	for _, text := range all {
		for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
			if one := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}); block.Type == "CERTIFICATE" && !bytes.Contains(b, one) {
				b = append(b, one...)
			}
		}
	}
	return b
}

// write writes a file that has changed; k.mu is held. One that cannot be written is
// taken away: a file system that is full must not keep what is to go.
func (k *logins) write(name string, content []byte) error {
	if k.resting && name == passFile {
		return nil
	}
	if old, there := k.written[name]; there && old == string(content) {
		return nil
	}
	if _, err := k.files.Write(name, content); err != nil {
		delete(k.written, name)
		return errors.Join(err, k.files.Remove(name))
	}
	k.written[name] = string(content)
	return nil
}

// fetch gets the present token from the agent's cache and puts it into the file.
// When the token service says no, what was there goes.
func (k *logins) fetch(ctx context.Context, of loginToken) error {
	token, err := k.agent.Token(ctx, k.app, innate.Selector{Object: of.identity}, of.audience, k.proof)
	if err == nil {
		err = k.record(ctx, of, token)
	}
	switch {
	case err == nil:
		return k.put(of, token.Value)
	case transient(err) || ctx.Err() != nil:
		return err // the last good one stays
	}
	return errors.Join(err, k.put(of, ""))
}

// put makes a token that of the file; empty takes it away.
func (k *logins) put(of loginToken, token string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(tokens(k.rows), of) {
		return nil // the log-in went meanwhile
	}
	k.tokens[of] = token
	return k.writePasses()
}

// record is in the audit log before the app has the token.
func (k *logins) record(ctx context.Context, of loginToken, token innate.Token) error {
	k.mu.Lock()
	known := k.recorded[of] == token.Value
	k.mu.Unlock()
	if known {
		return nil
	}
	a := k.agent
	err := a.audit.Record(ctx, audit.Event{
		Time: a.config.Now(), Action: "get-token", Allowed: true, Target: of.audience, Principal: token.Object, Client: token.Client,
		Hosting: string(k.app), Host: string(a.machine.Machine), Assurance: k.proof,
		Detail: map[string]string{"generation": strconv.Itoa(k.number), "file": passFile},
	})
	if err != nil {
		return fmt.Errorf("recording that the app gets a token: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.recorded[of] = token.Value
	return nil
}
