package server

import (
	"encoding/pem"
	"net/http"
	"strconv"

	"innate/ca"
)

// serveAuthority answers GET /authorities/{purpose}, for anybody: the certificate
// (PEM) of the authority by which strangers verify what is signed here, VMs'
// attested documents (documents) or clients of a PostgreSQL server (databases).
func (s *Server) serveAuthority(p ca.Purpose) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.Certificate(p).Raw})
		w.Header().Set("Content-Type", "application/x-pem-file")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}
}
