package opener

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
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

const (
	uidsFile   = "uids.json" // in Config.Records
	mostUIDs   = 100_000_000 // bounds the range above the base
	highestUID = 1<<31 - 2   // above it, some programs see negative numbers
	systemUIDs = 1000        // and below are the system's own
	nobodyUID  = 65534       // and the next is no uid in 16 bits
	dynamicLow = 61184       // systemd's DynamicUser=, from here
	dynamicTop = 65519       // to here
	subUIDs    = "/etc/subuid"
)

func openUIDs(path string, base uint32) (*uids, error) {
	subuid, err := os.Open(subUIDs)
	if err == nil {
		defer subuid.Close()
		err = checkRange(base, subuid)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = checkRange(base, strings.NewReader(""))
	}
	if err != nil {
		return nil, err
	}
	u := &uids{path: path, base: base, app: map[string]uint32{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &u.app)
	}
	if err == nil {
		err = u.check()
	}
	if err != nil {
		return nil, fmt.Errorf("reading which app has which uid: %s: %w", path, err)
	}
	return u, nil
}

// checkRange refuses a range of uids that others give away too, by themselves or
// by subuid, whose lines are "user:first:count".
func checkRange(base uint32, subuid io.Reader) error {
	first, last := uint64(base)+1, uint64(base)+mostUIDs
	meets := func(low, high uint64) bool { return first <= high && low <= last }
	advice := fmt.Sprintf("apps would get the uids from %d to %d", first, last)
	switch {
	case last > highestUID:
		return fmt.Errorf("%s: want none above %d", advice, uint64(highestUID))
	case meets(0, systemUIDs), meets(nobodyUID, nobodyUID+1), meets(dynamicLow, dynamicTop):
		return fmt.Errorf("%s: up to %d, from %d to %d and %d are the system's own", advice, systemUIDs, dynamicLow, dynamicTop, nobodyUID)
	}
	lines := bufio.NewScanner(subuid)
	for lines.Scan() {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) != 3 {
			continue // a comment, or what no tool would read either
		}
		low, err := strconv.ParseUint(fields[1], 10, 32)
		count, countErr := strconv.ParseUint(fields[2], 10, 32)
		if err != nil || countErr != nil || count == 0 {
			continue
		}
		if meets(low, low+count-1) {
			return fmt.Errorf("%s: %s gives those from %d to %d to %s", advice, subUIDs, low, low+count-1, fields[0])
		}
	}
	return lines.Err()
}

// check refuses a map by which two apps would be one, or an app somebody else.
func (u *uids) check() error {
	has := map[uint32]string{}
	for app, uid := range u.app {
		if other, ok := has[uid]; ok {
			return fmt.Errorf("%s and %s both have uid %d", app, other, uid)
		}
		if uid <= systemUIDs {
			return fmt.Errorf("%s has uid %d, which is the system's", app, uid)
		}
		has[uid] = app
	}
	return nil
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
		if uid-u.base <= mostUIDs { // another base was configured before
			next = max(next, uid)
		}
	}
	for next++; isUser(next); next++ {
	}
	if next-u.base > mostUIDs {
		return 0, fmt.Errorf("no uid is left above %d", u.base)
	}
	u.app[app.Key()] = next
	b, err := json.MarshalIndent(u.app, "", "  ")
	if err == nil {
		err = replaceFile(u.path, b)
	}
	if err != nil {
		delete(u.app, app.Key())
		return 0, fmt.Errorf("writing which app has which uid: %w", err)
	}
	return next, nil
}

// isUser reports whether somebody has that uid already.
func isUser(uid uint32) bool {
	_, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	return err == nil
}

// replaceFile writes a file, mode 0600, so that after a crash it is the old one or the new one, whole.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is none
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
