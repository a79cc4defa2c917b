package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"innate"
)

// A Listed is a resource as a list shows it.
type Listed struct {
	ID       innate.ResourceID `json:"id"`
	Name     string            `json:"name"`
	Type     string            `json:"type"`
	Kind     string            `json:"kind,omitempty"`
	Location string            `json:"location,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
	Identity *struct {
		Type      string          `json:"type"`
		Principal innate.ObjectID `json:"principalId,omitempty"`
		User      map[string]struct {
			Principal innate.ObjectID `json:"principalId"`
			Client    innate.ClientID `json:"clientId"`
		} `json:"userAssignedIdentities,omitempty"`
	} `json:"identity,omitempty"`
	Properties map[string]any `json:"properties,omitempty"`
}

// List returns the resources of a type, or every resource when typ is empty.
func (c *Client) List(ctx context.Context, typ string) ([]Listed, error) {
	path := "/subscriptions/" + c.Info.Subscription
	switch {
	case typ == "":
		path += "/resources"
	case strings.EqualFold(typ, "Microsoft.Resources/resourceGroups"):
		path += "/resourceGroups"
	default:
		path += "/providers/" + typ
	}
	return Pages[Listed](ctx, c, path)
}

// Pages reads a list of ARM to its end.
func Pages[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	var all []T
	for path != "" {
		var page struct {
			Value []T    `json:"value"`
			Next  string `json:"nextLink"`
		}
		if err := c.ARM(ctx, http.MethodGet, path, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Value...)
		path = ""
		if page.Next != "" {
			u, err := url.Parse(page.Next)
			if err != nil {
				return nil, err
			}
			q := u.Query()
			q.Del("api-version")
			path = u.Path + "?" + q.Encode()
		}
	}
	return all, nil
}

// Resource finds a resource by its name or id among those of a type; an empty
// type means any.
func (c *Client) Resource(ctx context.Context, typ, name string) (innate.ResourceID, error) {
	if strings.HasPrefix(name, "/") {
		return innate.ParseResourceID(name)
	}
	all, err := c.List(ctx, typ)
	if err != nil {
		return "", err
	}
	var found []Listed
	for _, l := range all {
		if strings.EqualFold(l.Name, name) {
			found = append(found, l)
		}
	}
	what := "resource"
	if typ != "" {
		what = typ[strings.LastIndexByte(typ, '/')+1:]
	}
	switch len(found) {
	case 1:
		return found[0].ID, nil
	case 0:
		return "", fmt.Errorf("no %s is called %q", what, name)
	}
	ids := make([]string, len(found))
	for i, l := range found {
		ids[i] = string(l.ID)
	}
	return "", fmt.Errorf("%d resources are called %q: say which by its id:\n  %s", len(found), name, strings.Join(ids, "\n  "))
}

// Scope finds a scope: "/", "subscription", the name of a resource or group, or a path.
func (c *Client) Scope(ctx context.Context, name string) (innate.Scope, error) {
	switch {
	case name == "subscription":
		return innate.Scope("/subscriptions/" + c.Info.Subscription), nil
	case strings.HasPrefix(name, "/"):
		return innate.ParseScope(name)
	}
	groups, err := c.List(ctx, "Microsoft.Resources/resourceGroups")
	if err != nil {
		return "", err
	}
	for _, g := range groups {
		if strings.EqualFold(g.Name, name) {
			return g.ID.Scope(), nil
		}
	}
	id, err := c.Resource(ctx, "", name)
	return id.Scope(), err
}

// Group finds a resource group's id by name; it need not exist.
func (c *Client) Group(name string) innate.ResourceID {
	return innate.ResourceID("/subscriptions/" + c.Info.Subscription + "/resourceGroups/" + name)
}

// Identity finds a principal: an object id, or the name of a resource (its
// system-assigned identity, or the identity itself), user, group or app registration.
func (c *Client) Identity(ctx context.Context, name string) (innate.ObjectID, error) {
	if id, err := innate.ParseGUID(name); err == nil {
		return innate.ObjectID(id), nil
	}
	if id, err := c.Resource(ctx, "", name); err == nil {
		var r Listed
		if err := c.ARM(ctx, http.MethodGet, string(id), nil, &r); err != nil {
			return "", err
		}
		if p, ok := r.Properties["principalId"].(string); ok {
			return innate.ObjectID(p), nil // a user-assigned identity
		}
		if r.Identity != nil && r.Identity.Principal != "" {
			return r.Identity.Principal, nil
		}
		return "", fmt.Errorf("%s has no system-assigned identity: turn it on with 'innate %s identity on %s'", name, kindOf(id), name)
	} else if strings.HasPrefix(name, "/") || !strings.HasPrefix(err.Error(), "no resource") {
		return "", err
	}
	quoted := url.QueryEscape("displayName eq '" + strings.ReplaceAll(name, "'", "''") + "'")
	for _, set := range []string{"servicePrincipals", "groups", "users"} {
		var page struct {
			Value []struct {
				ID innate.ObjectID `json:"id"`
			} `json:"value"`
		}
		if err := c.Graph(ctx, http.MethodGet, "/v1.0/"+set+"?$filter="+quoted, nil, &page); err != nil {
			return "", err
		}
		if len(page.Value) > 1 {
			return "", fmt.Errorf("%d %s are called %q: say which by its object id", len(page.Value), set, name)
		}
		if len(page.Value) == 1 {
			return page.Value[0].ID, nil
		}
	}
	return "", fmt.Errorf("nobody is called %q: neither a resource nor an app registration, group or user", name)
}

// kindOf is the command that manages a resource of that type.
func kindOf(id innate.ResourceID) string {
	if id.Is("Microsoft.Web/sites") {
		return "app"
	}
	return "vm"
}
