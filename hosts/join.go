package hosts

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"time"

	"innate"
	"innate/audit"
	"innate/ca"
	"innate/resources"
	"innate/rest"
	"innate/store"
)

// joinAction is the right to make a join token for a machine.
const joinAction = "Microsoft.HybridCompute/machines/join/action"

// A ticket is a join token as it is remembered: the row's id is the hexadecimal
// SHA-256 of the token, which is shown once and stored nowhere.
type ticket struct {
	Machine innate.ResourceID `json:"machine"`
	Expires time.Time         `json:"expires"`
	Used    time.Time         `json:"used,omitzero"`
}

const tickets store.Table[ticket] = "hosts/tickets/"

func ticketID(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// issueTicket answers POST {machine}/join with a join string: a one-time token
// for that machine, where to take it, and by which authority to recognise us:
//
//	innate+join://TOKEN@HOST:PORT/?ca=sha256:HEX&name=TLS-SERVER-NAME
//
// It replaces the token that the machine had before.
func (h *Hosts) issueTicket(w http.ResponseWriter, r *http.Request, who innate.Principal, machine *resources.Resource) {
	if err := h.config.Require(r.Context(), who, joinAction, machine.ID.Scope()); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	var random [32]byte
	rand.Read(random[:]) // never fails, see crypto/rand
	token := base64.RawURLEncoding.EncodeToString(random[:])
	t := ticket{Machine: machine.ID, Expires: h.config.Now().Add(ticketLife)}
	_, err := h.config.DB.Update(r.Context(), func(tx store.Tx) error {
		m, _, err := members.Get(tx, machine.ID.Key())
		if err != nil {
			return err
		}
		if m.Ticket != "" {
			tickets.Delete(tx, m.Ticket)
		}
		m.Machine, m.Ticket = machine.ID, ticketID(token)
		if err := tickets.Put(tx, m.Ticket, t); err != nil {
			return err
		}
		if err := members.Put(tx, machine.ID.Key(), m); err != nil {
			return err
		}
		return h.leave(tx, by(r, who, joinAction, machine.ID), map[string]string{"expires": t.Expires.UTC().Format(time.RFC3339)})
	})
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	rest.Write(w, http.StatusOK, map[string]any{"join": h.joinString(url.User(token)), "expires": t.Expires.UTC()})
}

// joinString leads a host here. It has no token for a TPM that is allowed.
func (h *Hosts) joinString(token *url.Userinfo) string {
	u := url.URL{
		Scheme: "innate+join", User: token, Host: h.config.Address, Path: "/",
		RawQuery: "ca=sha256:" + ca.Thumbprint(h.config.CA.Certificate(ca.Servers).Raw) + "&name=" + url.QueryEscape(h.name),
	}
	return u.String()
}

// join lets a host in by a one-time token. What the machine held before ends in
// the same transaction: its certificates and those of the identities on it.
func (h *Hosts) join(r *http.Request) (Grant, error) {
	var q struct {
		Token string `json:"token"`
		CSR   []byte `json:"csr"`
	}
	if err := rest.Read(r, &q); err != nil {
		return Grant{}, err
	}
	pub, err := publicKey(q.CSR)
	if err != nil {
		return Grant{}, err
	}
	var g Grant
	var machine innate.ResourceID
	err = h.insist(r.Context(), func(tx store.Tx) error {
		m, t, err := h.admit(tx, ticketID(q.Token))
		if machine = t.Machine; err != nil {
			return err
		}
		if m.EK != "" {
			return badTPM("MachineHasTPM", "%s is a machine with a TPM: join with --tpm there, or 'innate host disallow %s' first", machine.Name(), machine.Name())
		}
		var cert *x509.Certificate
		if g, cert, err = h.grant(machine, pub); err != nil {
			return err
		}
		t.Used = h.config.Now()
		if err := tickets.Put(tx, m.Ticket, t); err != nil {
			return err
		}
		return h.enter(tx, byHost(r, machine, "join-host"), m, t.Used, remember(cert, onDisk))
	})
	if err != nil {
		return Grant{}, h.refused(r, byHost(r, machine, "join-host"), err)
	}
	return g, nil
}

// enter makes a machine hold a certificate and nothing else: what it held before
// ends in the same transaction.
func (h *Hosts) enter(tx store.Tx, ev audit.Event, m member, at time.Time, c certificate) error {
	m.Certificates, m.Joined, m.Evicted = []certificate{c}, at, time.Time{}
	if err := members.Put(tx, m.Machine.Key(), m); err != nil {
		return err
	}
	if err := h.dropAllKeys(tx, m.Machine); err != nil {
		return err
	}
	all, err := placedAll(tx, m.Machine)
	if err != nil {
		return err
	}
	for _, p := range all {
		if err := h.tell(tx, m.Machine, p); err != nil { // of places that whoever had the machine before does not know
			return err
		}
	}
	detail := map[string]string{"thumbprint": c.Thumbprint}
	if m.EK != "" {
		detail["ek"] = m.EK
	}
	return h.leave(tx, ev, detail)
}

// admit returns the ticket with that id and its machine's row, or says why it opens nothing.
func (h *Hosts) admit(r store.Reader, id string) (m member, t ticket, err error) {
	t, ok, err := tickets.Get(r, id)
	switch {
	case err != nil:
		return m, t, err
	case !ok:
		return m, t, badToken("this join token is not known: its machine was deleted or evicted, or a newer one was made")
	case !t.Used.IsZero():
		return m, t, badToken("this join token was used at " + t.Used.UTC().Format(time.RFC3339) + ", and each is good once")
	case h.config.Now().After(t.Expires):
		return m, t, badToken("this join token ended at " + t.Expires.UTC().Format(time.RFC3339))
	}
	if _, ok, err := resources.Get(r, t.Machine); err != nil || !ok {
		if err == nil {
			err = badToken("the machine of this join token was deleted")
		}
		return m, t, err
	}
	m, _, err = members.Get(r, t.Machine.Key())
	return m, t, err
}

func badToken(why string) error {
	return rest.Errorf(http.StatusForbidden, "InvalidJoinToken", "%s; make another with 'innate host add NAME'", why)
}
