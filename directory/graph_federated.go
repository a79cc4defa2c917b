package directory

import (
	"net/http"
	"strings"

	"innate"
	"innate/rest"
	"innate/store"
)

// A federatedShape is a federated credential as Graph writes it.
type federatedShape struct {
	header
	ID          string           `json:"id"`
	Name        string           `json:"name"`
	Issuer      string           `json:"issuer"`
	Subject     *string          `json:"subject"` // null beside an expression
	Audiences   []string         `json:"audiences"`
	Description string           `json:"description"`
	Matching    *expressionShape `json:"claimsMatchingExpression"`
}

type expressionShape struct {
	Value   string `json:"value"`
	Version int    `json:"languageVersion"` // 1
}

func writeFederated(c FederatedCredential, h header) federatedShape {
	s := federatedShape{
		header: h, ID: c.ID, Name: c.Name, Issuer: c.Issuer, Audiences: []string{c.Audience}, Description: c.Description,
	}
	if c.Matching != "" {
		s.Matching = &expressionShape{c.Matching, 1}
	} else {
		s.Subject = &c.Subject
	}
	return s
}

// A federatedEdit is what a client may set of a federated credential; what it
// leaves out stays.
type federatedEdit struct {
	Name        *string                   `json:"name"`
	Issuer      *string                   `json:"issuer"`
	Subject     nullable[string]          `json:"subject"`
	Audiences   *[]string                 `json:"audiences"`
	Description nullable[string]          `json:"description"`
	Matching    nullable[expressionShape] `json:"claimsMatchingExpression"`
}

// apply changes all of c but its name, which never changes.
func (e federatedEdit) apply(c *FederatedCredential) error {
	if e.Issuer != nil {
		c.Issuer = *e.Issuer
	}
	if e.Audiences != nil {
		if n := len(*e.Audiences); n != 1 {
			return bad("The federated identity credential has %d audiences: want exactly one, such as %s.", n, FederatedAudience)
		}
		c.Audience = (*e.Audiences)[0]
	}
	c.Subject = e.Subject.or(c.Subject)
	c.Description = e.Description.or(c.Description)
	matching := e.Matching.or(expressionShape{c.Matching, 1})
	if matching.Value != "" && matching.Version != 1 {
		return bad("The claimsMatchingExpression has the languageVersion %d: want 1.", matching.Version)
	}
	c.Matching = matching.Value
	return nil
}

func federatedSet(a Registration) string {
	return "applications('" + string(a.ID) + "')/federatedIdentityCredentials"
}

func (d *Directory) listFederated(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.mayRead(r.Context(), who); err != nil {
		return 0, nil, err
	}
	a, err := d.application(r)
	if err != nil {
		return 0, nil, err
	}
	return page(d, r, lister[*FederatedCredential]{
		set:    federatedSet(a),
		items:  func() ([]*FederatedCredential, error) { return d.FederatedOf(a.Principal), nil },
		id:     func(c *FederatedCredential) string { return strings.ToLower(c.Name) },
		fields: federatedField,
		write:  func(c *FederatedCredential) any { return writeFederated(*c, header{}) },
	})
}

// federatedField is what a $filter may ask of a federated credential.
func federatedField(c *FederatedCredential, name string) (values []string, known bool) {
	switch strings.ToLower(name) {
	case "id":
		return []string{c.ID}, true
	case "name":
		return []string{c.Name}, true
	case "issuer":
		return []string{c.Issuer}, true
	case "subject":
		return []string{c.Subject}, true
	case "audiences":
		return []string{c.Audience}, true
	}
	return nil, false
}

// federatedCredential is the credential that the path names by id or name, and
// the application that has it.
func (d *Directory) federatedCredential(r *http.Request) (a Registration, c FederatedCredential, err error) {
	if a, err = d.application(r); err != nil {
		return a, c, err
	}
	key := r.PathValue("fid")
	c, ok, err := again(r.Context(), d, func() (FederatedCredential, bool) { return d.federatedCalled(a.Principal, key) })
	if err == nil && !ok {
		err = notFound(key)
	}
	return a, c, err
}

// federatedCalled returns a credential of principal by id or name.
func (d *Directory) federatedCalled(principal innate.ObjectID, key string) (FederatedCredential, bool) {
	if c, ok := get(d.index, d.index.federated.byID, key); ok && c.Principal == principal {
		return c, true
	}
	return d.Federated(principal, key)
}

func (d *Directory) getFederated(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.mayRead(r.Context(), who); err != nil {
		return 0, nil, err
	}
	a, c, err := d.federatedCredential(r)
	return http.StatusOK, d.wholeFederated(a, c), err
}

func (d *Directory) wholeFederated(a Registration, c FederatedCredential) any {
	return writeFederated(c, header{Context: d.config.Graph + "/v1.0/$metadata#" + federatedSet(a) + "/$entity"})
}

// Who may change an application's credentials may change its federated ones;
// the audit log says which.
const (
	mayFederate     = actionApplication + "credentials/update"
	actionFederated = actionApplication + "federatedIdentityCredentials/"
)

func (d *Directory) postFederated(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.config.MayEdit(r.Context(), who, mayFederate); err != nil {
		return 0, nil, err
	}
	var in federatedEdit
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	a, err := d.application(r)
	if err != nil {
		return 0, nil, err
	}
	c := FederatedCredential{Principal: a.Principal}
	if in.Name != nil {
		c.Name = *in.Name
	}
	if err := in.apply(&c); err != nil {
		return 0, nil, err
	}
	var made FederatedCredential
	err = d.update(r.Context(), func(tx store.Tx) error {
		kept, isNew, err := PutFederated(tx, c, d.config.Now())
		if err != nil {
			return err
		}
		if !isNew {
			return taken("The application has a federated identity credential with the name '%s' already.", kept.Name)
		}
		made = kept
		return d.leaveFederated(r, tx, who, "create", a, kept)
	})
	return http.StatusCreated, d.wholeFederated(a, made), err
}

func (d *Directory) leaveFederated(r *http.Request, tx store.Tx, who innate.Principal, verb string, a Registration, c FederatedCredential) error {
	return d.leave(r.Context(), tx, who, actionFederated+verb, string(a.ID)+"/"+c.Name)
}

func (d *Directory) patchFederated(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.config.MayEdit(r.Context(), who, mayFederate); err != nil {
		return 0, nil, err
	}
	var in federatedEdit
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	a, c, err := d.federatedCredential(r)
	if err != nil {
		return 0, nil, err
	}
	if in.Name != nil && !strings.EqualFold(*in.Name, c.Name) {
		return 0, nil, bad("The name of the federated identity credential '%s' cannot be changed: make another one and delete this.", c.Name)
	}
	return http.StatusNoContent, nil, d.update(r.Context(), func(tx store.Tx) error {
		now, ok, err := federated.Get(tx, c.row())
		if err != nil {
			return err
		}
		if !ok {
			return notFound(c.Name)
		}
		if err := in.apply(&now); err != nil {
			return err
		}
		if _, _, err := PutFederated(tx, now, d.config.Now()); err != nil {
			return err
		}
		return d.leaveFederated(r, tx, who, "update", a, now)
	})
}

func (d *Directory) deleteFederated(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.config.MayEdit(r.Context(), who, mayFederate); err != nil {
		return 0, nil, err
	}
	a, c, err := d.federatedCredential(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, d.update(r.Context(), func(tx store.Tx) error {
		there, err := DeleteFederated(tx, c.Principal, c.Name)
		if err != nil {
			return err
		}
		if !there {
			return notFound(c.Name)
		}
		return d.leaveFederated(r, tx, who, "delete", a, c)
	})
}
