package directory

import (
	"innate"
	"innate/store"
)

// A membership is two rows, so that both questions are one range.
const (
	members   store.Table[struct{}] = "directory/members/"  // group/member
	memberOfs store.Table[struct{}] = "directory/memberof/" // member/group
)

// AddMember puts member into group; cycles of groups are allowed and harmless.
func (d *Directory) AddMember(tx store.Tx, group, member innate.ObjectID) error {
	g, err := find(tx, group)
	if err != nil {
		return err
	}
	if g.Kind != Group {
		return bad("'%s' is not a group: only a group has members.", group)
	}
	if _, err := find(tx, member); err != nil {
		return err
	}
	if err := members.Put(tx, pair(group, member), struct{}{}); err != nil {
		return err
	}
	if err := memberOfs.Put(tx, pair(member, group), struct{}{}); err != nil {
		return err
	}
	return d.changedMember(tx, group, member)
}

// changedMember runs OnMember.
func (d *Directory) changedMember(tx store.Tx, group, member innate.ObjectID) error {
	for _, changed := range d.config.OnMember {
		if err := changed(tx, group, member); err != nil {
			return err
		}
	}
	return nil
}

// RemoveMember is the inverse of AddMember.
func (d *Directory) RemoveMember(tx store.Tx, group, member innate.ObjectID) error {
	if !isMember(tx, group, member) {
		return notFound(member)
	}
	return d.dropMember(tx, group, member)
}

// isMember reports whether member is directly in group.
func isMember(r store.Reader, group, member innate.ObjectID) bool {
	_, ok := r.Get(string(members) + pair(group, member))
	return ok
}

// membersOf lists who is directly in group, in order of object id.
func membersOf(r store.Reader, group innate.ObjectID) []innate.ObjectID {
	return seconds(members, r, group)
}

// dropMemberships takes id out of every group, and everybody out of it.
func (d *Directory) dropMemberships(tx store.Tx, id innate.ObjectID) error {
	for _, group := range seconds(memberOfs, tx, id) {
		if err := d.dropMember(tx, group, id); err != nil {
			return err
		}
	}
	for _, member := range membersOf(tx, id) {
		if err := d.dropMember(tx, id, member); err != nil {
			return err
		}
	}
	return nil
}

func (d *Directory) dropMember(tx store.Tx, group, member innate.ObjectID) error {
	members.Delete(tx, pair(group, member))
	memberOfs.Delete(tx, pair(member, group))
	return d.changedMember(tx, group, member)
}

// GroupsIn lists every group that id is in as a transaction sees it, nested ones
// too, each once; Groups is the same from memory.
func GroupsIn(r store.Reader, id innate.ObjectID) []innate.ObjectID {
	return closure(id, func(id innate.ObjectID) []innate.ObjectID { return seconds(memberOfs, r, id) })
}

// MembersIn lists every principal that is in a group, through nested groups too,
// and those groups, each once; the group itself only where it is in itself.
func MembersIn(r store.Reader, group innate.ObjectID) []innate.ObjectID {
	return closure(group, func(id innate.ObjectID) []innate.ObjectID { return membersOf(r, id) })
}

// closure lists what is reached from id by one step or more.
func closure(id innate.ObjectID, step func(innate.ObjectID) []innate.ObjectID) (all []innate.ObjectID) {
	seen := map[innate.ObjectID]bool{}
	for next := step(id); len(next) > 0; {
		var beyond []innate.ObjectID
		for _, id := range next {
			if !seen[id] {
				seen[id] = true
				all = append(all, id)
				beyond = append(beyond, step(id)...)
			}
		}
		next = beyond
	}
	return all
}

// seconds lists the second halves of the pairs that begin with first.
func seconds(t store.Table[struct{}], r store.Reader, first innate.ObjectID) (ids []innate.ObjectID) {
	under := string(first) + "/"
	for id := range t.All(r, under, "") {
		ids = append(ids, innate.ObjectID(id[len(under):]))
	}
	return ids
}

func pair(a, b innate.ObjectID) string { return string(a) + "/" + string(b) }
