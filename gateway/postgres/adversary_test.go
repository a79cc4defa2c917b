package postgres_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"innate/feed/client"
	"innate/gateway/postgres"
	"innate/gateway/postgres/cluster"
	"innate/gateway/postgres/postgrestest"
)

// dial connects to the gateway as anybody on the host can.
func (w *world) dial() net.Conn {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.config.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

const startTLS = "\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"

// secure is the same after StartTLS.
func (w *world) secure() net.Conn {
	w.t.Helper()
	conn := w.dial()
	if _, err := io.WriteString(conn, startTLS); err != nil {
		w.t.Fatal(err)
	}
	if got := answer(w.t, conn); len(got) < 10 || got[5] != 0x78 || got[9] != 0 {
		w.t.Fatalf("StartTLS was answered %x", got)
	}
	ca, err := os.ReadFile(w.gateway.CA())
	if err != nil {
		w.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
}

// answer reads one message; empty when the connection is closed instead.
func answer(t testing.TB, conn io.Reader) []byte {
	t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil
	}
	size := int(head[1])
	if head[1] == 0x81 { // a length of two bytes: what is looked for stands behind it
		more := make([]byte, 1)
		if _, err := io.ReadFull(conn, more); err != nil {
			t.Error(err)
		}
		size = int(more[0])
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Error(err)
	}
	return append(head, body...)
}

// result is the code in an answer.
func result(b []byte) int {
	i := bytes.Index(b, []byte{0x0a, 0x01})
	if i < 0 || i+2 >= len(b) {
		return -1
	}
	return int(b[i+2])
}

func TestABindIsRefusedForItsForm(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		secure  bool
		request string
		want    int
	}{
		"in clear":                     {false, "\x30\x13\x02\x01\x01\x60\x0e\x02\x01\x03\x04\x04cn=a\x80\x03tok", 13},
		"without a password":           {true, "\x30\x10\x02\x01\x01\x60\x0b\x02\x01\x03\x04\x04cn=a\x80\x00", 53},
		"without a name":               {true, "\x30\x0f\x02\x01\x01\x60\x0a\x02\x01\x03\x04\x00\x80\x03tok", 49},
		"by SASL":                      {true, "\x30\x13\x02\x01\x01\x60\x0e\x02\x01\x03\x04\x00\xa3\x07\x04\x05PLAIN", 7},
		"by LDAP version 2":            {true, "\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x02\x04\x00\x80\x00", 2},
		"with a critical control":      {true, "\x30\x18\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00\xa0\x0a\x30\x08\x04\x031.2\x01\x01\xff", 12},
		"a search":                     {true, "\x30\x07\x02\x01\x01\x63\x02\x04\x00", 53},
		"StartTLS once more":           {true, startTLS, 53},
		"no token, and another's name": {true, "\x30\x13\x02\x01\x01\x60\x0e\x02\x01\x03\x04\x04cn=a\x80\x03tok", 49},
	} {
		t.Run(name, func(t *testing.T) {
			conn := w.dial()
			if c.secure {
				conn = w.secure()
			}
			io.WriteString(conn, c.request)
			if got := result(answer(t, conn)); got != c.want {
				t.Errorf("result %d, want %d", got, c.want)
			}
		})
	}
	t.Run("StartTLS with something behind it in clear", func(t *testing.T) {
		conn := w.dial()
		io.WriteString(conn, startTLS+"\x30\x05\x02\x01\x02\x42\x00")
		if b, err := io.ReadAll(conn); len(b) > 0 {
			t.Errorf("it was answered: %x, %v", b, err)
		}
	})
	t.Run("a ninth message", func(t *testing.T) {
		conn := w.secure()
		for n := range 9 {
			io.WriteString(conn, "\x30\x07\x02\x01\x01\x63\x02\x04\x00")
			got := answer(t, conn)
			if n < 7 && len(got) == 0 { // StartTLS was the first
				t.Fatalf("closed after %d", n)
			}
			if n == 8 && len(got) > 0 {
				t.Error("it was answered")
			}
		}
	})
}

