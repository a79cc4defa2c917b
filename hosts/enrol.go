package hosts

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"innate"
	"innate/audit"
	"innate/hosts/attest"
	"innate/rest"
	"innate/store"
)

const (
	challengeLife = 5 * time.Minute
	// At most so many challenges a second, after a burst: each is sealed under one
	// key, and 2³² of them are too many for it. A fleet joins once.
	challengeRate  = 50
	challengeBurst = 500
)

// A Sealer keeps what a challenge is about while the host holds it: all servers
// of a platform have the same one, so that the answer may come to any of them.
type Sealer interface {
	Seal(plain, place []byte) []byte
	Open(sealed, place []byte) ([]byte, error)
}

// challengePlace is the associated data of a sealed enrolment.
var challengePlace = []byte("hosts/challenge")

// An enrolment is what a challenge is about.
type enrolment struct {
	Issued    time.Time `json:"issued"`
	EK        string    `json:"ek"`                  // hash of the endorsement key
	Certified bool      `json:"certified,omitempty"` // by a vendor that the operator believes
	Ticket    string    `json:"ticket,omitempty"`    // row of the one-time token, if one was shown
	AK        []byte    `json:"ak"`                  // attestation key, TPMT_PUBLIC
	Secret    []byte    `json:"secret"`
	Nonce     []byte    `json:"nonce"`
}

// A Challenge is what a host with a TPM has to answer to join.
type Challenge struct {
	Challenge  []byte `json:"challenge"`  // to be sent back as it is
	Credential []byte `json:"credential"` // TPMS_ID_OBJECT: a secret for this endorsement key and this attestation key
	Encrypted  []byte `json:"encrypted"`  // its TPM2B_ENCRYPTED_SECRET's buffer
	Nonce      []byte `json:"nonce"`      // qualifying data of the statement
}

// challenge begins the joining of a host with a TPM.
func (h *Hosts) challenge(r *http.Request) (Challenge, error) {
	var q struct {
		Token       string `json:"token"`
		EK          []byte `json:"ek"`
		Certificate []byte `json:"certificate"`
		AK          []byte `json:"ak"`
	}
	if err := rest.Read(r, &q); err != nil {
		return Challenge{}, err
	}
	ek, err := attest.ParseEndorsement(q.EK)
	if err != nil {
		return Challenge{}, badAttestation(http.StatusBadRequest, err)
	}
	e := enrolment{Issued: h.config.Now(), EK: ek.Hash(), AK: q.AK, Secret: make([]byte, 32), Nonce: make([]byte, 32)}
	rand.Read(e.Secret) // never fails, see crypto/rand
	rand.Read(e.Nonce)
	ak, err := attest.ParseAttestationKey(q.AK)
	if err != nil {
		return Challenge{}, h.refused(r, e.event(r, ""), badAttestation(http.StatusForbidden, err))
	}
	if q.Token != "" {
		e.Ticket = ticketID(q.Token)
	}
	untrusted := h.certified(ek, q.Certificate)
	e.Certified = untrusted == nil
	if machine, err := h.mayEnrol(r.Context(), e); err != nil {
		var no *rest.Error
		if errors.As(err, &no) && no.Code == codeUnknownTPM && untrusted != nil && q.Certificate != nil {
			no.Message += "; its vendor's word is not enough: " + untrusted.Error()
		}
		return Challenge{}, h.refused(r, e.event(r, machine), err)
	}
	if !h.challenges.AllowN(h.config.Now(), 1) {
		return Challenge{}, rest.Errorf(http.StatusTooManyRequests, "TooManyRequests", "many hosts are joining: try again in a few seconds")
	}
	c := Challenge{Nonce: e.Nonce}
	if c.Credential, c.Encrypted, err = ek.Challenge(ak.Name(), e.Secret); err != nil {
		return Challenge{}, err
	}
	plain, err := json.Marshal(e)
	if err != nil {
		return Challenge{}, err
	}
	c.Challenge = h.config.Challenges.Seal(plain, challengePlace)
	return c, nil
}

// certified says why a vendor's certificate (DER) is not to be believed, or nil.
func (h *Hosts) certified(ek attest.Endorsement, der []byte) error {
	switch {
	case der == nil:
		return errors.New("there is none")
	case h.config.TPMRoots == nil:
		return errors.New("this server believes no vendor")
	}
	return ek.CertifiedBy(der, h.config.TPMRoots, h.config.Now())
}

// mayEnrol looks whether there is any use in a challenge, and for which machine.
func (h *Hosts) mayEnrol(ctx context.Context, e enrolment) (machine innate.ResourceID, err error) {
	err = h.look(ctx, func(r store.Reader) error {
		m, t, err := h.admitTPM(r, e)
		machine = cmp.Or(m.Machine, t.Machine)
		return err
	})
	return machine, err
}

// event is the beginning of what is recorded of the joining.
func (e enrolment) event(r *http.Request, machine innate.ResourceID) audit.Event {
	ev := byHost(r, machine, "join-host")
	ev.Detail = map[string]string{"ek": e.EK}
	return ev
}

