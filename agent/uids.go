package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"innate"
)

// uids gives each app a uid of its own, for good: a uid is never given to
// another app, since files of the first may remain (host-attestation §3).
type uids struct {
	path string
	base uint32

	mu  sync.Mutex
	app map[string]uint32 // by resource key; as in the file
}

// mostUIDs bounds the range above the base.
const mostUIDs = 100_000_000

func openUIDs(path string, base uint32) (*uids, error) {
	u := &uids{path: path, base: base, app: map[string]uint32{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &u.app)
	}
	if err != nil {
		return nil, fmt.Errorf("reading which app has which uid: %w", err)
	}
	return u, nil
}

// of returns an app's uid; a new one is on disk before it is used.
func (u *uids) of(app innate.ResourceID) (uint32, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if uid, ok := u.app[app.Key()]; ok {
		return uid, nil
	}
	next := u.base
	for _, uid := range u.app {
		next = max(next, uid)
	}
	if next++; next-u.base > mostUIDs {
		return 0, fmt.Errorf("no uid is left above %d", u.base)
	}
	u.app[app.Key()] = next
	b, err := json.MarshalIndent(u.app, "", "  ")
	if err == nil {
		err = replace(u.path, b)
	}
	if err != nil {
		delete(u.app, app.Key())
		return 0, fmt.Errorf("writing which app has which uid: %w", err)
	}
	return next, nil
}
