package opener

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"innate/agent/launch"
)

// A unit of the host's service manager is a generation in a cgroup that is the
// manager's. We hold its port and its files. Its processes we never start, signal or
// end, and its cgroup we never remove: launch.Watched can do none of that.

var errManagers = errors.New("a unit's processes are its service manager's")

// serviceName is what a service that runs is called; systemd.unit(5).
var serviceName = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?\.service$`)

const longestUnit = 255 // bytes of a name

const unitsDir = "units"

// EnvironmentFile is where the service manager reads a unit's variables. Who starts
// the unit writes it, as root; the opener takes it away with the generation. systemd
// takes a backslash in the path that it is told for the escape of a pattern.
func EnvironmentFile(runtime, unit string) string {
	return filepath.Join(runtime, unitsDir, strings.ReplaceAll(unit, `\`, "")+".env")
}

// variables is the path of the unit's.
func (h *home) variables() string { return EnvironmentFile(h.local.config.Runtime, h.Service.Unit) }

// accountOfUnit is under whom a unit runs.
func (l *Local) accountOfUnit(s Service) (*account, error) {
	switch {
	case !l.root:
		return nil, errors.New("a unit as an app: only an agent that is root can tell it from other programs")
	case !serviceName.MatchString(s.Unit) || len(s.Unit) > longestUnit:
		return nil, fmt.Errorf("unit %.80q: want the name of a service, such as api.service", s.Unit)
	case s.UID == 0:
		return nil, fmt.Errorf("%s runs as root: an app never does", s.Unit)
	}
	return &account{uid: s.UID, groups: []uint32{s.GID}}, nil
}

// adopt takes the cgroup of the home's unit for the home's.
func (h *home) adopt() (err error) {
	if err := os.MkdirAll(filepath.Join(h.local.config.Runtime, unitsDir), 0o700); err != nil {
		return err
	}
	if h.unit, err = watch(*h.Service); err != nil {
		return err
	}
	h.Cgroup, h.CgroupID = h.unit.Path(), h.unit.ID()
	_, err = h.local.removals.In(filepath.Dir(h.Cgroup)) // or its end would not be heard
	return err
}

// watch finds the cgroup of a service, which is called like it: systemd puts an
// underscore before names that the kernel could have for files.
func watch(s Service) (*launch.Watched, error) {
	base := filepath.Base(s.Cgroup)
	switch {
	case base != s.Unit && base != "_"+s.Unit:
		return nil, fmt.Errorf("cgroup %.300q is not that of %s", s.Cgroup, s.Unit)
	case strings.HasPrefix(s.Cgroup, "/user.slice/"):
		return nil, fmt.Errorf("%s is a session of a user's: what runs there is the user's to say", s.Unit)
	}
	return launch.Watch(s.Cgroup)
}

// restoreUnit takes a home up that is a unit's, if the unit was not started again.
func (l *Local) restoreUnit(h *home, whole bool) (err error) {
	if h.unit, err = watch(*h.Service); err == nil {
		switch {
		case h.unit.ID() != h.CgroupID:
			err = errors.New("the unit was started again meanwhile")
		case !whole:
			err = fmt.Errorf("its port is lost: it has no identity until 'systemctl restart %s'", h.Service.Unit)
		default:
			l.homes[h.ID] = h
			return nil
		}
	}
	return errors.Join(err, h.close())
}
