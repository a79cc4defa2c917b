package hosts

import (
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"innate"
	"innate/resources"
	"innate/rest"
	"innate/store"
)

// Rights at a machine: to say which TPM it is, and that it is that no longer.
const (
	allowAction    = "Microsoft.HybridCompute/machines/allow/action"
	disallowAction = "Microsoft.HybridCompute/machines/disallow/action"
)

// An endorsement says which machine a TPM is. An operator named the TPM's
// endorsement key, or it joined by a one-time token and its vendor's certificate.
type endorsement struct {
	Machine innate.ResourceID `json:"machine"`
}

// endorsements are keyed by the hash of an endorsement key (attest.Endorsement):
// a TPM is one machine.
const endorsements store.Table[endorsement] = "hosts/endorsements/"

// bind makes m's machine that of a TPM.
func bind(tx store.Tx, m *member, ek string) error {
	m.EK = ek
	return endorsements.Put(tx, ek, endorsement{m.Machine})
}

// unbind makes m's machine no TPM's.
func unbind(tx store.Tx, m *member) {
	if m.EK != "" {
		endorsements.Delete(tx, m.EK)
	}
	m.EK = ""
}

// allow answers POST {machine}/allow {ek: HASH} with a join string that holds no
// secret: the TPM with that endorsement key may join as this machine, without a
// one-time token, and nothing else may. What the machine holds stays good until then.
func (h *Hosts) allow(w http.ResponseWriter, r *http.Request, who innate.Principal, machine *resources.Resource) {
	if err := h.config.Require(r.Context(), who, allowAction, machine.ID.Scope()); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	ek, err := readHash(r)
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	err = h.insist(r.Context(), func(tx store.Tx) error {
		m, _, err := members.Get(tx, machine.ID.Key())
		if err != nil {
			return err
		}
		if m.EK != "" && m.EK != ek {
			return rest.Errorf(http.StatusConflict, "MachineHasTPM", "%s is the TPM %s: 'innate host disallow %s' first", machine.ID.Name(), m.EK, machine.ID.Name())
		}
		is, known, err := endorsements.Get(tx, ek)
		if err != nil {
			return err
		}
		if known && !is.Machine.Equal(machine.ID) {
			return rest.Errorf(http.StatusConflict, "TPMIsAnotherMachine", "this TPM is %s: 'innate host disallow %s' first", is.Machine, is.Machine.Name())
		}
		m.Machine, m.Evicted = machine.ID, time.Time{}
		if err := bind(tx, &m, ek); err != nil {
			return err
		}
		if err := members.Put(tx, machine.ID.Key(), m); err != nil {
			return err
		}
		return h.leave(tx, by(r, who, allowAction, machine.ID), map[string]string{"ek": ek})
	})
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	rest.Write(w, http.StatusOK, map[string]any{"join": h.joinString(nil), "ek": ek})
}

// disallow answers POST {machine}/disallow: the machine is its TPM no longer. A
// certificate that it has by that TPM ends, and what hangs on it.
func (h *Hosts) disallow(w http.ResponseWriter, r *http.Request, who innate.Principal, machine *resources.Resource) {
	if err := h.config.Require(r.Context(), who, disallowAction, machine.ID.Scope()); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	var ek string
	err := h.insist(r.Context(), func(tx store.Tx) error {
		m, _, err := members.Get(tx, machine.ID.Key())
		if err != nil {
			return err
		}
		if ek = m.EK; ek == "" {
			return rest.Errorf(http.StatusConflict, "MachineHasNoTPM", "no TPM is allowed to be %s", machine.ID.Name())
		}
		unbind(tx, &m)
		if m.byTPM() {
			if err := h.shutOut(tx, machine.ID); err != nil {
				return err
			}
			m.Certificates, m.Ticket = nil, ""
		}
		if err := members.Put(tx, machine.ID.Key(), m); err != nil {
			return err
		}
		return h.leave(tx, by(r, who, disallowAction, machine.ID), map[string]string{"ek": ek})
	})
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	rest.Write(w, http.StatusOK, map[string]any{"ek": ek})
}

// readHash reads {ek: HASH}: 64 hexadecimal digits, sha256: before them or not.
func readHash(r *http.Request) (string, error) {
	var q struct {
		EK string `json:"ek"`
	}
	if err := rest.Read(r, &q); err != nil {
		return "", err
	}
	ek := strings.ToLower(strings.TrimPrefix(q.EK, "sha256:"))
	if raw, err := hex.DecodeString(ek); err != nil || len(raw) != 32 {
		return "", rest.Errorf(http.StatusBadRequest, "InvalidEndorsementKeyHash",
			"ek: want the SHA-256 of the TPM's endorsement key, 64 hexadecimal digits, as 'innate agent tpm' prints it on the host")
	}
	return ek, nil
}
