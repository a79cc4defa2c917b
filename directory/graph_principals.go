package directory

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"innate"
	"innate/rest"
	"innate/store"
)

func (d *Directory) getMe(r *http.Request, who innate.Principal) (int, any, error) {
	o, err := d.object(r.Context(), who.Object, User, Application, ManagedIdentity)
	return http.StatusOK, d.whole(o), err
}

// listObjects lists the objects of some kinds.
func (d *Directory) listObjects(set string, kinds ...Kind) verb {
	return func(r *http.Request, who innate.Principal) (int, any, error) {
		if err := d.mayRead(r.Context(), who); err != nil {
			return 0, nil, err
		}
		return page(d, r, lister[*Object]{
			set:    set,
			items:  func() ([]*Object, error) { return d.index.all(kinds...), nil },
			id:     func(o *Object) string { return string(o.ID) },
			fields: d.field,
			write:  func(o *Object) any { return d.write(*o, header{}) },
		})
	}
}

// postPrincipal answers for clients that make a registration's service
// principal in a second step: here both are made together.
func (d *Directory) postPrincipal(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.config.MayEdit(r.Context(), who, actionPrincipal+"create"); err != nil {
		return 0, nil, err
	}
	var in struct {
		AppID innate.ClientID `json:"appId"`
	}
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	client := innate.ClientID(strings.ToLower(string(in.AppID)))
	_, ok, err := again(r.Context(), d, func() (Object, bool) { return d.ByClient(client) })
	switch {
	case err != nil:
		return 0, nil, err
	case !ok:
		return 0, nil, bad("The appId '%s' of the service principal does not reference a valid application object.", in.AppID)
	}
	return 0, nil, taken("The service principal cannot be created because the service principal name %s is already in use.", client)
}

// principal is the service principal that the path names by object id or (appId='…').
func (d *Directory) principal(r *http.Request) (Object, error) {
	client, byClient := strings.CutPrefix(r.PathValue("id"), "appid=")
	if !byClient {
		return d.object(r.Context(), pathID(r), Application, ManagedIdentity)
	}
	o, ok, err := again(r.Context(), d, func() (Object, bool) { return d.ByClient(innate.ClientID(client)) })
	if err == nil && !ok {
		err = notFound(client)
	}
	return o, err
}

func (d *Directory) getPrincipal(r *http.Request, who innate.Principal) (int, any, error) {
	o, err := d.readable(r, who, d.principal)
	return http.StatusOK, d.whole(o), err
}

func (d *Directory) patchPrincipal(r *http.Request, who innate.Principal) (int, any, error) {
	var in struct {
		Enabled      *bool `json:"accountEnabled"`
		RoleRequired *bool `json:"appRoleAssignmentRequired"`
	}
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	if in.Enabled == nil && in.RoleRequired == nil {
		return 0, nil, bad("Only accountEnabled and appRoleAssignmentRequired of a service principal can be changed: the rest follows its application or resource.")
	}
	if err := d.config.MayEdit(r.Context(), who, actionPrincipal+"update"); err != nil {
		return 0, nil, err
	}
	o, err := d.principal(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, d.update(r.Context(), func(tx store.Tx) error {
		if in.RoleRequired != nil {
			if err := d.requireRole(r.Context(), tx, who, o, *in.RoleRequired); err != nil {
				return err
			}
		}
		if in.Enabled == nil {
			return nil
		}
		return d.enable(r.Context(), tx, who, o.ID, *in.Enabled)
	})
}

// requireRole says that only who is assigned to an application gets tokens for it, or that all do.
func (d *Directory) requireRole(ctx context.Context, tx store.Tx, who innate.Principal, o Object, required bool) error {
	if o.Kind != Application {
		if !required {
			return nil
		}
		return bad("'%s' is a managed identity: no tokens are issued for it, so none can require an assignment.", o.ID)
	}
	changed := false
	err := editRegistration(tx, o.Client, func(a *Registration) error {
		changed = a.RoleRequired != required
		a.RoleRequired = required
		return nil
	})
	if err != nil || !changed {
		return err
	}
	return d.leave(ctx, tx, who, actionPrincipal+"update", string(o.ID))
}

// deletePrincipal removes an application's service principal, and with it the
// registration. A managed identity goes with its resource.
func (d *Directory) deletePrincipal(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.config.MayEdit(r.Context(), who, actionPrincipal+"delete"); err != nil {
		return 0, nil, err
	}
	o, err := d.principal(r)
	if err != nil {
		return 0, nil, err
	}
	if o.Kind == ManagedIdentity {
		return 0, nil, bad("'%s' is a managed identity: turn it off at %s, or delete that.", o.ID, o.Owner)
	}
	return http.StatusNoContent, nil, d.delete(r, who, o.ID, actionPrincipal+"delete")
}

// delete removes an object of any kind, on the record.
func (d *Directory) delete(r *http.Request, who innate.Principal, id innate.ObjectID, action string) error {
	return d.update(r.Context(), func(tx store.Tx) error {
		if err := d.DeleteObject(tx, id); err != nil {
			return err
		}
		return d.leave(r.Context(), tx, who, action, string(id))
	})
}

// maxIDs bounds a getByIds request (Graph's own bound).
const maxIDs = 1000

// getByIDs resolves object ids of any kind; unknown ones are left out.
func (d *Directory) getByIDs(r *http.Request, who innate.Principal) (int, any, error) {
	var in struct {
		IDs   []innate.ObjectID `json:"ids"`
		Types []string          `json:"types"`
	}
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	if len(in.IDs) == 0 || len(in.IDs) > maxIDs {
		return 0, nil, bad("ids has %d object ids: want 1 to %d.", len(in.IDs), maxIDs)
	}
	if err := d.mayRead(r.Context(), who, in.IDs...); err != nil {
		return 0, nil, err
	}
	answer := list{Context: d.config.Graph + "/v1.0/$metadata#directoryObjects", Value: []any{}}
	found, missing := d.resolve(in.IDs)
	if missing {
		if err := d.Sync(r.Context()); err != nil {
			return 0, nil, err
		}
		found, _ = d.resolve(in.IDs)
	}
	for _, o := range found {
		if wanted(o, in.Types) {
			answer.Value = append(answer.Value, d.among(o))
		}
	}
	return http.StatusOK, answer, nil
}

// resolve finds the objects of ids, and says whether one is missing.
func (d *Directory) resolve(ids []innate.ObjectID) (found []Object, missing bool) {
	for _, id := range ids {
		if o, ok := d.Object(innate.ObjectID(strings.ToLower(string(id)))); ok {
			found = append(found, o)
		} else {
			missing = true
		}
	}
	return found, missing
}

// wanted reports whether o is of one of the types, such as "user"; none means any.
func wanted(o Object, types []string) bool {
	_, odataType := o.collection()
	return len(types) == 0 || slices.ContainsFunc(types, func(t string) bool {
		return strings.EqualFold("#microsoft.graph."+t, odataType) || strings.EqualFold(t, "directoryObject")
	})
}
