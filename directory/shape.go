package directory

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"innate"
)

// A header is what an answer says of the object in it.
type header struct {
	Context string `json:"@odata.context,omitempty"` // when the object is the whole answer
	Type    string `json:"@odata.type,omitempty"`    // in a list of several kinds
}

// A principalShape is a service principal as Graph writes it (control-plane §6).
// The empty lists are there because clients iterate over them.
type principalShape struct {
	header
	ID           innate.ObjectID `json:"id"`
	AppID        innate.ClientID `json:"appId"`
	DisplayName  string          `json:"displayName"`
	Type         Kind            `json:"servicePrincipalType"`
	Alternatives []string        `json:"alternativeNames"`
	Names        []string        `json:"servicePrincipalNames"`
	Enabled      bool            `json:"accountEnabled"`
	Tenant       innate.TenantID `json:"appOwnerOrganizationId"`
	Created      time.Time       `json:"createdDateTime"`
	Keys         []keyShape      `json:"keyCredentials"`
	Passwords    []any           `json:"passwordCredentials"`
	Tags         []any           `json:"tags"`
	AppRoles     []appRoleShape  `json:"appRoles"`
	RoleRequired bool            `json:"appRoleAssignmentRequired"`
	Scopes       []any           `json:"oauth2PermissionScopes"`
}

// A keyShape is a certificate, without its key.
type keyShape struct {
	KeyID       string    `json:"keyId,omitempty"`
	Type        string    `json:"type"`
	Usage       string    `json:"usage"`
	Custom      string    `json:"customKeyIdentifier"` // SHA-256 thumbprint, hex
	DisplayName string    `json:"displayName"`
	Start       time.Time `json:"startDateTime"`
	End         time.Time `json:"endDateTime"`
}

func newKeyShape(thumbprint, name string, start, end time.Time) keyShape {
	return keyShape{Type: "AsymmetricX509Cert", Usage: "Verify", Custom: thumbprint, DisplayName: name, Start: start, End: end}
}

func newCertificateShape(c Certificate) keyShape {
	sum := sha256.Sum256(c.DER)
	k := newKeyShape(hex.EncodeToString(sum[:]), c.Name, c.Start, c.End)
	k.KeyID = c.KeyID
	return k
}

// A passwordShape is a secret; its text is there only in the answer that made it.
type passwordShape struct {
	KeyID       string    `json:"keyId"`
	DisplayName string    `json:"displayName"`
	Hint        string    `json:"hint"`
	Secret      *string   `json:"secretText"`
	Start       time.Time `json:"startDateTime"`
	End         time.Time `json:"endDateTime"`
}

func newPasswordShape(s Secret) passwordShape {
	return passwordShape{KeyID: s.KeyID, DisplayName: s.Name, Hint: s.Hint, Start: s.Start, End: s.End}
}

type userShape struct {
	header
	ID          innate.ObjectID `json:"id"`
	DisplayName string          `json:"displayName"`
	UPN         string          `json:"userPrincipalName"`
	Enabled     bool            `json:"accountEnabled"`
	Created     time.Time       `json:"createdDateTime"`
}

type groupShape struct {
	header
	ID          innate.ObjectID `json:"id"`
	DisplayName string          `json:"displayName"`
	MailEnabled bool            `json:"mailEnabled"`
	Security    bool            `json:"securityEnabled"`
	Types       []string        `json:"groupTypes"`
	Created     time.Time       `json:"createdDateTime"`
}

type applicationShape struct {
	header
	ID             innate.ObjectID `json:"id"`
	AppID          innate.ClientID `json:"appId"`
	DisplayName    string          `json:"displayName"`
	IdentifierURIs []string        `json:"identifierUris"`
	Audience       string          `json:"signInAudience"`
	Created        time.Time       `json:"createdDateTime"`
	API            apiShape        `json:"api"`
	Passwords      []passwordShape `json:"passwordCredentials"`
	Keys           []keyShape      `json:"keyCredentials"`
	Tags           []any           `json:"tags"`
	AppRoles       []appRoleShape  `json:"appRoles"`
	GroupClaims    *string         `json:"groupMembershipClaims"`

	OptionalClaims *optionalClaimsShape `json:"optionalClaims"`
}

