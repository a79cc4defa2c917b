package databases

import (
	"slices"

	"innate"
	"innate/directory"
	"innate/feed/client"
	"innate/store"
)

// Member brings up to date what follows from a membership that came or went. It
// is one of directory.Config.OnMember.
func (d *Databases) Member(tx store.Tx, group, member innate.ObjectID) error {
	at := serversOf(tx, append(directory.GroupsIn(tx, group), group))
	if len(at) == 0 {
		return nil
	}
	return d.refresh(tx, at, append(directory.MembersIn(tx, member), member)...)
}

// Enabled lets in a principal that was enabled, and shuts out one that was
// disabled. It is one of directory.Config.OnEnable.
func (d *Databases) Enabled(tx store.Tx, o directory.Object) error {
	return d.refresh(tx, serversOf(tx, append(directory.GroupsIn(tx, o.ID), o.ID)), o.ID)
}

// Gone removes what is known of a principal that is gone, whose memberships went
// before it. It is one of directory.Config.OnDelete.
func (d *Databases) Gone(tx store.Tx, o directory.Object) error {
	under := string(o.ID) + "/"
	for row, server := range holding.All(tx, under, "") {
		for _, kind := range kinds {
			if row == holdingRow(o.ID, kind, server) {
				mapped.Delete(tx, mappedRow(server, kind, o.ID))
			}
		}
		holding.Delete(tx, row)
	}
	var at []innate.ResourceID
	for _, server := range logins.All(tx, under, "") {
		at = append(at, server)
	}
	return d.refresh(tx, at, o.ID)
}

// serversOf lists where one of these is mapped itself.
func serversOf(r store.Reader, ids []innate.ObjectID) (all []innate.ResourceID) {
	for _, id := range ids {
		for _, server := range holding.All(r, string(id)+"/", "") {
			if !slices.ContainsFunc(all, server.Equal) {
				all = append(all, server)
			}
		}
	}
	return all
}

// refresh makes the rows of these principals at these servers what follows from
// the mappings, the groups and the directory as the transaction sees them.
func (d *Databases) refresh(tx store.Tx, at []innate.ResourceID, ids ...innate.ObjectID) error {
	if len(at) == 0 {
		return nil
	}
	for _, id := range ids {
		changed := false
		for _, server := range at {
			now, err := effective(tx, server, id)
			if err != nil {
				return err
			}
			one, err := putLogin(tx, server, now)
			if err != nil {
				return err
			}
			changed = changed || one
		}
		if !changed {
			continue
		}
		if err := d.config.OnLogin(tx, id); err != nil {
			return err
		}
	}
	return nil
}

// effective is what a principal may log in as at a server; no roles when it may not.
func effective(r store.Reader, server innate.ResourceID, id innate.ObjectID) (client.DatabaseLogin, error) {
	login := client.DatabaseLogin{Object: id}
	o, ok, err := directory.Find(r, id)
	if err != nil || !ok || !o.Enabled || o.Kind == directory.Group {
		return login, err
	}
	login.Name = o.Name
	for _, h := range held(r, server, id) {
		if h.err != nil {
			return login, h.err
		}
		login.Roles = append(login.Roles, h.Roles...)
		login.Admin = login.Admin || h.kind == administrators
	}
	slices.Sort(login.Roles)
	login.Roles = slices.Compact(login.Roles)
	return login, nil
}

// putLogin writes a row, or removes it, and reports whether that says something new.
func putLogin(tx store.Tx, server innate.ResourceID, now client.DatabaseLogin) (changed bool, err error) {
	id := string(now.Object)
	old, there, err := loginsAt(server).Get(tx, id)
	if err != nil {
		return false, err
	}
	if len(now.Roles) == 0 {
		if there {
			loginsAt(server).Delete(tx, id)
			logins.Delete(tx, id+"/"+rowOf(server))
		}
		return there, nil
	}
	if there && old.Name == now.Name && old.Admin == now.Admin && slices.Equal(old.Roles, now.Roles) {
		return false, nil
	}
	if err := logins.Put(tx, id+"/"+rowOf(server), server); err != nil {
		return false, err
	}
	return true, loginsAt(server).Put(tx, id, now)
}
