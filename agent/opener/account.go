package opener

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
)

// An account is a user of the host under whom an app runs instead of under a uid
// of its own.
type account struct {
	uid    uint32
	groups []uint32 // its own first
}

// lends finds a user (name or uid) whom apps may run under.
func (l *Local) lends(name string) (*account, error) {
	if !l.root {
		return nil, fmt.Errorf("under another user: only an agent that is root starts programs so, and this one is uid %d", os.Getuid())
	}
	found, err := user.Lookup(name)
	if err != nil {
		found, err = user.LookupId(name)
	}
	if err != nil {
		return nil, fmt.Errorf("this host has no user %.80q", name)
	}
	acc, err := readAccount(found)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading who user %q is: %w", found.Username, err)
	case acc.uid == 0:
		return nil, fmt.Errorf("%s is root: name a user who is not", name)
	case !l.config.AnyUser && !slices.Contains(l.config.Lend, found.Username) && !slices.Contains(l.config.Lend, found.Uid):
		return nil, fmt.Errorf("the agent was not told that apps may run under %s: start it with --lend-user %s", found.Username, found.Username)
	}
	return acc, nil
}

// tellLends says whether apps may run under a user.
func (l *Local) tellLends(_ context.Context, o Order, _ []*os.File) (Answer, []*os.File, error) {
	_, err := l.lends(o.User)
	return Answer{}, nil, err
}

// readAccount reads the numbers of a user.
func readAccount(u *user.User) (*account, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	own, ownErr := strconv.ParseUint(u.Gid, 10, 32)
	ids, idsErr := u.GroupIds()
	if err := errors.Join(err, ownErr, idsErr); err != nil {
		return nil, err
	}
	acc := &account{uid: uint32(uid), groups: []uint32{uint32(own)}}
	for _, id := range ids {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, err
		}
		if n != own {
			acc.groups = append(acc.groups, uint32(n))
		}
	}
	return acc, nil
}

// accountOf is under whom the programs of an app run.
func (l *Local) accountOf(o Order) (*account, error) {
	switch {
	case o.Service != nil:
		return l.accountOfUnit(*o.Service)
	case o.User != "":
		return l.lends(o.User)
	}
	uid := uint32(os.Getuid())
	if l.root {
		var err error
		if uid, err = l.uids.of(o.App); err != nil {
			return nil, err
		}
	}
	return &account{uid: uid, groups: []uint32{uid}}, nil
}
