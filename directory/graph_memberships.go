package directory

import (
	"net/http"
	"slices"

	"innate"
	"innate/rest"
	"innate/store"
)

// A finder reads the object that a path names as its set's paths do.
type finder func(*http.Request) (Object, error)

// memberOf lists the groups that an object is in: those that groups says.
func (d *Directory) memberOf(find finder, groups func(innate.ObjectID) []innate.ObjectID) verb {
	return func(r *http.Request, who innate.Principal) (int, any, error) {
		o, err := d.readable(r, who, find)
		if err != nil {
			return 0, nil, err
		}
		return page(d, r, lister[Object]{
			set: "directoryObjects",
			items: func() ([]Object, error) {
				found, _ := d.resolve(groups(o.ID))
				return found, nil
			},
			id:     func(g Object) string { return string(g.ID) },
			fields: func(g Object, name string) ([]string, bool) { return d.field(&g, name) },
			write:  func(g Object) any { return d.among(g) },
		})
	}
}

// memberGroups answers getMemberGroups and getMemberObjects, which are one here:
// whatever an object is in is a group, and every group a security group.
func (d *Directory) memberGroups(find finder) verb {
	return func(r *http.Request, who innate.Principal) (int, any, error) {
		o, err := d.readable(r, who, find)
		if err != nil {
			return 0, nil, err
		}
		ids, _, err := again(r.Context(), d, func() ([]innate.ObjectID, bool) {
			groups := d.Groups(o.ID)
			return groups, len(groups) > 0
		})
		if err != nil {
			return 0, nil, err
		}
		answer := list{Context: d.config.Graph + "/v1.0/$metadata#Collection(Edm.String)", Value: []any{}}
		for _, id := range slices.Sorted(slices.Values(ids)) {
			answer.Value = append(answer.Value, id)
		}
		return http.StatusOK, answer, nil
	}
}

// readable is what find finds, for who may read it: itself may.
func (d *Directory) readable(r *http.Request, who innate.Principal, find finder) (Object, error) {
	if !d.namesItself(r, who) {
		if err := d.mayRead(r.Context(), who); err != nil {
			return Object{}, err
		}
	}
	return find(r)
}

func (d *Directory) patchGroup(r *http.Request, who innate.Principal) (int, any, error) {
	const action = actionGroup + "update"
	if err := d.config.MayEdit(r.Context(), who, action); err != nil {
		return 0, nil, err
	}
	var in struct {
		DisplayName *string `json:"displayName"`
	}
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	g, err := d.group(r)
	if err != nil || in.DisplayName == nil {
		return http.StatusNoContent, nil, err
	}
	return http.StatusNoContent, nil, d.update(r.Context(), func(tx store.Tx) error {
		if err := rename(tx, g.ID, *in.DisplayName); err != nil {
			return err
		}
		return d.leave(r.Context(), tx, who, action, string(g.ID))
	})
}
