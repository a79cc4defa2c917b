package setup

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"innate/gateway/postgres"
)

// clientsFile is the name, beside pg_hba.conf, of what ssl_ca_file names at a
// server that believed no authority of client certificates before.
const clientsFile = "innate-clients.crt"

// believed is the path of the authorities that the server believes of clients, or
// would; ours says that the file is there for us alone.
func (s *Server) believed() (path string, ours bool) {
	own := filepath.Join(filepath.Dir(s.settings["hba_file"]), clientsFile)
	path = s.settings["ssl_ca_file"]
	switch {
	case path == "":
		return own, true
	case !filepath.IsAbs(path):
		path = filepath.Join(s.settings["data_directory"], path)
	}
	return path, path == own
}

// certificates are those in some PEM, as DER.
func certificates(text []byte) (all [][]byte) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			all = append(all, block.Bytes)
		}
	}
	return all
}

// clients is the authority that client certificates are of, which the gateway
// wrote down.
func (s *Server) clients() (text string, cert *x509.Certificate, err error) {
	b, err := os.ReadFile(s.config.Clients)
	if err != nil {
		return "", nil, err
	}
	all := certificates(b)
	if len(all) != 1 {
		return "", nil, fmt.Errorf("%s holds %d certificates", s.config.Clients, len(all))
	}
	cert, err = x509.ParseCertificate(all[0])
	return string(b), cert, err
}

// authorityStep adds the authority of client certificates to those that the server
// believes, and never takes another's away. Where one logs in by token it goes,
// unless nothing were left: with an empty file the server does not start.
func (s *Server) authorityStep() (*Step, error) {
	path, ours := s.believed()
	before, err := read(path)
	if err != nil {
		return nil, err
	}
	head, old, tail, found, err := own.Cut(before)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	const what = "the authorities of client certificates"
	others := certificates([]byte(head + tail))
	if !s.config.Certificate {
		if ours || !found || len(others) == 0 {
			return nil, nil
		}
		return difference(what, path, Reload, before, head+tail, old, nil), nil
	}
	text, cert, err := s.clients()
	if err != nil || slices.ContainsFunc(others, func(der []byte) bool { return bytes.Equal(der, cert.Raw) }) {
		return nil, nil // Obstacle says that it is not there yet, or it is believed already
	}
	return blockStep(what, path, strings.Split(strings.TrimSpace(text), "\n"), Reload)
}

// authoritySetting makes the server look into that file.
func (s *Server) authoritySetting() (*Step, error) {
	path, ours := s.believed()
	_, _, err := s.clients()
	set := s.settings["ssl_ca_file"] != ""
	var step Step
	switch {
	case s.config.Certificate && !set && err == nil:
		step = statement(Reload, "ALTER SYSTEM SET ssl_ca_file = '%s'", strings.ReplaceAll(path, "'", "''"))
	case !s.config.Certificate && set && ours:
		step = statement(Reload, "ALTER SYSTEM RESET ssl_ca_file")
	default:
		return nil, nil
	}
	return &step, nil
}

// certificateFaults are what keeps clients from logging in by certificate, and
// what would let in somebody whom the gateway does not know of.
func (s *Server) certificateFaults(add adder) {
	if !s.config.Certificate {
		return
	}
	s.beliefFaults(add)
	if g := s.roles[management]; g.LogsIn && (!g.MayFind || !g.MayReload) {
		add(Missing, prepare, "%s must be a member of pg_read_all_settings and may call pg_reload_conf(): the gateway could not keep its rows of pg_ident.conf", management)
	}
	path := s.settings["ident_file"]
	content, err := read(path)
	if err != nil {
		add(Missing, "run this on the server's host, as root or as its user", "the rows of log-ins by certificate could not be looked at: %v", err)
		return
	}
	head, _, tail, found, err := postgres.Rows.Cut(content)
	switch {
	case err != nil:
		add(Missing, "mend the file", "the gateway cannot keep its rows in %s: %v", path, err)
	case !found:
		add(Missing, prepare, "%s has no lines for the gateway's rows: nobody logs in by certificate", path)
	}
	for line := range strings.Lines(head + tail) {
		if fields := strings.Fields(line); len(fields) > 0 && strings.Trim(fields[0], `"`) == postgres.CertificateMap {
			add(Unsafe, "take it out, and map the identity: innate postgres map", "%s has a row of the map %s that is not the gateway's: whom it lets in loses nothing with a mapping: %s", path, postgres.CertificateMap, strings.TrimSpace(line))
		}
	}
	if err := s.mayKeep(path); err != nil {
		add(Missing, "run the gateway as the server's user", "the gateway could not keep its rows: %v", err)
	}
}

// beliefFaults compare the authorities that the server believes with the platform's.
func (s *Server) beliefFaults(add adder) {
	_, cert, err := s.clients()
	if err != nil {
		add(Missing, "start the gateway once: it fetches it", "the authority of client certificates cannot be read: %v", err)
	}
	path, _ := s.believed()
	if s.settings["ssl_ca_file"] == "" {
		add(Missing, prepare, "the server believes no authority of client certificates (ssl_ca_file)")
	} else if text, readErr := os.ReadFile(path); readErr != nil {
		add(Missing, "mend ssl_ca_file", "the authorities that the server believes of clients cannot be read: %v", readErr)
	} else if err == nil && !slices.ContainsFunc(certificates(text), func(der []byte) bool { return bytes.Equal(der, cert.Raw) }) {
		add(Missing, prepare, "the platform's authority for clients of databases is not in %s (ssl_ca_file): the server refuses its certificates", path)
	}
	for _, name := range []string{"ssl_crl_file", "ssl_crl_dir"} {
		if s.settings[name] != "" {
			add(Missing, "take the setting away: whoever loses a right is refused by the gateway's rows", "the server wants a revocation list of every authority (%s), and the platform's has none: its certificates are refused", name)
		}
	}
}

// mayKeep is an error when the gateway's user cannot replace a file and leave its
// owner what it is.
func (s *Server) mayKeep(path string) error {
	u, err := user.Lookup(s.config.User)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil || uid == 0 {
		return err
	}
	for _, of := range []string{filepath.Dir(path), path} {
		info, err := os.Stat(of)
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != uid {
			return errors.New(of + " is not " + s.config.User + "'s, as whom it runs")
		}
	}
	return nil
}

// certificateRuleFaults look at a line by which clients log in by certificate.
func certificateRuleFaults(add adder, r rule, options map[string]string) {
	if options["map"] != postgres.CertificateMap {
		add(Unsafe, prepare, "pg_hba.conf line %d does not look into the gateway's rows (map=%s): who may log in is not the platform's to say", r.Line, postgres.CertificateMap)
	}
}
