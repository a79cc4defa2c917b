package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"innate"
	"innate/agent/opener"
	"innate/feed/client"
)

// A Console is a program inside a running app's surroundings.
type Console struct {
	Generation int

	agent   *Agent
	process *opener.Process
}

// Console runs a program beside a generation of an app (0: the oldest that
// serves): in its cgroup, so that it gets the app's tokens and ends with it,
// under its uid, with its mounts and the very environment that it has. It is for
// root, the uids in the app's consoleFor and, in development, the agent's own.
func (a *Agent) Console(ctx context.Context, r ConsoleRequest, by uint32) (*Console, error) {
	p, err := a.runnable(ctx, r.App)
	if err != nil {
		return nil, err
	}
	if len(r.Args) == 0 {
		return nil, errors.New("nothing to start: no program was given")
	}
	ev := a.appEvent("console-app", p, by)
	ev.Detail["program"] = filepath.Base(r.Args[0])
	g, err := a.lookInto(p, r.Generation, by)
	if g != nil {
		ev.Detail["generation"] = strconv.Itoa(g.Generation)
	}
	if err := a.decide(ctx, ev, err); err != nil {
		return nil, err
	}
	process, err := g.beside(r.Args, r.Stdin, r.Stdout, r.Stderr)
	if err != nil {
		return nil, err
	}
	return &Console{g.Generation, a, process}, nil
}

// Wait waits for its end and returns the exit code as a shell counts it.
func (c *Console) Wait() (int, error) { return c.process.Wait() }

// end ends it; ended is closed when it has.
func (c *Console) end(ended <-chan struct{}) {
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGKILL} {
		if err := c.process.Signal(sig); errors.Is(err, os.ErrProcessDone) || within(ended, c.agent.config.Grace) {
			return
		}
	}
}

// Variables are those of a running app (generation 0: of the oldest that serves)
// with what is secret in them masked, for those who may have a Console.
func (a *Agent) Variables(ctx context.Context, app string, generation int, by uint32) ([]string, error) {
	p, err := a.runnable(ctx, app)
	if err != nil {
		return nil, err
	}
	g, err := a.lookInto(p, generation, by)
	if err := a.decide(ctx, a.appEvent("show-app-variables", p, by), err); err != nil {
		return nil, err
	}
	env, err := g.home.Environ()
	if err != nil {
		return nil, ended(g, err)
	}
	var references []string
	if g.secrets != nil {
		references = g.secrets.settings
	}
	return masked(env, references), nil
}

// lookInto finds the generation that a local user wants to look into, if he may.
func (a *Agent) lookInto(p *client.Placement, number int, by uint32) (*Generation, error) {
	if !a.rules(by) && !slices.Contains(p.ConsoleFor, by) {
		return nil, &innate.Refusal{
			Status: http.StatusForbidden, OAuth: "access_denied",
			Text: fmt.Sprintf("uid %d may not look into the running %s: root may, and the uids in the app's properties.consoleFor, which has %v", by, p.Name, p.ConsoleFor),
		}
	}
	found := a.apps.instances(p.Resource, number)
	if len(found) == 0 {
		return nil, a.apps.noGeneration(p, number)
	}
	return found[0].current(), nil
}

// noGeneration says that nothing runs that is ours; number 0 means that anything would have done.
func (s *apps) noGeneration(p *client.Placement, number int) error {
	if units := s.units(p.Resource); len(units) > 0 {
		return fmt.Errorf("%s runs here as %s: its programs are the service manager's to start, end and look into (systemctl)", p.Name, strings.Join(units, ", "))
	}
	if number == 0 {
		return fmt.Errorf("%s does not run here", p.Name)
	}
	return fmt.Errorf("%s has no generation %d here", p.Name, number)
}

// beside starts a program in the surroundings of g.
func (g *Generation) beside(args []string, in, out, diagnostics *os.File) (*opener.Process, error) {
	p, err := g.home.Start(opener.Program{Args: args, Beside: true}, [3]*os.File{in, out, diagnostics})
	if err != nil {
		return nil, ended(g, err)
	}
	return p, nil
}

func ended(g *Generation, err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("the first process of generation %d, whose environment it is, has ended", g.Generation)
	}
	return err
}

const mask = "********"

// suspect are parts of names whose values are taken for secrets. It is better to
// mask too much.
var suspect = []string{"SECRET", "PASSWORD", "PASSWD", "PWD", "PASSPHRASE", "TOKEN", "KEY", "CREDENTIAL", "CONNECTIONSTRING", "CONNSTR", "CONNECTION_STRING", "SAS", "SIGNATURE", "COOKIE", "AUTHORIZATION"}

// plain are variables that sound secret and are not.
var plain = []string{"PWD", "OLDPWD", secretsDirVariable, secretSignalVariable, "PGSSLKEY"}

// masked hides secrets in an environment: by the names that say so, what was a
// reference to a secret, the password in an address, and the endpoint's secret
// wherever it stands.
func masked(env, references []string) []string {
	values := map[string]string{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		values[name] = value
	}
	own := []string{values["IDENTITY_HEADER"], values["MSI_SECRET"]}
	all := make([]string, 0, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name]
		for _, secret := range own {
			if secret != "" {
				value = strings.ReplaceAll(value, secret, mask)
			}
		}
		upper := strings.ToUpper(name)
		named := slices.ContainsFunc(suspect, func(part string) bool { return strings.Contains(upper, part) }) && !slices.Contains(plain, name)
		if value != "" && (named || slices.Contains(references, name)) {
			value = mask
		}
		all = append(all, name+"="+withoutPassword(value))
	}
	return all
}

// withoutPassword masks the password in a value that is an address, such as a
// database's; one with a password that cannot be read is masked as a whole.
func withoutPassword(value string) string {
	scheme, rest, ok := strings.Cut(value, "://")
	at := strings.LastIndexByte(rest, '@')
	if !ok || at < 0 {
		return value
	}
	u, err := url.Parse(value)
	if err != nil {
		return mask
	}
	if _, has := u.User.Password(); !has {
		return value
	}
	user, _, _ := strings.Cut(rest[:at], ":")
	return scheme + "://" + user + ":" + mask + rest[at:]
}
