package agent_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"innate/agent"
	"innate/feed/client"
)

// byCertificate is a log-in at a server that wants a certificate.
func byCertificate(server, role string, n int) client.Login {
	l := login(server, role, n)
	l.Certificate = true
	return l
}

func TestALogInByCertificateHasItsFilesAndNoPassword(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	var c clock
	p.place(with(app(ident(1, true), ident(2, false)), byCertificate("db-1", "app", 1), byCertificate("db-1", "app", 2), login("db-2", "app", 1)))
	a := p.start(func(cfg *agent.Config) { cfg.Now = c.now })
	run := a.run(t, "api", `/usr/bin/env; echo .; stat -c '%a %u' "$PGSSLKEY"; read x`)
	env := run.environ(t)
	folder := a.loginsFolder(t, 1)
	cert, key := filepath.Join(folder, "client-db-1.crt"), filepath.Join(folder, "client-db-1.key")
	if filepath.Base(env["PGSSLCERT"]) != "client-db-1.crt" || filepath.Base(env["PGSSLKEY"]) != "client-db-1.key" {
		t.Errorf("the certificate is at %q, its key at %q", env["PGSSLCERT"], env["PGSSLKEY"])
	}
	if got, want := run.line(t), fmt.Sprintf("600 %d", run.started.UID); got != want {
		t.Errorf("the key is %s, want %s", got, want)
	}
	if !lists(t, folder, "db-2.postgres.innate.test:5432:*:app") {
		t.Error("the password file has more than the log-in by token")
	}
	pair := func() tls.Certificate {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Errorf("the files do not go together: %v", err)
		}
		return pair
	}
	first := pair()

	// At half life there is another, for the same key: clients read one file after the other.
	look := func() { // another token has all looked at
		_, passwords := passes(t, folder)
		a.Refused(apiApp, sha256.Sum256([]byte(strings.ReplaceAll(passwords[0], `\:`, `:`))))
		eventually(t, "the next token is there", func() bool {
			_, now := passes(t, folder)
			return !slices.Equal(now, passwords)
		})
	}
	p.answer(func(w http.ResponseWriter, r *http.Request) { p.issueAt(c.now(), time.Hour)(w, r) })
	c.advance(8 * time.Hour)
	look()
	look()
	if p.logins.Load() != 1 {
		t.Errorf("at a third of its life %d were asked for, want 1", p.logins.Load())
	}
	c.advance(8 * time.Hour)
	look()
	eventually(t, "the next certificate is there", func() bool {
		next := pair()
		return len(next.Certificate) == 1 && string(next.Certificate[0]) != string(first.Certificate[0])
	})

	// From another place what it has is no good: there is a new one, and a new key.
	asked, moved := p.logins.Load(), byCertificate("db-1", "app", 1)
	moved.Place = "another"
	last := pair()
	p.place(with(app(ident(1, true), ident(2, false)), moved))
	eventually(t, "a certificate for the new place is there", func() bool {
		next, err := tls.LoadX509KeyPair(cert, key)
		return err == nil && p.logins.Load() > asked && !next.Leaf.PublicKey.(*ecdsa.PublicKey).Equal(last.Leaf.PublicKey)
	})

	p.place(app(ident(1, true), ident(2, false)))
	eventually(t, "the files are gone with the log-in", func() bool {
		_, err := os.Stat(cert)
		_, keyErr := os.Stat(key)
		return errors.Is(err, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist)
	})
}
