package directory

import (
	"net/http"
	"strings"

	"innate"
	"innate/rest"
	"innate/store"
)

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
		s.Keys = append(s.Keys, newCertificateShape(c))
	}
	return s
}

// An applicationEdit is what a client may set of an application; nil means
// leave it. Other properties are accepted and not kept.
type applicationEdit struct {
	DisplayName    *string                       `json:"displayName"`
	IdentifierURIs *[]string                     `json:"identifierUris"`
	API            *apiShape                     `json:"api"`
	Keys           *[]keyEdit                    `json:"keyCredentials"`
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
	return d.editPart(r, who, action, func(tx store.Tx, client innate.ClientID) (string, error) { return "", edit(tx, client) })
}

// editPart is edit for a part of the registration, which the record names too:
// edit returns the id of the credential that it changed.
func (d *Directory) editPart(r *http.Request, who innate.Principal, action string, edit func(store.Tx, innate.ClientID) (part string, err error)) error {
	if err := d.config.MayEdit(r.Context(), who, action); err != nil {
		return err
	}
	a, err := d.application(r)
	if err != nil {
		return err
	}
	return d.update(r.Context(), func(tx store.Tx) error {
		part, err := edit(tx, a.Client)
		if err != nil {
			return err
		}
		target := string(a.ID)
		if part != "" {
			target += "/" + part
		}
		return d.leave(r.Context(), tx, who, action, target)
	})
}

func (d *Directory) patchApplication(r *http.Request, who innate.Principal) (int, any, error) {
	var in applicationEdit
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	action := actionApplication + "update"
	if in.Keys != nil {
		action = actionCredentials
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
