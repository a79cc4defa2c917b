package main_test

import "testing"

func TestWhereFederatedIssuersMayBeIsSaidPlainly(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	notPEM := s.write("not.pem", "no certificate")
	for _, command := range [][]string{{"server", "--dir", "/nonexistent", "--listen", "127.0.0.1:0"}, {"dev"}} {
		for _, c := range []struct {
			flag, value string
			want        []string
		}{
			{"--issuer-inside", "https://issuer.example.org", []string{"want a host name"}},
			{"--issuer-inside", "*.example.org", []string{"want a host name"}}, // there are no patterns
			{"--issuer-inside", "", []string{"want a host name"}},
			{"--issuer-ca", "/nonexistent", []string{"reading --issuer-ca", "no such file"}},
			{"--issuer-ca", notPEM, []string{"want certificates in PEM"}},
		} {
			s.refused(c.want, append(command, c.flag, c.value)...)
		}
	}
}
