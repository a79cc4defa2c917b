package discovery

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"innate/jwt"
)

// An Error says why a key cannot be had.
type Error struct {
	// Temporary: the keys cannot be had now, and the token may be good. Otherwise
	// the issuer publishes no such key, and it is not.
	Temporary bool
	Text      string // one line, for whoever sent the token: no address and no answer of the inside
	Cause     error  // for our log
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Cause }

func (k *Keys) unavailable(why string, cause error) *Error {
	return &Error{
		Temporary: true,
		Text:      fmt.Sprintf("the keys of issuer %s cannot be had now: %s", k.config.Issuer, why),
		Cause:     cause,
	}
}

func (k *Keys) noSuch(kid string, alg jwt.Alg) *Error {
	if kid == "" {
		return &Error{Text: fmt.Sprintf(
			"the token does not name the key that signed it, and issuer %s does not publish exactly one for %s", k.config.Issuer, alg)}
	}
	return &Error{Text: fmt.Sprintf("issuer %s publishes no key %+.100q for %s", k.config.Issuer, kid, alg)}
}

// A fault is something wrong with what an issuer serves.
type fault struct {
	text  string // for everybody
	cause string // with what was served, for our log
}

func (f *fault) Error() string { return f.cause }

// explain is why a fetch failed, in words that everybody may read.
func explain(err error) string {
	var (
		wrong       *fault
		inside      *insideError
		lookup      *net.DNSError
		certificate *tls.CertificateVerificationError
		late        net.Error
	)
	switch {
	case errors.As(err, &wrong):
		return wrong.text
	case errors.As(err, &inside):
		return fmt.Sprintf("%s is at %s, where keys are fetched only from hosts that are allowed by name", inside.name, inside.what)
	case errors.As(err, &late) && late.Timeout():
		return "no answer came in time"
	case errors.As(err, &lookup):
		return fmt.Sprintf("the name %+.200q does not resolve", lookup.Name)
	case errors.As(err, &certificate):
		return "the certificate that was shown is not trusted here"
	}
	return "no answer came that can be read"
}
