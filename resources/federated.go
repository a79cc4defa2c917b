package resources

import (
	"errors"
	"net/http"
	"strings"

	"innate"
	"innate/audit"
	"innate/directory"
	"innate/rest"
	"innate/store"
)

const (
	typeFederated = TypeIdentity + "/federatedIdentityCredentials"
	// federatedBelow comes between an identity's id and a credential's name.
	federatedBelow = "/federatedIdentityCredentials/"
)

// expressionLanguage is the only languageVersion of claims matching expressions.
const expressionLanguage = 1

// A federatedShape is a federated credential as ARM writes it (control-plane §3.6).
type federatedShape struct {
	ID         innate.ResourceID   `json:"id"`
	Name       string              `json:"name"`
	Type       string              `json:"type"`
	Properties federatedProperties `json:"properties"`
}

type federatedProperties struct {
	Issuer    string   `json:"issuer"`
	Subject   string   `json:"subject,omitempty"`
	Audiences []string `json:"audiences"`
	// Matching stands in Subject's place (Azure's preview of flexible credentials).
	Matching *expressionShape `json:"claimsMatchingExpression,omitempty"`
}

type expressionShape struct {
	Value    string `json:"value"`
	Language int    `json:"languageVersion"`
}

func showFederated(identity innate.ResourceID, c *directory.FederatedCredential) federatedShape {
	shape := federatedShape{
		ID: federatedID(identity, c.Name), Name: c.Name, Type: typeFederated,
		Properties: federatedProperties{Issuer: c.Issuer, Subject: c.Subject, Audiences: []string{c.Audience}},
	}
	if c.Matching != "" {
		shape.Properties.Matching = &expressionShape{c.Matching, expressionLanguage}
	}
	return shape
}

func federatedID(identity innate.ResourceID, name string) innate.ResourceID {
	return identity + innate.ResourceID(federatedBelow+name)
}

// federating is the identity whose federated credentials the path names, for a
// caller who has a right at them, on a state that has all that was committed
// before the question. Whether it is there is the caller's to find out.
func (s *Resources) federating(c call, verb string) (id innate.ResourceID, action string, err error) {
	id, k, err := c.target()
	if err != nil {
		return "", "", err
	}
	if k.name != TypeIdentity {
		return "", "", rest.Errorf(http.StatusNotFound, "NotFound",
			"a %s has no federated credentials: only user-assigned identities have (%s), and app registrations", k.name, TypeIdentity)
	}
	action = k.action("federatedIdentityCredentials/" + verb)
	if err := s.need(c, action, id); err != nil {
		return "", "", err
	}
	return id, action, s.config.DB.Sync(c.Context())
}

// listFederated answers GET {identity}/federatedIdentityCredentials, by name.
func (s *Resources) listFederated(c call) error {
	id, _, err := s.federating(c, "read")
	if err != nil {
		return err
	}
	page, err := rest.PageOf(c.Request, pageSize)
	if err != nil {
		return err
	}
	identity, err := s.found(c, id)
	if err != nil {
		return err
	}
	answer := list[federatedShape]{Value: []federatedShape{}}
	for _, credential := range s.config.Directory.FederatedOf(identity.Identity.System.Principal) {
		key := strings.ToLower(credential.Name)
		if key < page.From {
			continue
		}
		if len(answer.Value) == page.Size {
			answer.Next = page.Next(c.Request, key)
			break
		}
		answer.Value = append(answer.Value, showFederated(identity.ID, credential))
	}
	rest.Write(c.w, http.StatusOK, answer)
	return nil
}

// getFederated answers GET {identity}/federatedIdentityCredentials/{credential}.
func (s *Resources) getFederated(c call) error {
	id, _, err := s.federating(c, "read")
	if err != nil {
		return err
	}
	identity, err := s.found(c, id)
	if err != nil {
		return err
	}
	credential, ok := s.config.Directory.Federated(identity.Identity.System.Principal, c.args["credential"])
	if !ok {
		return rest.Errorf(http.StatusNotFound, "NotFound",
			"the identity %s has no federated credential %.40q", identity.ID.Name(), c.args["credential"])
	}
	rest.Write(c.w, http.StatusOK, showFederated(identity.ID, &credential))
	return nil
}