func TestAnIndependentClientAgrees(t *testing.T) {
	if _, err := exec.LookPath("ldapwhoami"); err != nil {
		t.Skip("ldapwhoami is not on this machine (package ldap-utils)")
	}
	w := newWorld(t)
	w.mapped(alice, "app")
	whoami := func(name, password string, more ...string) (int, string) {
		args := append([]string{"-x", "-H", "ldap://" + w.config.Listener.Addr().String(), "-D", name, "-y", filepath.Join(t.TempDir(), "password")}, more...)
		if err := os.WriteFile(args[len(args)-1-len(more)], []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("ldapwhoami", args...)
		cmd.Env = []string{"LDAPTLS_CACERT=" + w.gateway.CA()}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	name := postgres.Prefix + "app" + postgres.Suffix(orders)
	// A good bind is followed by the question that gave the program its name, and that is refused.
	if code, out := whoami(name, w.token(alice, nil), "-ZZ"); strings.Contains(out, "ldap_bind") || !strings.Contains(out, "this is no directory") {
		t.Errorf("a good token: exit %d: %s", code, out)
	}
	if code, out := whoami(name, w.token(bob, nil), "-ZZ"); code != 49 || !strings.Contains(out, "not mapped to this role") {
		t.Errorf("another's token: exit %d: %s", code, out)
	}
	if code, out := whoami(name, w.token(alice, nil)); code != 13 || !strings.Contains(out, "StartTLS comes before") {
		t.Errorf("in clear: exit %d: %s", code, out)
	}
	if code, out := whoami(name, "", "-ZZ"); code == 0 || code == 53 && !strings.Contains(out, "without a password") {
		t.Errorf("no password: exit %d: %s", code, out)
	}
	if code, out := whoami("cn=app", w.token(alice, nil), "-ZZ"); code != 49 || !strings.Contains(out, "ldapprefix and ldapsuffix") {
		t.Errorf("another suffix: exit %d: %s", code, out)
	}
}

// The gateway is in a process of its own, whose memory is its own.
func TestGarbageIsClosedAndTakesNoMemory(t *testing.T) {
	p := newProgram(t, newServer(t))
	p.mapped(alice, "app")
	var all sync.WaitGroup
	closed := make(chan time.Duration, 1000)
	send := func(b []byte, then func(net.Conn)) {
		all.Go(func() {
			conn, err := net.Dial("tcp", p.config.Listener.Addr().String())
			if err != nil {
				return
			}
			defer conn.Close()
			begun := time.Now()
			conn.SetDeadline(begun.Add(30 * time.Second))
			conn.Write(b)
			if then != nil {
				then(conn)
			}
			io.Copy(io.Discard, conn)
			closed <- time.Since(begun)
		})
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		garbage := make([]byte, 1+random.IntN(4000))
		for i := range garbage {
			garbage[i] = byte(random.Uint32())
		}
		send(garbage, nil)
		send(append([]byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff}, garbage...), nil) // 2 GiB
		send([]byte(startTLS[:20]), nil)                                          // and nothing more
	}
	for range 20 { // a byte now and then
		send(nil, func(conn net.Conn) {
			for i := range len(startTLS) {
				if _, err := io.WriteString(conn, startTLS[i:i+1]); err != nil {
					return
				}
				<-time.After(500 * time.Millisecond)
			}
		})
	}
	// Meanwhile and afterwards others log in.
	if _, err := p.attempt(t.Context(), "app", p.token(alice, nil)); err != nil {
		t.Errorf("a good log-in meanwhile: %v", err)
	}
	all.Wait()
	close(closed)
	for took := range closed {
		if took > 8*time.Second {
			t.Errorf("a connection was open for %v", took)
		}
	}
	if _, err := p.attempt(t.Context(), "app", p.token(alice, nil)); err != nil {
		t.Errorf("a good log-in afterwards: %v", err)
	}
	most := mostMemory(t, p.child())
	t.Logf("resident at most %.1f MB", float64(most)/1e6)
	if most > 32<<20 {
		t.Errorf("%d bytes were resident, want at most 32 MiB", most)
	}
}

// An impostor says yes to everybody.
func TestAnImpostorLetsNobodyInAndLearnsNoToken(t *testing.T) {
	w := newWorld(t)
	w.mapped(alice, "app")
	at := w.config.Listener.Addr().(*net.TCPAddr)
	w.stop()
	other := selfSigned(t)
	for name, secure := range map[string]bool{"that knows no TLS": false, "with a certificate of its own": true} {
		t.Run(name, func(t *testing.T) {
			l, err := net.ListenTCP("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var mu sync.Mutex
			var heard bytes.Buffer
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer conn.Close()
						tee := io.TeeReader(conn, writerFunc(func(b []byte) { mu.Lock(); heard.Write(b); mu.Unlock() }))
						answer(t, tee)
						io.WriteString(conn, "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00")
						if secure {
							c := tls.Server(readWriter{conn, tee}, &tls.Config{Certificates: []tls.Certificate{other}})
							if c.Handshake() != nil {
								return
							}
							tee = io.TeeReader(c, writerFunc(func(b []byte) { mu.Lock(); heard.Write(b); mu.Unlock() }))
							answer(t, tee)
							io.WriteString(c, "\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x00\x04\x00\x04\x00")
							return
						}
						io.WriteString(conn, "\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x00\x04\x00\x04\x00")
						io.Copy(io.Discard, tee)
					}()
				}
			}()
			token := w.token(alice, nil)
			if _, err := w.attempt(context.Background(), "app", token); sqlState(err) != "28000" {
				t.Errorf("log-in: %v, want 28000", err)
			}
			l.Close()
			mu.Lock()
			defer mu.Unlock()
			if heard.Len() == 0 {
				t.Error("the server did not ask it: the test saw nothing")
			}
			for i := 0; i+16 <= len(token); i += 16 {
				if bytes.Contains(heard.Bytes(), []byte(token[i:i+16])) {
					t.Fatal("it heard a part of the token")
				}
			}
		})
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

// A readWriter is a connection whose reads are another's.
type readWriter struct {
	net.Conn
	r io.Reader
}

func (c readWriter) Read(b []byte) (int, error) { return c.r.Read(b) }

// selfSigned is a certificate for 127.0.0.1 of an authority that the server does not know.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	identity, err := cluster.NewIdentity("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(identity.Certificate, identity.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestNoLogHasAToken(t *testing.T) {
	w := newWorld(t, postgrestest.WithSetting("log_min_messages", "debug5"))
	w.mapped(alice, "app")
	tokens := []string{w.token(alice, nil), w.token(bob, nil), w.token(alice, map[string]any{"exp": 1}), w.token(alice, map[string]any{"aud": "x"})}
	for _, token := range tokens {
		w.attempt(t.Context(), "app", token)
	}
	w.stop() // the audit log is whole
	record, err := os.ReadFile(filepath.Join(w.config.Dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := os.ReadFile(filepath.Join(w.config.Dir, "sessions"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(record), `"principal":"`+string(alice)+`"`) {
		t.Errorf("the audit log does not name who logged in:\n%s", record)
	}
	for name, log := range map[string]string{"PostgreSQL's log": w.pg.Log(), "the gateway's log": w.log.String(), "the audit log": string(record), "the record of sessions": string(sessions)} {
		if len(log) == 0 {
			t.Errorf("%s is empty", name)
		}
		for _, token := range tokens {
			parts := strings.Split(token, ".")
			for _, part := range []string{parts[0][:17], parts[1][:17], parts[2][:17], parts[2][len(parts[2])-17:]} {
				if strings.Contains(log, part) {
					t.Errorf("%s has a part of a token", name)
				}
			}
		}
	}
}

func TestATokenForOneServerIsWorthlessAtAnother(t *testing.T) {
	w := newWorld(t)
	w.mapped(alice, "app")
	billing := "https://billing.postgres.example.org"
	if _, err := w.logIn("app", w.token(alice, map[string]any{"aud": billing})); sqlState(err) != "28000" {
		t.Errorf("a token for another server: %v, want 28000", err)
	}
	// The audience moves away, as when the server's switch for Azure's is turned off.
	w.put("server", client.DatabaseServer{Resource: orders, Audiences: []string{billing}})
	w.until("the token's refusal once its audience is no longer taken", func() bool {
		_, err := w.attempt(t.Context(), "app", w.token(alice, nil))
		return err != nil
	})
	w.put("server", nil)
	w.until("everybody's refusal once the server is gone", func() bool {
		_, err := w.attempt(t.Context(), "app", w.token(alice, map[string]any{"aud": billing}))
		return err != nil
	})
	w.pg.Await("LDAP diagnostics: the control plane knows no such server")
}
