package agent

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/user"
	"strconv"

	"innate"
)

// An account is a user of the host under whom an app runs instead of under a uid
// of its own.
type account struct {
	uid    uint32
	groups []uint32 // its own first
}

// lendsUser finds the user (name or uid) whom a run asks for. Its uid proves
// nothing, for other programs have it too: the cgroup must, so proof may not be
// less. It is for root alone, who can be that user anyway.
func (a *Agent) lendsUser(name string, by uint32, proof innate.Assurance) (*account, error) {
	refuse := func(format string, args ...any) (*account, error) {
		return nil, &innate.Refusal{Status: http.StatusForbidden, OAuth: "access_denied", Text: fmt.Sprintf(format, args...)}
	}
	switch {
	case by != 0:
		return refuse("uid %d may not run an app under another user: only root may", by)
	case os.Getuid() != 0:
		return refuse("under another user: only an agent that is root starts programs so, and this one is uid %d", os.Getuid())
	case proof < innate.CgroupUID:
		return refuse("under another user: here callers are proved by %s only, and every program of that user would be the app", proof)
	}
	found, err := user.Lookup(name)
	if err != nil {
		found, err = user.LookupId(name)
	}
	if err != nil {
		return nil, fmt.Errorf("this host has no user %q", name)
	}
	acc, err := readAccount(found)
	if err != nil {
		return nil, fmt.Errorf("reading who user %q is: %w", name, err)
	}
	if acc.uid == 0 {
		return refuse("%s is root: name a user who is not", name)
	}
	return acc, nil
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

// group is the group of the app's uid itself.
func (g *Generation) group() uint32 {
	if len(g.groups) > 0 {
		return g.groups[0]
	}
	return g.UID
}