// putFederated answers PUT {identity}/federatedIdentityCredentials/{credential}:
// 201, or 200 when it replaced one.
func (s *Resources) putFederated(c call) error {
	id, action, err := s.federating(c, "write")
	if err != nil {
		return err
	}
	want, err := readFederated(c.Request)
	if err != nil {
		return err
	}
	want.Name = c.args["credential"]
	var status int
	var answer federatedShape
	if _, err := s.config.DB.Update(c.Context(), func(tx store.Tx) error {
		identity, err := existing(tx, id)
		if err != nil {
			return err
		}
		want.Principal = identity.Identity.System.Principal
		now, made, err := directory.PutFederated(tx, want, s.config.Now())
		if err != nil {
			return inARM(err)
		}
		answer = showFederated(identity.ID, &now)
		ev := s.event(c.Context(), c.who, action, answer.ID)
		ev.Detail = trusted(now)
		ev.Detail["change"] = "updated"
		if status = http.StatusOK; made {
			status, ev.Detail["change"] = http.StatusCreated, "created"
		}
		return audit.Leave(tx, ev)
	}); err != nil {
		return err
	}
	rest.Write(c.w, status, answer)
	return nil
}

// deleteFederated answers DELETE {identity}/federatedIdentityCredentials/{credential}:
// 200, or 204 when there is none.
func (s *Resources) deleteFederated(c call) error {
	id, action, err := s.federating(c, "delete")
	if err != nil {
		return err
	}
	var had bool
	if _, err := s.config.DB.Update(c.Context(), func(tx store.Tx) error {
		identity, err := existing(tx, id)
		if err != nil {
			return err
		}
		had, err = directory.DeleteFederated(tx, identity.Identity.System.Principal, c.args["credential"])
		if err != nil || !had {
			return err
		}
		return audit.Leave(tx, s.event(c.Context(), c.who, action, federatedID(identity.ID, c.args["credential"])))
	}); err != nil {
		return err
	}
	status := http.StatusOK
	if !had {
		status = http.StatusNoContent
	}
	c.w.WriteHeader(status)
	return nil
}

// existing is a resource that has to be there.
func existing(tx store.Tx, id innate.ResourceID) (*Resource, error) {
	r, ok, err := Get(tx, id)
	if err == nil && !ok {
		err = notFound(id)
	}
	return r, err
}

// readFederated reads what a PUT wants; what is in it is for the directory to judge.
func readFederated(r *http.Request) (want directory.FederatedCredential, err error) {
	var body struct {
		Properties *federatedProperties `json:"properties"`
	}
	if err := rest.Read(r, &body); err != nil {
		return want, err
	}
	p := body.Properties
	if p == nil {
		return want, badContent("the request body has no properties: want issuer, subject and audiences")
	}
	if len(p.Audiences) != 1 {
		return want, rest.Errorf(http.StatusBadRequest, "BadRequest",
			"properties.audiences has %d values: want exactly one, such as %s", len(p.Audiences), directory.FederatedAudience)
	}
	want.Issuer, want.Subject, want.Audience = p.Issuer, p.Subject, p.Audiences[0]
	if p.Matching != nil {
		if p.Matching.Language != expressionLanguage {
			return want, rest.Errorf(http.StatusBadRequest, "BadRequest",
				"properties.claimsMatchingExpression.languageVersion is %d: want %d", p.Matching.Language, expressionLanguage)
		}
		want.Matching = p.Matching.Value
	}
	return want, nil
}

// trusted is what the record says of a credential: whose tokens are taken.
func trusted(c directory.FederatedCredential) map[string]string {
	detail := map[string]string{"issuer": c.Issuer, "audience": c.Audience}
	if c.Matching != "" {
		detail["matching"] = c.Matching
	} else {
		detail["subject"] = c.Subject
	}
	return detail
}

// inARM gives the directory's refusals, which are in Graph's words, ARM's codes.
func inARM(err error) error {
	var e *rest.Error
	if !errors.As(err, &e) {
		return err
	}
	named := *e
	switch e.Status {
	case http.StatusBadRequest:
		named.Code = "BadRequest"
	case http.StatusNotFound:
		named.Code = "NotFound"
	case http.StatusConflict:
		named.Code = "Conflict"
	}
	return &named
}
