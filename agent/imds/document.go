package imds

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"github.com/smallstep/pkcs7"

	"innate/agent/endpoint"
)

// documentLife is how long what an attested document says may be believed; its
// voucher must last as long.
const documentLife = time.Hour

// nonces are what may stand in a document at the caller's wish: the published
// API has up to 32 letters and digits (managed-identity-endpoints §1.10).
var nonces = regexp.MustCompile(`^[A-Za-z0-9]{1,32}$`)

// A document is what is signed. Members that an api-version does not have are nil.
type document struct {
	LicenseType  *string      `json:"licenseType,omitempty"` // 2020-09-01
	Nonce        string       `json:"nonce"`
	Plan         documentPlan `json:"plan"`
	SKU          *string      `json:"sku,omitempty"`            // 2019-11-01
	Subscription *string      `json:"subscriptionId,omitempty"` // 2019-04-30
	Time         documentTime `json:"timeStamp"`
	VMID         string       `json:"vmId"`
}

type documentPlan struct {
	Name      string `json:"name"`
	Product   string `json:"product"`
	Publisher string `json:"publisher"`
}

// A documentTime is in UTC, as MM/dd/yy HH:mm:ss -0000.
type documentTime struct {
	Created string `json:"createdOn"`
	Expires string `json:"expiresOn"`
}

// serveDocument answers GET /metadata/attested/document. It is this host, not
// the control plane, that says what is in the document; the control plane says
// that this host may speak for the VM.
func (s *Server) serveDocument(w http.ResponseWriter, r *http.Request) {
	q, m, ok := s.enter(w, r, since("2018-10-01"), endpoint.Signed)
	if !ok {
		return
	}
	now := s.now().UTC()
	nonce := q.Get("nonce")
	if nonce == "" {
		nonce = now.Format("20060102-150405")
	} else if !nonces.MatchString(nonce) {
		s.badInstance(w, badRequest("nonce is 1 to 32 letters and digits"))
		return
	}
	if s.voucher == nil {
		notFound(w, "Not found")
		return
	}
	voucher, err := s.voucher(r.Context())
	if err != nil {
		s.badInstance(w, err)
		return
	}
	signature, err := sign(compose(m, q.Get("api-version"), nonce, now), voucher)
	if err != nil {
		s.badInstance(w, fmt.Errorf("signing an attested document: %w", err))
		return
	}
	endpoint.Answer(w, http.StatusOK, endpoint.JSON(struct {
		Encoding  string `json:"encoding"`
		Signature []byte `json:"signature"` // DER, in base64
	}{"pkcs7", signature}))
}

// compose is the document for a client of that api-version.
func compose(m Machine, version, nonce string, now time.Time) document {
	const layout = "01/02/06 15:04:05"
	d := document{
		Nonce: nonce, VMID: m.VMID,
		Plan: documentPlan{m.Told["compute.plan.name"], m.Told["compute.plan.product"], m.Told["compute.plan.publisher"]},
		Time: documentTime{now.Format(layout) + " -0000", now.Add(documentLife).Format(layout) + " -0000"},
	}
	if version >= "2019-04-30" {
		d.Subscription = new(m.Resource.Subscription())
	}
	if version >= "2019-11-01" {
		d.SKU = new(m.Told["compute.sku"])
	}
	if version >= "2020-09-01" {
		d.LicenseType = new(m.Told["compute.licenseType"])
	}
	return d
}

// sign is d inside a PKCS #7 SignedData (RFC 2315 §9; DER) with the voucher's certificate.
func sign(d document, voucher *tls.Certificate) ([]byte, error) {
	content, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	signed, err := pkcs7.NewSignedData(content)
	if err != nil {
		return nil, err
	}
	signed.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := signed.AddSigner(voucher.Leaf, voucher.PrivateKey, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, err
	}
	return signed.Finish()
}
