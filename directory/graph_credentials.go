package directory

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"innate"
	"innate/rest"
	"innate/store"
)

const actionCredentials = actionApplication + "credentials/update"

// secretLife is how long a secret is good when its maker does not say (Graph's own default).
const secretLife = 2 * 365 * 24 * time.Hour

// A passwordEdit is what a client may say of the secret it wants.
type passwordEdit struct {
	DisplayName string    `json:"displayName"`
	Start       time.Time `json:"startDateTime"`
	End         time.Time `json:"endDateTime"`
}

func (d *Directory) addPassword(r *http.Request, who innate.Principal) (int, any, error) {
	var in struct {
		Credential passwordEdit `json:"passwordCredential"`
	}
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	want := in.Credential
	if want.Start.IsZero() {
		want.Start = d.config.Now()
	}
	if want.End.IsZero() {
		want.End = want.Start.Add(secretLife)
	}
	var answer struct {
		header
		passwordShape
	}
	err := d.editPart(r, who, actionCredentials, func(tx store.Tx, client innate.ClientID) (string, error) {
		s, value, err := AddSecret(tx, client, want.DisplayName, want.Start, want.End)
		answer.passwordShape = newPasswordShape(s)
		answer.Secret = &value
		return s.KeyID, err
	})
	answer.Context = d.config.Graph + "/v1.0/$metadata#microsoft.graph.passwordCredential"
	return http.StatusOK, answer, err
}

// removePassword takes one secret away.
func (d *Directory) removePassword(r *http.Request, who innate.Principal) (int, any, error) {
	return d.removeCredential(r, who, "password", func(a *Registration, is func(keyID string) bool) (removed bool) {
		before := len(a.Secrets)
		a.Secrets = slices.DeleteFunc(slices.Clone(a.Secrets), func(s Secret) bool { return is(s.KeyID) })
		return len(a.Secrets) < before
	})
}

// removeKey takes one certificate away.
func (d *Directory) removeKey(r *http.Request, who innate.Principal) (int, any, error) {
	return d.removeCredential(r, who, "key", func(a *Registration, is func(keyID string) bool) (removed bool) {
		before := len(a.Certificates)
		a.Certificates = slices.DeleteFunc(slices.Clone(a.Certificates), func(c Certificate) bool { return is(c.KeyID) })
		return len(a.Certificates) < before
	})
}

// removeCredential reads which credential of that kind is to go.
func (d *Directory) removeCredential(r *http.Request, who innate.Principal, kind string, remove func(*Registration, func(keyID string) bool) bool) (int, any, error) {
	var in struct {
		KeyID string `json:"keyId"`
	}
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, d.editPart(r, who, actionCredentials, func(tx store.Tx, client innate.ClientID) (string, error) {
		return strings.ToLower(in.KeyID), editRegistration(tx, client, func(a *Registration) error {
			if !remove(a, func(keyID string) bool { return strings.EqualFold(keyID, in.KeyID) }) {
				return bad("No %s credential found with keyId '%s'.", kind, in.KeyID)
			}
			return nil
		})
	})
}

// A keyEdit is a certificate as a client writes it.
type keyEdit struct {
	KeyID       string `json:"keyId"`
	DisplayName string `json:"displayName"`
	Key         []byte `json:"key"` // base64 of the DER
}

// replaceKeys makes keyCredentials the whole of the certificates: an entry
// without a key keeps the certificate whose keyId it gives.
func (e applicationEdit) replaceKeys(a *Registration) error {
	if len(*e.Keys) > maxCredentials {
		return bad("keyCredentials has %d entries: want at most %d.", len(*e.Keys), maxCredentials)
	}
	var now []Certificate
	for _, k := range *e.Keys {
		if len(k.Key) == 0 {
			i := slices.IndexFunc(a.Certificates, func(c Certificate) bool { return strings.EqualFold(c.KeyID, k.KeyID) })
			if i < 0 {
				return bad("keyCredentials has no key, and no certificate is there under the keyId '%s'.", k.KeyID)
			}
			now = append(now, a.Certificates[i])
			continue
		}
		c, err := newCertificate(k.Key, k.DisplayName)
		if err != nil {
			return err
		}
		now = append(now, c)
	}
	a.Certificates = now
	return nil
}

// addKey adds one certificate and leaves the others as they are. Graph takes it
// from the application itself, with a proof that it holds another's key; here
// the right to change credentials is all that counts, and a proof is passed over.
func (d *Directory) addKey(r *http.Request, who innate.Principal) (int, any, error) {
	var in struct {
		Credential keyEdit `json:"keyCredential"`
	}
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	var answer struct {
		header
		keyShape
	}
	err := d.editPart(r, who, actionCredentials, func(tx store.Tx, client innate.ClientID) (string, error) {
		c, err := AddCertificate(tx, client, in.Credential.Key, in.Credential.DisplayName)
		answer.keyShape = newCertificateShape(c)
		return c.KeyID, err
	})
	answer.Context = d.config.Graph + "/v1.0/$metadata#microsoft.graph.keyCredential"
	return http.StatusOK, answer, err
}
