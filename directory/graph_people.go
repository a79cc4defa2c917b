package directory

import (
	"context"
	"net/http"
	"strings"

	"innate"
	"innate/rest"
	"innate/store"
)

func (d *Directory) postUser(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.config.MayEdit(r.Context(), who, actionUser+"create"); err != nil {
		return 0, nil, err
	}
	var in struct {
		DisplayName string `json:"displayName"`
		UPN         string `json:"userPrincipalName"`
		Enabled     *bool  `json:"accountEnabled"`
		Password    any    `json:"passwordProfile"`
	}
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	if in.Password != nil {
		return 0, nil, bad("passwordProfile is not taken: this directory keeps no passwords of people. Leave it out.")
	}
	if in.Enabled != nil && !*in.Enabled {
		return 0, nil, bad("A user is created enabled: leave accountEnabled out, or true.")
	}
	return d.create(r, who, actionUser+"create", func(tx store.Tx) (Object, error) {
		return CreateUser(tx, in.DisplayName, in.UPN, d.config.Now())
	})
}

func (d *Directory) postGroup(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.config.MayEdit(r.Context(), who, actionGroup+"create"); err != nil {
		return 0, nil, err
	}
	var in struct {
		DisplayName string `json:"displayName"`
	}
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	return d.create(r, who, actionGroup+"create", func(tx store.Tx) (Object, error) {
		return CreateGroup(tx, in.DisplayName, d.config.Now())
	})
}

// create answers with the object that a transaction made, on the record.
func (d *Directory) create(r *http.Request, who innate.Principal, action string, build func(store.Tx) (Object, error)) (int, any, error) {
	var made Object
	err := d.update(r.Context(), func(tx store.Tx) (err error) {
		if made, err = build(tx); err != nil {
			return err
		}
		return d.leave(r.Context(), tx, who, action, string(made.ID))
	})
	return http.StatusCreated, d.whole(made), err
}

// user is the user that the path names by object id or userPrincipalName.
func (d *Directory) user(r *http.Request) (Object, error) {
	upn := r.PathValue("id")
	if !strings.Contains(upn, "@") {
		return d.object(r.Context(), pathID(r), User)
	}
	o, ok, err := again(r.Context(), d, func() (Object, bool) { return get(d.index, d.index.byUPN, upn) })
	if err == nil && !ok {
		err = notFound(upn)
	}
	return o, err
}

func (d *Directory) getUser(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.mayRead(r.Context(), who, pathID(r)); err != nil {
		return 0, nil, err
	}
	o, err := d.user(r)
	return http.StatusOK, d.whole(o), err
}

func (d *Directory) deleteUser(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.config.MayEdit(r.Context(), who, actionUser+"delete"); err != nil {
		return 0, nil, err
	}
	o, err := d.user(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, d.delete(r, who, o.ID, actionUser+"delete")
}

// group is the group that the path names.
func (d *Directory) group(r *http.Request) (Object, error) {
	return d.object(r.Context(), pathID(r), Group)
}

func (d *Directory) getGroup(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.mayRead(r.Context(), who); err != nil {
		return 0, nil, err
	}
	o, err := d.group(r)
	return http.StatusOK, d.whole(o), err
}

func (d *Directory) deleteGroup(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.config.MayEdit(r.Context(), who, actionGroup+"delete"); err != nil {
		return 0, nil, err
	}
	o, err := d.group(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, d.delete(r, who, o.ID, actionGroup+"delete")
}

// listMembers lists who is directly in a group.
func (d *Directory) listMembers(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.mayRead(r.Context(), who); err != nil {
		return 0, nil, err
	}
	g, err := d.group(r)
	if err != nil {
		return 0, nil, err
	}
	return page(d, r, lister[*Object]{
		set:    "directoryObjects",
		items:  func() ([]*Object, error) { return d.directMembers(r.Context(), g.ID) },
		id:     func(o *Object) string { return string(o.ID) },
		fields: d.field,
		write:  func(o *Object) any { return d.among(*o) },
	})
}

func (d *Directory) directMembers(ctx context.Context, group innate.ObjectID) (found []*Object, err error) {
	err = d.config.DB.View(ctx, func(rd store.Reader) error {
		for _, id := range membersOf(rd, group) {
			o, ok, err := Find(rd, id)
			if err != nil {
				return err
			}
			if ok {
				found = append(found, &o)
			}
		}
		return nil
	})
	return found, err
}

const actionMembers = actionGroup + "members/update"

func (d *Directory) postMember(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.config.MayEdit(r.Context(), who, actionMembers); err != nil {
		return 0, nil, err
	}
	var in struct {
		Ref string `json:"@odata.id"`
	}
	if err := rest.Read(r, &in); err != nil {
		return 0, nil, err
	}
	guid, err := innate.ParseGUID(in.Ref[strings.LastIndexByte(in.Ref, '/')+1:])
	if err != nil {
		return 0, nil, bad("@odata.id must end in the object id of the member: %s", err)
	}
	group, member := innate.ObjectID(r.PathValue("id")), innate.ObjectID(guid)
	return http.StatusNoContent, nil, d.update(r.Context(), func(tx store.Tx) error {
		if isMember(tx, group, member) {
			return bad("One or more added object references already exist for the following modified properties: 'members'.")
		}
		if err := d.AddMember(tx, group, member); err != nil {
			return err
		}
		return d.leave(r.Context(), tx, who, actionGroup+"members/add", pair(group, member))
	})
}

func (d *Directory) deleteMember(r *http.Request, who innate.Principal) (int, any, error) {
	if err := d.config.MayEdit(r.Context(), who, actionMembers); err != nil {
		return 0, nil, err
	}
	group, member := innate.ObjectID(r.PathValue("id")), innate.ObjectID(r.PathValue("mid"))
	return http.StatusNoContent, nil, d.update(r.Context(), func(tx store.Tx) error {
		if err := d.RemoveMember(tx, group, member); err != nil {
			return err
		}
		return d.leave(r.Context(), tx, who, actionGroup+"members/remove", pair(group, member))
	})
}
