package server

import (
	"encoding/pem"
	"net/http"
	"strconv"

	"innate/ca"
)

// serveDocumentsAuthority answers GET /authorities/documents, for anybody: the
// certificate (PEM) of the authority by which VMs' attested documents are verified.
func (s *Server) serveDocumentsAuthority(w http.ResponseWriter, r *http.Request) {
	body := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.Certificate(ca.Documents).Raw})
	w.Header().Set("Content-Type", "application/x-pem-file")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}
