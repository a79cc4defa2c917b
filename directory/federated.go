package directory

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"innate"
	"innate/store"
)

// A FederatedCredential lets another issuer's tokens prove an application or a
// user-assigned identity (managed-identity-endpoints §4.5). Issuer and Audience
// are compared exactly; so is Subject, unless an expression stands in its place.
// An identity may have any number of them.
type FederatedCredential struct {
	ID          string          `json:"id"` // a GUID, as Graph wants one
	Principal   innate.ObjectID `json:"principal"`
	Name        string          `json:"name"` // never changes; compared case-blind, as ARM's names are
	Issuer      string          `json:"issuer"`
	Subject     string          `json:"subject,omitempty"`
	Matching    string          `json:"matching,omitempty"` // an Expression, when Subject is empty
	Audience    string          `json:"audience"`
	Description string          `json:"description,omitempty"`
	Created     time.Time       `json:"created"`
}

// FederatedAudience is what a federated assertion has as aud when nobody chose another.
const FederatedAudience = "api://AzureADTokenExchange"

// maxFederatedField is Azure's bound for every text of a federated credential, in characters.
const maxFederatedField = 600

const (
	federated store.Table[FederatedCredential] = "directory/federated/" // principal/name in lower case

	// federatedKeys holds each credential's name under what must be unique on
	// its identity, principal/SHA-256 of issuer and subject: with thousands of
	// credentials, adding one does not read them all.
	federatedKeys store.Table[string] = "directory/federatedkeys/"
)

func (c FederatedCredential) row() string { return federatedRow(c.Principal, c.Name) }

func federatedRow(principal innate.ObjectID, name string) string {
	return string(principal) + "/" + strings.ToLower(name)
}

// key is what no two credentials of an identity share.
func (c FederatedCredential) key() string {
	sum := sha256.Sum256([]byte(c.Issuer + "\x00" + c.Subject + "\x00" + c.Matching))
	return string(c.Principal) + "/" + hex.EncodeToString(sum[:])
}

var federatedName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{2,119}$`)

func (c FederatedCredential) check() error {
	if !federatedName.MatchString(c.Name) {
		return bad("The federated identity credential's name '%.120s' must have 3 to 120 letters, digits, hyphens and underscores, and begin with a letter or digit.", c.Name)
	}
	for _, field := range []struct{ name, value string }{
		{"issuer", c.Issuer}, {"subject", c.Subject}, {"claimsMatchingExpression", c.Matching}, {"audience", c.Audience}, {"description", c.Description},
	} {
		if n := utf8.RuneCountInString(field.value); n > maxFederatedField {
			return bad("The federated identity credential's %s has %d characters: want at most %d.", field.name, n, maxFederatedField)
		}
		if !utf8.ValidString(field.value) || strings.ContainsFunc(field.value, unicode.IsControl) {
			return bad("The federated identity credential's %s has a control character or is not UTF-8.", field.name)
		}
	}
	switch {
	case c.Issuer == "":
		return bad("The federated identity credential must have an issuer.")
	case c.Audience == "":
		return bad("The federated identity credential must have exactly one audience, such as %s.", FederatedAudience)
	case c.Subject == "" && c.Matching == "":
		return bad("The federated identity credential must have a subject or a claimsMatchingExpression.")
	case c.Subject != "" && c.Matching != "":
		return bad("The federated identity credential has both a subject and a claimsMatchingExpression: want one.")
	}
	// Its keys are fetched from there: anything but https could be anybody's.
	if u, err := url.Parse(c.Issuer); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(c.Issuer, "?#") {
		return bad("The federated identity credential's issuer '%s' must be an https URL without query or fragment: exactly the iss of the tokens, under which .well-known/openid-configuration answers.", c.Issuer)
	}
	if c.Matching == "" {
		return nil
	}
	_, err := ParseExpression(c.Matching)
	return err
}

// PutFederated makes a federated credential of c.Principal or replaces the one
// of that name, and says which.
func PutFederated(tx store.Tx, c FederatedCredential, now time.Time) (_ FederatedCredential, made bool, err error) {
	if err := c.check(); err != nil {
		return FederatedCredential{}, false, err
	}
	o, err := find(tx, c.Principal)
	if err != nil {
		return FederatedCredential{}, false, err
	}
	if o.Kind != Application && !(o.Kind == ManagedIdentity && o.Shared) {
		return FederatedCredential{}, false, bad("'%s' takes no federated identity credential: only app registrations and user-assigned identities do.", o.Name)
	}
	if holder, ok, err := federatedKeys.Get(tx, c.key()); err != nil {
		return FederatedCredential{}, false, err
	} else if ok && !strings.EqualFold(holder, c.Name) {
		return FederatedCredential{}, false, taken("The federated identity credential '%s' has this issuer and subject already.", holder)
	}
	old, had, err := federated.Get(tx, c.row())
	if err != nil {
		return FederatedCredential{}, false, err
	}
	if had {
		c.ID, c.Name, c.Created = old.ID, old.Name, old.Created
		federatedKeys.Delete(tx, old.key())
	} else {
		c.ID, c.Created = innate.NewGUID(), now.UTC()
	}
	if err := federatedKeys.Put(tx, c.key(), c.Name); err != nil {
		return FederatedCredential{}, false, err
	}
	return c, !had, federated.Put(tx, c.row(), c)
}

// DeleteFederated removes a federated credential and says whether it was there.
func DeleteFederated(tx store.Tx, principal innate.ObjectID, name string) (bool, error) {
	c, ok, err := federated.Get(tx, federatedRow(principal, name))
	if err != nil || !ok {
		return false, err
	}
	dropFederated(tx, c)
	return true, nil
}

func dropFederated(tx store.Tx, c FederatedCredential) {
	federated.Delete(tx, c.row())
	federatedKeys.Delete(tx, c.key())
}

// dropFederatedOf removes all that principal has.
func dropFederatedOf(tx store.Tx, principal innate.ObjectID) {
	for _, c := range federated.All(tx, string(principal)+"/", "") {
		dropFederated(tx, c)
	}
}
