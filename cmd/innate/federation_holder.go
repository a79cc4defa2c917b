package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
)

// A federated credential, as Graph writes it and as the properties of ARM's.
type federated struct {
	Name      string    `json:"name,omitempty"`
	Issuer    string    `json:"issuer"`
	Subject   string    `json:"subject,omitempty"`
	Matching  *matching `json:"claimsMatchingExpression,omitempty"`
	Audiences []string  `json:"audiences"`
}

type matching struct {
	Value    string `json:"value"`
	Language int    `json:"languageVersion"`
}

// how is the word for what a credential compares.
func (f federated) how() string {
	if f.Matching != nil {
		return "match"
	}
	return "subject"
}

// what is the subject, or the expression in its place.
func (f federated) what() string {
	if f.Matching != nil {
		return f.Matching.Value
	}
	return f.Subject
}

// inARM is a federated credential in the resource manager's envelope.
type inARM struct {
	Name       string    `json:"name,omitempty"`
	Properties federated `json:"properties"`
}

func (a inARM) credential() federated {
	a.Properties.Name = a.Name
	return a.Properties
}

// holderFlags name who has federated credentials.
type holderFlags struct{ identity, registration string }

func (h *holderFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&h.identity, "identity", "", "user-assigned `identity`: its name or resource id")
	cmd.Flags().StringVar(&h.registration, "registration", "", "app `registration`: its name or client id")
	cmd.MarkFlagsOneRequired("identity", "registration")
	cmd.MarkFlagsMutuallyExclusive("identity", "registration")
}

// A holder is an identity or app registration that federated credentials prove.
type holder struct {
	c      *admin.Client
	name   string
	client innate.ClientID
	path   string // of its federated credentials
	arm    bool   // the resource manager serves them; else Graph does
}

func (f holderFlags) find(ctx context.Context, c *admin.Client) (holder, error) {
	if f.identity != "" {
		return identityHolder(ctx, c, f.identity)
	}
	return registrationHolder(ctx, c, f.registration)
}

func identityHolder(ctx context.Context, c *admin.Client, name string) (holder, error) {
	id, err := c.Resource(ctx, typeIdentity, name)
	if err != nil {
		return holder{}, err
	}
	if !id.Is(typeIdentity) {
		return holder{}, fmt.Errorf("%s is no user-assigned identity, and no other resource has federated credentials", id)
	}
	var got struct {
		Properties struct {
			Client innate.ClientID `json:"clientId"`
		} `json:"properties"`
	}
	err = c.ARM(ctx, http.MethodGet, string(id), nil, &got)
	return holder{c, id.Name(), got.Properties.Client, string(id) + "/federatedIdentityCredentials", true}, err
}

func registrationHolder(ctx context.Context, c *admin.Client, name string) (holder, error) {
	a, err := findRegistration(ctx, c, name)
	return holder{c, a.Name, a.Client, "/v1.0/applications/" + string(a.ID) + "/federatedIdentityCredentials", false}, err
}

// graphPages reads a list of Graph to its end.
func graphPages[T any](ctx context.Context, c *admin.Client, path string) ([]T, error) {
	all := []T{}
	for {
		var page struct {
			Value []T    `json:"value"`
			Next  string `json:"@odata.nextLink"`
		}
		if err := c.Graph(ctx, http.MethodGet, path, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Value...)
		if page.Next == "" {
			return all, nil
		}
		next, err := url.Parse(page.Next)
		if err != nil {
			return nil, err
		}
		path = next.RequestURI()
	}
}

// environment is what an Azure SDK must be told beside the file of the token
// (managed-identity-endpoints §4.5).
func (h holder) environment() map[string]string {
	return map[string]string{
		"AZURE_CLIENT_ID": string(h.client), "AZURE_TENANT_ID": string(h.c.Info.Tenant), "AZURE_AUTHORITY_HOST": h.c.Info.Login + "/",
	}
}

func (h holder) list(ctx context.Context) ([]federated, error) {
	if !h.arm {
		return graphPages[federated](ctx, h.c, h.path)
	}
	all := []federated{}
	page, err := admin.Pages[inARM](ctx, h.c, h.path)
	for _, a := range page {
		all = append(all, a.credential())
	}
	return all, err
}

func (h holder) at(name string) string { return h.path + "/" + url.PathEscape(name) }

// has says nothing when h has a credential of that name, and else the server's 404.
func (h holder) has(ctx context.Context, name string) error {
	if h.arm {
		return h.c.ARM(ctx, http.MethodGet, h.at(name), nil, nil)
	}
	return h.c.Graph(ctx, http.MethodGet, h.at(name), nil, nil)
}

// create makes a credential. One of that name is not replaced, though the
// resource manager would: whom to trust is not to be changed by mistake.
func (h holder) create(ctx context.Context, f federated) (federated, error) {
	if err := h.has(ctx, f.Name); err == nil {
		return f, fmt.Errorf("%s has a federated credential %s already: delete it first, or choose another name", h.name, f.Name)
	} else if !admin.IsNotFound(err) {
		return f, err
	}
	if !h.arm {
		var made federated
		err := h.c.Graph(ctx, http.MethodPost, h.path, f, &made)
		return made, err
	}
	var made inARM
	want := inARM{Properties: f}
	want.Properties.Name = ""
	err := h.c.ARM(ctx, http.MethodPut, h.at(f.Name), want, &made)
	return made.credential(), err
}

func (h holder) delete(ctx context.Context, name string) error {
	if err := h.has(ctx, name); admin.IsNotFound(err) {
		return fmt.Errorf("%s has no federated credential %s: 'innate federation list' lists them", h.name, name)
	} else if err != nil {
		return err
	}
	if h.arm {
		return h.c.ARM(ctx, http.MethodDelete, h.at(name), nil, nil)
	}
	return h.c.Graph(ctx, http.MethodDelete, h.at(name), nil, nil)
}
