// Package unit is what systemd says of a service, and the drop-in that makes the
// service an app.
//
// The drop-in is the whole of an attachment: whoever may install units decides which
// of them are apps. It has systemd run a program of ours before each start of the
// service, as root and in the service's cgroup, and read the variables that the
// program wrote. Asking the agent is that program's to do.
package unit

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Service is what systemd says of one now.
type Service struct {
	Name       string // its own, were it asked for by another
	User       string // empty: root
	Dynamic    bool   // systemd makes up its user
	UID, GID   uint32 // of its processes; 0: it is not running
	Cgroup     string // path in the hierarchy; empty: it is not running
	Invocation string // id of this start of it
	Delegated  bool   // it may make cgroups below its own

	loaded     bool
	elsewhere  bool     // it has not the host's network
	privileged []string // programs that it runs as root beside those of its user
}

// names of services and templates; systemd.unit(5).
var names = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.service$`)

const longest = 255 // bytes of a name

// CheckName refuses what is no service or template.
func CheckName(name string) error {
	if !names.MatchString(name) || len(name) > longest {
		return fmt.Errorf("unit %.80q: want a service or a template of services, such as api.service, worker@1.service or worker@.service", name)
	}
	return nil
}

// template is what an instance is of; empty: name is none.
func template(name string) string {
	before, _, instance := strings.Cut(name, "@")
	if !instance {
		return ""
	}
	return before + "@.service"
}

// stranger stands for the instances of a template, which is no service itself.
const stranger = "innate"

// properties are those that Read asks for; systemd.directives(7), org.freedesktop.systemd1(5).
var properties = []string{
	"Id", "LoadState", "User", "DynamicUser", "UID", "GID", "ControlGroup", "InvocationID", "Delegate", "PrivateNetwork", "NetworkNamespacePath",
	"ExecConditionEx", "ExecStartPreEx", "ExecStartEx", "ExecStartPostEx", "ExecReloadEx", "ExecStopEx", "ExecStopPostEx",
}

// Read asks systemd about a service, or what a template's instances are like.
func Read(name string) (*Service, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	asked := name
	if name == template(name) {
		asked = strings.Replace(name, "@", "@"+stranger, 1)
	}
	out, err := systemctl("show", "--property", strings.Join(properties, ","), "--", asked)
	if err != nil {
		return nil, err
	}
	s, err := parse(out)
	if err != nil {
		return nil, fmt.Errorf("reading what systemd says of %s: %w", name, err)
	}
	if asked != name {
		s.Name = template(s.Name)
	}
	return s, nil
}

// systemctl runs it in an environment of its own: ours may be that of a unit.
func systemctl(args ...string) ([]byte, error) {
	cmd := exec.Command("systemctl", args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("systemctl %s: %s", args[0], bytes.TrimSpace(exit.Stderr))
	}
	if err != nil {
		return nil, fmt.Errorf("asking systemd: %w", err)
	}
	return out, nil
}

// Reload has systemd read its units again.
func Reload() error {
	_, err := systemctl("daemon-reload")
	return err
}

// parse reads the answer of 'systemctl show': a line for each property, and for each
// program that is run.
func parse(out []byte) (*Service, error) {
	s := &Service{}
	var err error
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch name {
		case "Id":
			s.Name = value
		case "LoadState":
			s.loaded = value == "loaded"
		case "User":
			s.User = value
		case "DynamicUser":
			s.Dynamic = value == "yes"
		case "UID":
			s.UID, err = number(value)
		case "GID":
			s.GID, err = number(value)
		case "ControlGroup":
			s.Cgroup = value
		case "InvocationID":
			s.Invocation = value
		case "Delegate":
			s.Delegated = value == "yes"
		case "PrivateNetwork":
			s.elsewhere = s.elsewhere || value == "yes"
		case "NetworkNamespacePath":
			s.elsewhere = s.elsewhere || value != ""
		default:
			if strings.HasPrefix(name, "Exec") && asRoot.MatchString(value) {
				s.privileged = append(s.privileged, value)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if CheckName(s.Name) != nil {
		return nil, fmt.Errorf("it calls it %.80q", s.Name)
	}
	return s, nil
}

// number reads a uid or gid; that of a service that does not run is not set.
func number(text string) (uint32, error) {
	if text == "[not set]" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err
}

// asRoot finds a program that is run as root whatever User= says: by a plus or an
// exclamation mark before its name; systemd.service(5).
var asRoot = regexp.MustCompile(` ; flags=[a-z -]*\b(privileged|no-setuid)\b`)

// Check refuses a service that cannot be an app. The program ours is the one that
// the drop-in has systemd run.
func (s *Service) Check(ours string) error {
	others := slices.DeleteFunc(slices.Clone(s.privileged), func(what string) bool {
		return strings.HasPrefix(what, "{ path="+ours+" ; argv[]="+ours+" "+Subcommand+" ")
	})
	switch {
	case !s.loaded:
		return fmt.Errorf("systemd has no unit %s that it could load: 'systemctl status %s' says more", s.Name, s.Name)
	case !s.Dynamic && isRoot(s.User):
		return fmt.Errorf("%s runs as root, and whoever writes the app's settings would be root by its variables: give it a User= or DynamicUser=yes", s.Name)
	case len(others) > 0:
		path, _, _ := strings.Cut(strings.TrimPrefix(others[0], "{ path="), " ;")
		return fmt.Errorf("%s runs %s as root (a + or ! before its name), and whoever writes the app's settings would be root by its variables: put that into another unit", s.Name, path)
	case s.elsewhere:
		return fmt.Errorf("%s has a network of its own, where the endpoint is not: take out PrivateNetwork= or NetworkNamespacePath=", s.Name)
	}
	return nil
}

// isRoot reports whether User= is root; a user who is not there yet is none.
func isRoot(name string) bool {
	if name == "" {
		return true
	}
	found, err := user.Lookup(name)
	if err != nil {
		found, err = user.LookupId(name)
	}
	return err == nil && found.Uid == "0"
}
