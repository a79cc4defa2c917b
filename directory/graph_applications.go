package directory

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"innate"
	"innate/rest"
	"innate/store"
)

// secretLife is how long a secret is good when its maker does not say (Graph's own default).
const secretLife = 2 * 365 * 24 * time.Hour

func (d *Directory) listApplications(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.mayRead(r.Context(), who); err != nil {
		return 0, nil, err
	}
	return page(d, r, lister[*Registration]{
		set:    "applications",
		items:  func() ([]*Registration, error) { return d.index.applications(), nil },
		id:     func(a *Registration) string { return string(a.ID) },
		fields: applicationField,
		write:  func(a *Registration) any { return writeApplication(*a, header{}) },
	})
}

// applicationField is what a $filter may ask of an application.
func applicationField(a *Registration, name string) (values []string, known bool) {
	switch strings.ToLower(name) {
	case "id":
		return []string{string(a.ID)}, true
	case "appid":
		return []string{string(a.Client)}, true
	case "displayname":
		return []string{a.Name}, true
	case "identifieruris":
		return a.IdentifierURIs, true
	}
	return nil, false
}

func (d *Directory) wholeApplication(a Registration) any {
	return writeApplication(a, header{Context: d.config.Graph + "/v1.0/$metadata#applications/$entity"})
}

func writeApplication(a Registration, h header) any {
	s := applicationShape{
		header: h, ID: a.ID, AppID: a.Client, DisplayName: a.Name, IdentifierURIs: append([]string{}, a.IdentifierURIs...),
		Audience: "AzureADMyOrg", Created: a.Created,
		Passwords: []passwordShape{}, Keys: []keyShape{}, Tags: []any{}, AppRoles: writeAppRoles(a.AppRoles), OptionalClaims: writeOptionalClaims(a.OptionalClaims),
	}
	if a.TokenVersion != 0 {
		s.API.TokenVersion = &a.TokenVersion
	}
	if a.SigningAlg != "" {
		s.API.SigningAlg = &a.SigningAlg
	}
	if a.OneTime {
		s.API.OneTime = &a.OneTime
	}
	if a.GroupClaims != "" {
		s.GroupClaims = &a.GroupClaims
	}
	for _, secret := range a.Secrets {
		s.Passwords = append(s.Passwords, newPasswordShape(secret))
	}
	for _, c := range a.Certificates {
		sum := sha256.Sum256(c.DER)
		k := newKeyShape(hex.EncodeToString(sum[:]), c.Name, c.Start, c.End)
		k.KeyID = c.KeyID
		s.Keys = append(s.Keys, k)
	}
	return s
}

// An applicationEdit is what a client may set of an application; nil means
// leave it. Other properties are accepted and not kept.
type applicationEdit struct {
	DisplayName    *string   `json:"displayName"`
	IdentifierURIs *[]string `json:"identifierUris"`
	API            *apiShape `json:"api"`
	Keys           *[]struct {
		KeyID       string `json:"keyId"`
		DisplayName string `json:"displayName"`
		Key         []byte `json:"key"` // base64 of the DER
	} `json:"keyCredentials"`
	AppRoles       *[]appRoleShape               `json:"appRoles"`
	GroupClaims    nullable[string]              `json:"groupMembershipClaims"`
	OptionalClaims nullable[optionalClaimsShape] `json:"optionalClaims"`
}

// apply changes a as e says.
func (d *Directory) apply(e applicationEdit, a *Registration) error {
	if e.DisplayName != nil {
		a.Name = *e.DisplayName
	}
	if e.IdentifierURIs != nil {
		for _, uri := range *e.IdentifierURIs {
			if d.config.Reserved(uri) {
				return taken("The identifier URI '%s' is that of a service of the platform.", uri)
			}
		}
		a.IdentifierURIs = *e.IdentifierURIs
	}
	if e.AppRoles != nil {
		a.AppRoles = readAppRoles(*e.AppRoles)
	}
	if err := e.applyAPI(a); err != nil {
		return err
	}
	if err := e.applyClaims(a); err != nil {
		return err
	}
	if e.Keys == nil {
		return nil
	}
	return e.replaceKeys(a)
}

// applyAPI changes what a is as an audience.
func (e applicationEdit) applyAPI(a *Registration) error {
	if e.API == nil {
		return nil
	}
	if e.API.TokenVersion != nil {
		if v := *e.API.TokenVersion; v != 1 && v != 2 {
			return bad("api.requestedAccessTokenVersion is %d: want 1 or 2.", v)
		}
		a.TokenVersion = *e.API.TokenVersion
	}
	if e.API.SigningAlg != nil {
		if alg := *e.API.SigningAlg; alg != "RS256" && alg != "ES256" {
			return bad("api.signingAlgorithm is '%s': want RS256 or ES256.", alg)
		}
		a.SigningAlg = *e.API.SigningAlg
	}
	if e.API.OneTime != nil {
		a.OneTime = *e.API.OneTime
	}
	return nil
}