type apiShape struct {
	TokenVersion *int    `json:"requestedAccessTokenVersion"` // null, 1 or 2
	SigningAlg   *string `json:"signingAlgorithm,omitempty"`  // RS256 or ES256; Graph has no such property
	OneTime      *bool   `json:"oneTimeAssertions,omitempty"` // Registration.OneTime; nor this
}

// collection is the set that an object is in, and its type's name.
func (o Object) collection() (set, odataType string) {
	switch o.Kind {
	case User:
		return "users", "#microsoft.graph.user"
	case Group:
		return "groups", "#microsoft.graph.group"
	}
	return "servicePrincipals", "#microsoft.graph.servicePrincipal"
}

// whole writes an object as the whole answer.
func (d *Directory) whole(o Object) any {
	set, _ := o.collection()
	return d.write(o, header{Context: d.config.Graph + "/v1.0/$metadata#" + set + "/$entity"})
}

// among writes an object in a list of several kinds.
func (d *Directory) among(o Object) any {
	_, odataType := o.collection()
	return d.write(o, header{Type: odataType})
}

func (d *Directory) write(o Object, h header) any {
	switch o.Kind {
	case User:
		return userShape{header: h, ID: o.ID, DisplayName: o.Name, UPN: o.UPN, Enabled: o.Enabled, Created: o.Created}
	case Group:
		return groupShape{header: h, ID: o.ID, DisplayName: o.Name, Security: true, Types: []string{}, Created: o.Created}
	}
	r, _ := d.Registration(o.Client)
	s := principalShape{
		header: h, ID: o.ID, AppID: o.Client, DisplayName: o.Name, Type: o.Kind,
		Alternatives: alternativeNames(o), Names: d.servicePrincipalNames(o),
		Enabled: o.Enabled, Tenant: d.config.Tenant, Created: o.Created, Keys: []keyShape{},
		Passwords: []any{}, Tags: []any{}, AppRoles: writeAppRoles(r.AppRoles), RoleRequired: r.RoleRequired, Scopes: []any{},
	}
	for _, k := range d.Keys(o.ID) {
		name := fmt.Sprintf("%s on %s", k.Hosting, k.Host)
		s.Keys = append(s.Keys, newKeyShape(k.Thumbprint, name, k.NotBefore, k.NotAfter))
	}
	return s
}

// alternativeNames say of a managed identity where it lives, and whether it is
// user-assigned.
func alternativeNames(o Object) []string {
	switch {
	case o.Kind != ManagedIdentity:
		return []string{}
	case o.Shared:
		return []string{"isExplicit=True", string(o.Owner)}
	}
	return []string{"isExplicit=False", string(o.Owner)}
}

func (d *Directory) servicePrincipalNames(o Object) []string {
	names := []string{string(o.Client)}
	if r, ok := d.Registration(o.Client); ok {
		names = append(names, r.IdentifierURIs...)
	}
	return names
}

// field is what a $filter may ask of an object; names compare without case.
func (d *Directory) field(o *Object, name string) (values []string, known bool) {
	switch strings.ToLower(name) {
	case "id":
		return []string{string(o.ID)}, true
	case "appid":
		return []string{string(o.Client)}, true
	case "displayname":
		return []string{o.Name}, true
	case "userprincipalname":
		return []string{o.UPN}, true
	case "accountenabled":
		return []string{strconv.FormatBool(o.Enabled)}, true
	case "serviceprincipaltype":
		return []string{string(o.Kind)}, true
	case "alternativenames":
		return alternativeNames(*o), true
	case "serviceprincipalnames":
		return d.servicePrincipalNames(*o), true
	}
	return nil, false
}
