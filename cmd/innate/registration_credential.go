package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
)

// A clientSecret as Graph writes it; its text is there in the answer that made it.
type clientSecret struct {
	KeyID string    `json:"keyId,omitempty"`
	Name  string    `json:"displayName,omitempty"`
	Hint  string    `json:"hint,omitempty"`
	Text  string    `json:"secretText,omitempty"`
	Start time.Time `json:"startDateTime,omitzero"`
	End   time.Time `json:"endDateTime,omitzero"`
}

// A clientCertificate as Graph writes it, and with its key as Graph takes it.
type clientCertificate struct {
	KeyID      string    `json:"keyId,omitempty"`
	Name       string    `json:"displayName,omitempty"`
	Thumbprint string    `json:"customKeyIdentifier,omitempty"` // SHA-256, hexadecimal
	Key        []byte    `json:"key,omitempty"`                 // DER
	Start      time.Time `json:"startDateTime,omitzero"`
	End        time.Time `json:"endDateTime,omitzero"`
}

func (s *session) registrationCredentialCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "credential", Short: "Secrets and certificates by which a registration's program proves itself",
		Long: `Secrets and certificates by which a registration's program proves itself.

To change one without a gap: add the new one, give it to the program, then remove
the old one, which proves nothing from then on. Tokens that it got stay good until
they end. With 'innate federation' a program needs neither.`,
		Example: `  innate registration credential add orders --secret --expires 2027-06-30
  innate registration credential add orders --certificate orders.pem
  innate registration credential list orders`,
	}
	cmd.AddCommand(s.credentialAdd(), s.credentialList(), s.credentialRemove())
	return cmd
}

// proofFlags say which credential is wanted.
type proofFlags struct {
	secret      bool
	certificate string // file
}

func (p *proofFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.secret, "secret", false, "make a client secret and show it")
	cmd.Flags().StringVar(&p.certificate, "certificate", "", "`file` with a certificate in PEM, the first in it; a private key beside it is not sent")
	cmd.MarkFlagsMutuallyExclusive("secret", "certificate")
}

func (s *session) credentialAdd() *cobra.Command {
	var want proofFlags
	var name, expires string
	cmd := &cobra.Command{
		Use: "add REGISTRATION", Short: "Add a secret or a certificate", Args: cobra.ExactArgs(1),
		RunE: s.askingAbout(func(cmd *cobra.Command, c *admin.Client, a application, args []string) error {
			if want.certificate != "" && expires != "" {
				return errors.New("--expires is for secrets: a certificate says itself how long it is good")
			}
			if want.certificate != "" {
				made, err := addCertificate(cmd.Context(), c, a, want.certificate, name)
				if err != nil {
					return err
				}
				return s.say(made, "%s\nkey id  %s", provedBy(a, made), made.KeyID)
			}
			secret := clientSecret{Name: name}
			if expires != "" {
				end, err := readDate("expires", expires)
				if err != nil {
					return err
				}
				secret.End = end
			}
			made, err := addSecret(cmd.Context(), c, a.ID, secret)
			if err != nil {
				return err
			}
			return s.say(made, "%s has one more secret, good until %s.\nkey id         %s\nclient secret  %s\nThe secret is shown this once.",
				a.Name, stamp(made.End), made.KeyID, made.Text)
		}),
	}
	want.add(cmd)
	cmd.MarkFlagsOneRequired("secret", "certificate")
	cmd.Flags().StringVar(&name, "name", "", "`words` that say what it is for")
	cmd.Flags().StringVar(&expires, "expires", "", "`date` until which the secret is good, such as 2027-01-31 or 2027-01-31T12:00:00Z; two years when left out")
	return cmd
}

// addSecret makes a secret for a registration.
func addSecret(ctx context.Context, c *admin.Client, a innate.ObjectID, want clientSecret) (made clientSecret, err error) {
	err = c.Graph(ctx, http.MethodPost, "/v1.0/applications/"+string(a)+"/addPassword", map[string]any{"passwordCredential": want}, &made)
	return made, err
}

// addCertificate registers the certificate in a file.
func addCertificate(ctx context.Context, c *admin.Client, a application, file, name string) (made clientCertificate, err error) {
	der, err := readCertificate(file)
	if err != nil {
		return made, err
	}
	err = c.Graph(ctx, http.MethodPost, "/v1.0/applications/"+string(a.ID)+"/addKey",
		map[string]any{"keyCredential": clientCertificate{Name: name, Key: der}}, &made)
	return made, err
}

func provedBy(a application, k clientCertificate) string {
	return fmt.Sprintf("%s is proved by the certificate with thumbprint %s, from %s until %s.", a.Name, k.Thumbprint, stamp(k.Start), stamp(k.End))
}

// readCertificate reads the first certificate of a file of PEM.
func readCertificate(file string) (der []byte, err error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("%s has no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----", file)
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("the certificate in %s: %w", file, err)
		}
		return block.Bytes, nil
	}
}

func (s *session) credentialList() *cobra.Command {
	return &cobra.Command{
		Use: "list REGISTRATION", Short: "List them, without the secrets", Args: cobra.ExactArgs(1),
		RunE: s.askingAbout(func(cmd *cobra.Command, c *admin.Client, a application, args []string) error {
			var rows [][]string
			for _, p := range a.Secrets {
				rows = append(rows, []string{"secret", p.KeyID, p.Name, p.Hint + "…", stamp(p.Start), stamp(p.End)})
			}
			for _, k := range a.Certificates {
				rows = append(rows, []string{"certificate", k.KeyID, k.Name, k.Thumbprint, stamp(k.Start), stamp(k.End)})
			}
			return s.print(map[string]any{"passwordCredentials": a.Secrets, "keyCredentials": a.Certificates},
				"TYPE KEY-ID NAME KNOWN-BY FROM UNTIL", rows)
		}),
	}
}

func (s *session) credentialRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove REGISTRATION KEY-ID", Short: "Remove one, which proves nothing any more", Args: cobra.ExactArgs(2),
		RunE: s.askingAbout(func(cmd *cobra.Command, c *admin.Client, a application, args []string) error {
			what, action := a.credential(args[1])
			if what == "" {
				return fmt.Errorf("%s has no credential with key id %q: 'innate registration credential list %s' lists those it has", a.Name, args[1], args[0])
			}
			body := map[string]string{"keyId": args[1]}
			if err := c.Graph(cmd.Context(), http.MethodPost, "/v1.0/applications/"+string(a.ID)+"/"+action, body, nil); err != nil {
				return err
			}
			return s.say(body, "%s is proved by %s no longer.", a.Name, what)
		}),
	}
}

// credential says which of a's has that key id, and by what action it is removed.
func (a application) credential(keyID string) (what, remove string) {
	for _, p := range a.Secrets {
		if strings.EqualFold(p.KeyID, keyID) {
			return "the secret that begins with " + p.Hint, "removePassword"
		}
	}
	for _, k := range a.Certificates {
		if strings.EqualFold(k.KeyID, keyID) {
			return "the certificate with thumbprint " + k.Thumbprint, "removeKey"
		}
	}
	return "", ""
}
