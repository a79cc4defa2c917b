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
func AddMember(tx store.Tx, group, member innate.ObjectID) error {
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
	return memberOfs.Put(tx, pair(member, group), struct{}{})
}

// RemoveMember is the inverse of AddMember.
func RemoveMember(tx store.Tx, group, member innate.ObjectID) error {
	if !isMember(tx, group, member) {
		return notFound(member)
	}
	dropMember(tx, group, member)
	return nil
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
func dropMemberships(tx store.Tx, id innate.ObjectID) {
	for _, group := range seconds(memberOfs, tx, id) {
		dropMember(tx, group, id)
	}
	for _, member := range membersOf(tx, id) {
		dropMember(tx, id, member)
	}
}

func dropMember(tx store.Tx, group, member innate.ObjectID) {
	members.Delete(tx, pair(group, member))
	memberOfs.Delete(tx, pair(member, group))
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
