package hosts_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/agent/tpm"
	"innate/agent/tpm/tpmtest"
	"innate/ca"
	"innate/hosts"
)

func chip(t *testing.T) *tpm.Device {
	t.Helper()
	d, err := tpm.Find(tpmtest.Start(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func ekOf(t *testing.T, d *tpm.Device) string {
	t.Helper()
	e, err := d.Endorsement()
	if err != nil {
		t.Fatal(err)
	}
	return e.Hash()
}

// allow makes a TPM a machine's, and is the error code of a refusal or empty.
func (w *world) allow(machine innate.ResourceID, ek string) (code string) {
	w.t.Helper()
	return w.act(machine, "allow", map[string]string{"ek": ek})
}

func (w *world) act(machine innate.ResourceID, action string, in any) (code string) {
	w.t.Helper()
	var e struct{ Error struct{ Code string } }
	w.arm(w.admin, http.MethodPost, string(machine)+"/"+action, in, &e)
	return e.Error.Code
}

// An enrolment is a host with a TPM on its way in. A test changes what it sends.
type enrolment struct {
	w     *world
	chip  *tpm.Device
	offer tpm.Offer
	token string
	made  hosts.Challenge
	proof tpm.Proof
}

func (w *world) enrolment(d *tpm.Device, token string) *enrolment {
	w.t.Helper()
	offer, err := d.Offer()
	w.must(err)
	return &enrolment{w: w, chip: d, offer: offer, token: token}
}

// ask gets a challenge.
func (e *enrolment) ask() answer {
	e.w.t.Helper()
	return (&host{w: e.w}).post("/v1/tpm/challenge", map[string]any{
		"ek": e.offer.Key, "certificate": e.offer.Certificate, "ak": e.offer.Attestation, "token": e.token,
	}, &e.made)
}

// prove answers it, as far as the TPM can.
func (e *enrolment) prove() error {
	p, err := e.chip.Prove(e.offer, tpm.Challenge{Credential: e.made.Credential, Encrypted: e.made.Encrypted, Nonce: e.made.Nonce})
	e.proof = p
	return err
}

// join sends the answer; the host it returns has no certificate if it was refused.
func (e *enrolment) join() (*host, answer) {
	e.w.t.Helper()
	h := &host{w: e.w}
	var g hosts.Grant
	a := h.post("/v1/tpm/join", map[string]any{
		"challenge": e.made.Challenge, "secret": e.proof.Secret, "key": e.proof.Area, "attest": e.proof.Attest, "signature": e.proof.Signature,
	}, &g)
	if a.status == http.StatusOK {
		h.cert = &tls.Certificate{Certificate: [][]byte{g.Certificate}, PrivateKey: e.proof.Key}
	}
	return h, a
}

// enrol does it all.
func (w *world) enrol(d *tpm.Device, token string) (*host, answer) {
	w.t.Helper()
	e := w.enrolment(d, token)
	if a := e.ask(); a.status != http.StatusOK {
		return &host{w: w}, a
	}
	w.must(e.prove())
	return e.join()
}

func (w *world) enrolled(d *tpm.Device) *host {
	w.t.Helper()
	h, a := w.enrol(d, "")
	if h.cert == nil {
		w.t.Fatalf("joining by TPM: %+v", a)
	}
	return h
}

// renewByTPM gets the next certificates of a host that joined by its TPM: that
// of the key in it, and one for daily use.
func (h *host) renewByTPM() (next, daily *host, a answer) {
	h.w.t.Helper()
	key, csr := request(h.w.t)
	var g hosts.Grant
	a = h.post("/v1/renew", map[string]any{"csr": csr}, &g)
	pair := func(der []byte, key crypto.PrivateKey) *host {
		return &host{h.w, &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
	}
	return pair(g.Certificate, h.cert.PrivateKey), pair(g.Daily, key), a
}

func TestATPMThatIsAllowedJoinsWithoutAToken(t *testing.T) {
	d, w := chip(t), newWorld(t)
	ek := ekOf(t, d)
	var allowed struct{ Join, EK string }
	if status := w.arm(w.admin, http.MethodPost, string(node1)+"/allow", map[string]string{"ek": "sha256:" + strings.ToUpper(ek)}, &allowed); status != http.StatusOK {
		t.Fatalf("allowing it: %d", status)
	}
	if allowed.EK != ek || strings.Contains(allowed.Join, "@") || !strings.HasPrefix(allowed.Join, "innate+join://192.0.2.1:8443/?ca=sha256:") {
		t.Errorf("the answer is %+v: want a join string without a token", allowed)
	}
	w.vm(node1)
	h := w.enrolled(d)
	cert, err := x509.ParseCertificate(h.cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if machine, err := ca.ParseHostURI(cert); err != nil || !machine.Equal(node1) {
		t.Errorf("the certificate names %v, %v", machine, err)
	}
	if _, a := h.certify(web, w.own(web)); a.status != http.StatusOK {
		t.Errorf("an identity's certificate: %+v", a)
	}
	var st hosts.Status
	w.arm(w.admin, http.MethodPost, string(node1)+"/status", nil, &st)
	if !st.Joined || !st.ByTPM || st.EK != ek {
		t.Errorf("its status is %+v", st)
	}
}

func TestATPMThatDoesNotProveItselfIsRefused(t *testing.T) {
	mine, other := chip(t), chip(t)
	ek, others := ekOf(t, mine), ekOf(t, other)
	for _, c := range []struct {
		name string
		play func(w *world, e *enrolment) answer // up to the refusal
		code string
		text string
	}{
		{"nobody allowed it", func(w *world, e *enrolment) answer {
			return w.enrolment(other, "").ask()
		}, "UnknownTPM", "innate host allow NAME --ek " + others},
		{"an unrestricted attestation key: it would sign what somebody made up", func(w *world, e *enrolment) answer {
			w.enrolled(mine)
			e.ask()
			w.must(e.prove())
			e.offer.Attestation = e.proof.Area // of a key that signs anything
			return e.ask()
		}, "InvalidAttestation", "not restricted"},
		{"another's endorsement key: the secret is not for this TPM", func(w *world, e *enrolment) answer {
			forged := w.enrolment(other, "")
			forged.offer.Endorsement = e.offer.Endorsement
			forged.ask()
			if forged.prove() == nil {
				t.Error("another TPM read the secret")
			}
			forged.proof.Secret = make([]byte, 32)
			_, a := forged.join()
			return a
		}, "InvalidAttestation", "only the TPM of this endorsement key"},
		{"wrong attestation key: the statement is another's of the same TPM", func(w *world, e *enrolment) answer {
			second := w.enrolment(mine, "")
			e.ask()
			w.must(e.prove())
			second.ask()
			second.made.Nonce = e.made.Nonce
			w.must(second.prove())
			e.proof.Area, e.proof.Attest, e.proof.Signature = second.proof.Area, second.proof.Attest, second.proof.Signature
			_, a := e.join()
			return a
		}, "InvalidAttestation", "not signed by the attestation key"},
		{"wrong nonce: the statement is an older one", func(w *world, e *enrolment) answer {
			e.ask()
			e.made.Nonce = []byte("of yesterday")
			w.must(e.prove())
			_, a := e.join()
			return a
		}, "InvalidAttestation", "nonce"},
		{"the statement is about another key than the one to be certified", func(w *world, e *enrolment) answer {
			e.ask()
			w.must(e.prove())
			elsewhere := w.enrolment(other, "")
			w.allow(node2, others)
			elsewhere.ask()
			w.must(elsewhere.prove())
			e.proof.Area = elsewhere.proof.Area
			_, a := e.join()
			return a
		}, "InvalidAttestation", "about another key"},
		{"the key is restricted: it is the attestation key itself", func(w *world, e *enrolment) answer {
			e.ask()
			w.must(e.prove())
			e.proof.Area = e.offer.Attestation
			_, a := e.join()
			return a
		}, "InvalidAttestation", "host key: it is restricted"},
		{"the challenge was used", func(w *world, e *enrolment) answer {
			e.ask()
			w.must(e.prove())
			if _, a := e.join(); a.status != http.StatusOK {
				t.Errorf("the first time: %+v", a)
			}
			_, a := e.join()
			return a
		}, "InvalidChallenge", "joined last"},
		{"the challenge is late", func(w *world, e *enrolment) answer {
			e.ask()
			w.must(e.prove())
			w.advance(6 * time.Minute)
			_, a := e.join()
			return a
		}, "InvalidChallenge", "ended at"},
		{"the challenge was changed", func(w *world, e *enrolment) answer {
			e.ask()
			w.must(e.prove())
			e.made.Challenge[20] ^= 1
			_, a := e.join()
			return a
		}, "InvalidChallenge", "not one of ours"},
		{"it was disallowed meanwhile", func(w *world, e *enrolment) answer {
			e.ask()
			w.must(e.prove())
			w.act(node1, "disallow", nil)
			_, a := e.join()
			return a
		}, "UnknownTPM", "innate host allow"},
		{"it was evicted", func(w *world, e *enrolment) answer {
			w.enrolled(mine)
			w.act(node1, "evict", nil)
			return e.ask()
		}, "HostEvicted", "innate host allow"},
		{"its machine was deleted", func(w *world, e *enrolment) answer {
			w.delete(node1)
			return e.ask()
		}, "UnknownTPM", "innate host allow"},
		{"it brings another machine's token", func(w *world, e *enrolment) answer {
			e.token = w.ticket(node2).User.Username()
			return e.ask()
		}, "TPMIsAnotherMachine", "innate host disallow"},
		{"it brings a token for a machine that is another TPM", func(w *world, e *enrolment) answer {
			return w.enrolment(other, w.ticket(node1).User.Username()).ask()
		}, "MachineHasTPM", "innate host disallow"},
		{"it brings a token that was used", func(w *world, e *enrolment) answer {
			token := w.ticket(node1).User.Username()
			if _, a := w.enrol(mine, token); a.status != http.StatusOK {
				t.Errorf("the first time: %+v", a)
			}
			e.token = token
			return e.ask()
		}, "InvalidJoinToken", "good once"},
		{"it comes as a host without a TPM", func(w *world, e *enrolment) answer {
			_, a := w.join(w.ticket(node1).User.Username())
			return a
		}, "MachineHasTPM", "--tpm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.allow(node1, ek)
			a := c.play(w, w.enrolment(mine, ""))
			if a.status != http.StatusForbidden || a.code != c.code || !strings.Contains(a.text, c.text) {
				t.Errorf("got %+v, want 403 %s with %q", a, c.code, c.text)
			}
			if d := cmp.Diff([]string{c.code}, w.refusals("join-host")); d != "" {
				t.Errorf("recorded: %s", d)
			}
		})
	}
}

// A vendor makes TPMs.
type vendor struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newVendor(t *testing.T) vendor {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vendor"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return vendor{key, c}
}

// chip makes a TPM with the vendor's certificate in it.
func (v vendor) chip(t *testing.T) *tpm.Device {
	t.Helper()
	d := chip(t)
	e, err := d.Endorsement()
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.ParsePKIXPublicKey(e.Key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: v.cert.NotBefore, NotAfter: v.cert.NotAfter,
	}, v.cert, public, v.key)
	if err != nil {
		t.Fatal(err)
	}
	tpmtest.Certify(t, d.Path(), der)
	return d
}

func TestATPMOfAVendorThatIsBelievedJoinsByAToken(t *testing.T) {
	believed, unknown := newVendor(t), newVendor(t)
	w := newWorld(t, func(c *hosts.Config) {
		c.TPMRoots = x509.NewCertPool()
		c.TPMRoots.AddCert(believed.cert)
	})
	one, two := believed.chip(t), believed.chip(t)
	ticket := func(m innate.ResourceID) string { return w.ticket(m).User.Username() }
	refused := func(what string, a answer, code, text string) {
		t.Helper()
		if a.status != http.StatusForbidden || a.code != code || !strings.Contains(a.text, text) {
			t.Errorf("%s: got %+v, want 403 %s with %q", what, a, code, text)
		}
	}
	_, a := w.enrol(one, "")
	refused("without a token nobody knows which machine it is", a, "UnknownTPM", "innate host allow")
	_, a = w.enrol(unknown.chip(t), ticket(node1))
	refused("of another vendor", a, "UnknownTPM", "unknown authority")
	_, a = w.enrol(chip(t), ticket(node1))
	refused("of no vendor", a, "UnknownTPM", "innate host allow")

	token := ticket(node1)
	if _, a := w.enrol(one, token); a.status != http.StatusOK {
		t.Fatalf("of a vendor that is believed: %+v", a)
	}
	_, a = w.enrol(one, token)
	refused("with the token again", a, "InvalidJoinToken", "good once")
	_, a = w.enrol(two, ticket(node1))
	refused("another TPM as the same machine", a, "MachineHasTPM", "innate host disallow")
	_, a = w.enrol(one, ticket(node2))
	refused("the same TPM as another machine", a, "TPMIsAnotherMachine", "innate host disallow")
	if _, a := w.enrol(one, ""); a.status != http.StatusOK {
		t.Errorf("the same TPM as the machine that it is: %+v", a)
	}
	w.act(node1, "evict", nil)
	_, a = w.enrol(one, "")
	refused("evicted", a, "HostEvicted", "innate host allow")
	if _, a := w.enrol(one, ticket(node1)); a.status != http.StatusOK {
		t.Errorf("evicted, with a newer token: %+v", a)
	}
}

func TestAChallengeIsAnsweredAtAnyServerOnce(t *testing.T) {
	d, w := chip(t), newWorld(t)
	w.allow(node1, ekOf(t, d))
	e := w.enrolment(d, "")
	if a := e.ask(); a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	w.must(e.prove())
	first := w.server
	other, err := hosts.New(w.hosts)
	w.must(err)
	w.serve(other)
	if _, a := e.join(); a.status != http.StatusOK {
		t.Errorf("at another server: %+v", a)
	}
	w.server = first
	if _, a := e.join(); a.code != "InvalidChallenge" {
		t.Errorf("at the first one, then: got %+v, want that it is used up", a)
	}
}

func TestChallengesAreBounded(t *testing.T) {
	d := chip(t)
	now := time.Now()
	w := newWorld(t, func(c *hosts.Config) { c.Now = func() time.Time { return now } })
	w.allow(node1, ekOf(t, d))
	e := w.enrolment(d, "")
	for n := range 500 {
		if a := e.ask(); a.status != http.StatusOK {
			t.Fatalf("challenge %d: %+v", n, a)
		}
	}
	if a := e.ask(); a.status != http.StatusTooManyRequests {
		t.Errorf("one more in the same moment: got %+v, want 429", a)
	}
	now = now.Add(time.Second)
	if a := e.ask(); a.status != http.StatusOK {
		t.Errorf("a second later: %+v", a)
	}
}

func TestTheKeyInTheTPMRenewsAndTheOneInMemoryDoesTheDailyWork(t *testing.T) {
	d, w := chip(t), newWorld(t)
	w.vm(node1)
	w.allow(node1, ekOf(t, d))
	first := w.enrolled(d)
	second, daily, a := first.renewByTPM()
	if a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	if _, a := daily.feed(); a.status != http.StatusOK {
		t.Errorf("the daily key's feed: %+v", a)
	}
	if _, a := daily.certify(web, w.own(web)); a.status != http.StatusOK {
		t.Errorf("an identity's certificate for it: %+v", a)
	}
	if _, a := daily.renew(); a.status != http.StatusUnauthorized || !strings.Contains(a.text, "in the TPM renews") {
		t.Errorf("renewal by the key in memory: got %+v, want 401: whoever reads it out would have it for ever", a)
	}
	if !second.cert.PrivateKey.(crypto.Signer).Public().(*ecdsa.PublicKey).Equal(leaf(t, second).PublicKey) {
		t.Error("the next certificate is not for the key in the TPM")
	}

	// The answer to a renewal is lost: the host asks again, and what it had is good until then.
	if _, _, a := first.renewByTPM(); a.status != http.StatusOK {
		t.Fatalf("the renewal again: %+v", a)
	}
	if _, a := daily.certify(web, w.own(web)); a.status != http.StatusOK {
		t.Errorf("the daily key before the last renewal: %+v", a)
	}
	if _, _, a := second.renewByTPM(); a.status != http.StatusUnauthorized {
		t.Errorf("the lost certificate: got %+v, want 401", a)
	}
}

func leaf(t *testing.T, h *host) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(h.cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestACertificateRenewsItselfAsLongAsItMayWhereverItsKeyIs(t *testing.T) {
	d := chip(t)
	ek := ekOf(t, d)
	for _, c := range []struct {
		later    time.Duration
		daily    int // status of the feed
		renewals int
	}{
		{23 * time.Hour, http.StatusOK, http.StatusOK},
		{25 * time.Hour, http.StatusUnauthorized, http.StatusOK}, // ended, and heals by itself
		{24*time.Hour + 30*24*time.Hour - time.Minute, http.StatusUnauthorized, http.StatusOK},
		{31*24*time.Hour + time.Minute, http.StatusUnauthorized, http.StatusUnauthorized}, // 30 days after its end
	} {
		w := newWorld(t)
		w.allow(node2, ek)
		disk, inTPM := w.joined(node1), w.enrolled(d)
		w.advance(c.later)
		for name, h := range map[string]*host{"on disk": disk, "in the TPM": inTPM} {
			if _, a := h.feed(); a.status != c.daily {
				t.Errorf("after %s, the feed with a key %s: got %+v, want %d", c.later, name, a, c.daily)
			}
			if _, a := h.renew(); a.status != c.renewals {
				t.Errorf("after %s, the renewal with a key %s: got %+v, want %d", c.later, name, a, c.renewals)
			}
		}
	}
}

func TestATPMIsOneMachineAndAMachineOneTPM(t *testing.T) {
	d, w := chip(t), newWorld(t)
	ek, other := ekOf(t, d), strings.Repeat("ab", 32)
	for _, c := range []struct {
		what string
		code string
		want string
	}{
		{"a hash that is none", w.allow(node1, "sha256:xyz"), "InvalidEndorsementKeyHash"},
		{"a shorter hash", w.allow(node1, "abcd"), "InvalidEndorsementKeyHash"},
		{"a machine that is no TPM, disallowed", w.act(node1, "disallow", nil), "MachineHasNoTPM"},
		{"allowed", w.allow(node1, ek), ""},
		{"allowed again", w.allow(node1, ek), ""},
		{"the same TPM for another machine", w.allow(node2, ek), "TPMIsAnotherMachine"},
		{"another TPM for the same machine", w.allow(node1, other), "MachineHasTPM"},
	} {
		if c.code != c.want {
			t.Errorf("%s: got %q, want %q", c.what, c.code, c.want)
		}
	}
	h := w.enrolled(d)
	w.act(node1, "disallow", nil)
	if _, a := h.feed(); a.status != http.StatusUnauthorized {
		t.Errorf("a host that joined by its TPM, parted from it: got %+v, want 401", a)
	}
	if code := w.allow(node2, ek); code != "" {
		t.Errorf("another machine for that TPM now: %s", code)
	}
	w.enrolled(d)
	w.delete(node2)
	if code := w.allow(node1, ek); code != "" {
		t.Errorf("a machine for the TPM of a deleted one: %s", code)
	}
}

func TestAHostMovesToItsTPMWithoutAnInterruption(t *testing.T) {
	d, w := chip(t), newWorld(t)
	old := w.joined(node1)
	w.allow(node1, ekOf(t, d))
	old, a := old.renew()
	if a.status != http.StatusOK {
		t.Errorf("allowed, and not yet joined by its TPM, it renews as before: %+v", a)
	}
	w.enrolled(d)
	if _, a := old.renew(); a.status != http.StatusUnauthorized {
		t.Errorf("the key on its disk, after it joined by its TPM: got %+v, want 401", a)
	}
}

func TestEvictionEndsBothKeysOfAHostWithATPM(t *testing.T) {
	d, w := chip(t), newWorld(t)
	w.allow(node1, ekOf(t, d))
	h := w.enrolled(d)
	next, daily, a := h.renewByTPM()
	if a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	r, _ := daily.feed()
	w.act(node1, "evict", nil)
	r.ends()
	_, _, renewed := next.renewByTPM()
	_, heard := daily.feed()
	for what, a := range map[string]answer{"renewal": renewed, "feed": heard} {
		if a.status != http.StatusUnauthorized || !strings.Contains(a.text, "evicted") {
			t.Errorf("%s: got %+v, want 401", what, a)
		}
	}
	w.allow(node1, ekOf(t, d))
	w.enrolled(d)
}