// admitTPM returns the row of the machine that a TPM may join as, and the
// one-time token that it brings, if it does. Whether the TPM has proved itself
// is not looked at.
func (h *Hosts) admitTPM(r store.Reader, e enrolment) (m member, t ticket, err error) {
	if e.Ticket != "" {
		if m, t, err = h.admit(r, e.Ticket); err != nil {
			return m, t, err
		}
	}
	is, known, err := endorsements.Get(r, e.EK)
	switch {
	case err != nil:
		return m, t, err
	case known && e.Ticket == "":
		if m, _, err = members.Get(r, is.Machine.Key()); err == nil && !m.Evicted.IsZero() {
			err = badTPM("HostEvicted", "this host was evicted at %s: 'innate host allow %s --ek %s' lets it join again",
				m.Evicted.UTC().Format(time.RFC3339), m.Machine.Name(), e.EK)
		}
		return m, t, err
	case known && !is.Machine.Equal(t.Machine):
		return m, t, badTPM("TPMIsAnotherMachine", "this TPM is %s, and the join token is for %s: 'innate host disallow' the one first", is.Machine.Name(), t.Machine.Name())
	case known:
		return m, t, nil
	case m.EK != "":
		return m, t, badTPM("MachineHasTPM", "%s is another TPM: 'innate host disallow %s' first", t.Machine.Name(), t.Machine.Name())
	case !e.Certified || e.Ticket == "":
		return m, t, badTPM(codeUnknownTPM, "this TPM may not join: 'innate host allow NAME --ek %s' lets it", e.EK)
	}
	return m, t, nil
}

// joinTPM lets a host in that has answered its challenge: the certificate is for
// a key that is in its TPM. What the machine held before ends, as when it joins
// by a one-time token.
func (h *Hosts) joinTPM(r *http.Request) (Grant, error) {
	var q struct {
		Challenge []byte `json:"challenge"`
		Secret    []byte `json:"secret"`
		Key       []byte `json:"key"`
		Attest    []byte `json:"attest"`
		Signature []byte `json:"signature"`
	}
	if err := rest.Read(r, &q); err != nil {
		return Grant{}, err
	}
	e, err := h.open(q.Challenge)
	if err != nil {
		return Grant{}, h.refused(r, e.event(r, ""), err)
	}
	key, err := e.proved(q.Secret, q.Key, attest.Statement{Attest: q.Attest, Signature: q.Signature})
	if err != nil {
		return Grant{}, h.refused(r, e.event(r, ""), badAttestation(http.StatusForbidden, err))
	}
	var g Grant
	var machine innate.ResourceID
	err = h.insist(r.Context(), func(tx store.Tx) error {
		m, t, err := h.admitTPM(tx, e)
		if machine = cmp.Or(m.Machine, t.Machine); err != nil {
			return err
		}
		if !e.Issued.After(m.Joined) {
			return badChallenge("it was made before this machine joined last, by it or by another")
		}
		var cert *x509.Certificate
		if g, cert, err = h.grant(m.Machine, key.Public()); err != nil {
			return err
		}
		if e.Ticket != "" {
			t.Used = h.config.Now()
			if err := tickets.Put(tx, e.Ticket, t); err != nil {
				return err
			}
		}
		if err := bind(tx, &m, e.EK); err != nil {
			return err
		}
		// Where another server's clock is ahead, the challenge is from the future:
		// it is used up all the same.
		return h.enter(tx, e.event(r, machine), m, later(h.config.Now(), e.Issued), remember(cert, inTPM))
	})
	if err != nil {
		return Grant{}, h.refused(r, e.event(r, machine), err)
	}
	return g, nil
}

// open reads a challenge that came back.
func (h *Hosts) open(sealed []byte) (e enrolment, err error) {
	plain, err := h.config.Challenges.Open(sealed, challengePlace)
	if err != nil {
		return e, badChallenge("it is not one of ours")
	}
	if err := json.Unmarshal(plain, &e); err != nil {
		return e, err
	}
	if h.config.Now().After(e.Issued.Add(challengeLife)) {
		return e, badChallenge("it ended at " + e.Issued.Add(challengeLife).UTC().Format(time.RFC3339))
	}
	return e, nil
}

// proved returns the key that the answer to a challenge proves to be in the TPM
// that was challenged.
func (e enrolment) proved(secret, area []byte, s attest.Statement) (attest.Key, error) {
	if subtle.ConstantTimeCompare(secret, e.Secret) != 1 {
		return attest.Key{}, errors.New("the secret is not the challenge's: only the TPM of this endorsement key reads it, while it holds this attestation key")
	}
	ak, err := attest.ParseAttestationKey(e.AK)
	if err != nil {
		return attest.Key{}, err
	}
	key, err := attest.ParseHostKey(area)
	if err != nil {
		return attest.Key{}, err
	}
	return key, s.Certifies(key, ak, e.Nonce)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

const codeUnknownTPM = "UnknownTPM"

func badTPM(code, format string, args ...any) error {
	return rest.Errorf(http.StatusForbidden, code, format, args...)
}

func badAttestation(status int, err error) error {
	return rest.Errorf(status, "InvalidAttestation", "the TPM's proof is not good: %v", err)
}

func badChallenge(why string) error {
	return rest.Errorf(http.StatusForbidden, "InvalidChallenge", "this challenge cannot be answered: %s; join again", why)
}
