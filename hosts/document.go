package hosts

import (
	"crypto/x509"
	"net/http"
	"regexp"
	"strings"
	"time"

	"innate"
	"innate/ca"
	"innate/resources"
	"innate/rest"
	"innate/store"
)

// documentCertificateLife is short, since nobody asks whether such a certificate
// is still good: for so long can a host that lost a VM go on speaking for it.
const documentCertificateLife = 6 * time.Hour

// A documentCertificate is what a host signs a VM's attested documents under.
type documentCertificate struct {
	Certificate []byte `json:"certificate"` // DER
}

// document signs the certificate for the attested documents of a VM that is
// placed on the host that asks. It names the VM (its vmId is the common name)
// and the host, so that no host's signature is good for another's VM.
func (h *Hosts) document(r *http.Request) (documentCertificate, error) {
	p, err := h.peer(r, 0)
	if err != nil {
		return documentCertificate{}, err
	}
	var q struct {
		Resource innate.ResourceID `json:"resource"`
		CSR      []byte            `json:"csr"`
	}
	if err := rest.Read(r, &q); err != nil {
		return documentCertificate{}, err
	}
	vm, err := innate.ParseResourceID(string(q.Resource))
	if err != nil || !vm.Is(resources.TypeVM) {
		return documentCertificate{}, rest.Errorf(http.StatusBadRequest, "InvalidResourceId", "resource: want the id of a virtual machine")
	}
	pub, err := publicKey(q.CSR)
	if err != nil {
		return documentCertificate{}, err
	}

	var der []byte
	ev := byHost(r, p.machine, "issue-document-certificate")
	ev.Target, ev.Hosting, ev.Name = string(vm), string(vm), ""
	err = h.insist(r.Context(), func(tx store.Tx) error {
		m, err := current(tx, p)
		if err != nil {
			return err
		}
		placed, ok, err := placedOn(tx, m.Machine, vm)
		if err != nil {
			return err
		}
		if !ok {
			return rest.Errorf(http.StatusForbidden, "NotPlacedHere", "%s is not placed on %s", vm, m.Machine.Name())
		}
		der, err = h.config.CA.Issue(ca.Documents, pub, ca.Subject{
			CommonName: placed.VMID,
			DNS:        []string{metadataName(placed.Location, h.config.Domain)},
			URIs:       ca.DocumentURIs(h.config.Domain, placed.Resource, m.Machine),
			Life:       documentCertificateLife,
		})
		if err != nil {
			return err
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		return h.leave(tx, ev, map[string]string{"thumbprint": ca.Thumbprint(cert.Raw)})
	})
	if err != nil {
		return documentCertificate{}, h.refused(r, ev, err)
	}
	h.saw(p)
	return documentCertificate{der}, nil
}

var hostLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// metadataName is the DNS name that verifiers look for, <region>.metadata.<domain>
// (managed-identity-endpoints §1.10), without a region that no name can have.
func metadataName(location, domain string) string {
	region := strings.ToLower(strings.ReplaceAll(location, " ", "")) // "West Europe" is westeurope
	if !hostLabel.MatchString(region) {
		return "metadata." + domain
	}
	return region + ".metadata." + domain
}