// applyClaims changes which claims the tokens for a have.
func (e applicationEdit) applyClaims(a *Registration) (err error) {
	if a.GroupClaims, err = readGroupClaims(e.GroupClaims.or(a.GroupClaims)); err != nil {
		return err
	}
	if e.OptionalClaims.given {
		a.OptionalClaims, err = readOptionalClaims(e.OptionalClaims.or(optionalClaimsShape{}))
	}
	return err
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
		c, err := newCertificate(k.Key)
		if err != nil {
			return err
		}
		if k.DisplayName != "" {
			if err := checkName(k.DisplayName); err != nil {
				return err
			}
		}
		c.Name = k.DisplayName
		now = append(now, c)
	}
	a.Certificates = now
	return nil
}

func (d *Directory) postApplication(r *http.Request, who innate.Principal) (int, any, error) {
	const action = actionApplication + "create"
	if err := d.config.MayEdit(r.Context(), who, action); err != nil {
		return 0, nil, err
	}
	var in applicationEdit
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	var made Registration
	err := d.update(r.Context(), func(tx store.Tx) error {
		var a Registration
		if err := d.apply(in, &a); err != nil {
			return err
		}
		var err error
		if made, _, err = CreateRegistration(tx, a, d.config.Now()); err != nil {
			return err
		}
		return d.leave(r.Context(), tx, who, action, string(made.ID))
	})
	return http.StatusCreated, d.wholeApplication(made), err
}

// application reads the registration that the path names by object id or (appId='…').
func (d *Directory) application(r *http.Request) (Registration, error) {
	id := r.PathValue("id")
	a, ok, err := again(r.Context(), d, func() (Registration, bool) {
		if client, ok := strings.CutPrefix(id, "appid="); ok {
			return d.Registration(innate.ClientID(client))
		}
		return get(d.index, d.index.byID, innate.ObjectID(id))
	})
	if err == nil && !ok {
		err = notFound(id)
	}
	return a, err
}

func (d *Directory) getApplication(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.mayRead(r.Context(), who); err != nil {
		return 0, nil, err
	}
	a, err := d.application(r)
	return http.StatusOK, d.wholeApplication(a), err
}

// edit changes the registration that the path names, on the record.
func (d *Directory) edit(r *http.Request, who innate.Principal, action string, edit func(store.Tx, innate.ClientID) error) error {
	if err := d.config.MayEdit(r.Context(), who, action); err != nil {
		return err
	}
	a, err := d.application(r)
	if err != nil {
		return err
	}
	return d.update(r.Context(), func(tx store.Tx) error {
		if err := edit(tx, a.Client); err != nil {
			return err
		}
		return d.leave(r.Context(), tx, who, action, string(a.ID))
	})
}

func (d *Directory) patchApplication(r *http.Request, who innate.Principal) (int, any, error) {
	var in applicationEdit
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	action := actionApplication + "update"
	if in.Keys != nil {
		action = actionApplication + "credentials/update"
	}
	return http.StatusNoContent, nil, d.edit(r, who, action, func(tx store.Tx, client innate.ClientID) error {
		return editRegistration(tx, client, func(a *Registration) error { return d.apply(in, a) })
	})
}

func (d *Directory) deleteApplication(r *http.Request, who innate.Principal) (int, any, error) {
	return http.StatusNoContent, nil, d.edit(r, who, actionApplication+"delete", func(tx store.Tx, client innate.ClientID) error {
		a, ok, err := registrations.Get(tx, string(client))
		if err != nil {
			return err
		}
		if !ok {
			return notFound(client)
		}
		return d.DeleteObject(tx, a.Principal)
	})
}

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
	err := d.edit(r, who, actionApplication+"credentials/update", func(tx store.Tx, client innate.ClientID) error {
		s, value, err := AddSecret(tx, client, want.DisplayName, want.Start, want.End)
		answer.passwordShape = newPasswordShape(s)
		answer.Secret = &value
		return err
	})
	answer.Context = d.config.Graph + "/v1.0/$metadata#microsoft.graph.passwordCredential"
	return http.StatusOK, answer, err
}

func (d *Directory) removePassword(r *http.Request, who innate.Principal) (int, any, error) {
	var in struct {
		KeyID string `json:"keyId"`
	}
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, d.edit(r, who, actionApplication+"credentials/update", func(tx store.Tx, client innate.ClientID) error {
		err := editRegistration(tx, client, func(a *Registration) error {
			kept := slices.DeleteFunc(slices.Clone(a.Secrets), func(s Secret) bool { return strings.EqualFold(s.KeyID, in.KeyID) })
			if len(kept) == len(a.Secrets) {
				return bad("No password credential found with keyId '%s'.", in.KeyID)
			}
			a.Secrets = kept
			return nil
		})
		return err
	})
}
