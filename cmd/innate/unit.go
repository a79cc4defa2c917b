package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"innate"
	"innate/agent"
	"innate/agent/launch"
	"innate/agent/opener"
	"innate/agent/unit"
)

// attachUnit makes a unit of the host an app. The agent decides whether it may be
// one; the drop-in that says so is ours to write, as whoever may install units.
func (s *session) attachUnit(socket, app, name string) error {
	program, err := ownProgram()
	if err != nil {
		return err
	}
	service, err := unit.Read(name)
	if err != nil {
		return err
	}
	if err := service.Check(program); err != nil {
		return err
	}
	name = service.Name
	related, err := unit.Related(name)
	if err != nil {
		return err
	}
	for r, is := range related {
		if !strings.EqualFold(is.Name(), app) && !is.Equal(innate.ResourceID(app)) {
			return fmt.Errorf("%s is the app %s already: 'innate detach --unit %s' first", r, is.Name(), r)
		}
	}
	at, err := agent.AttachUnit(socket, app, name)
	if err != nil {
		return err
	}
	if socket, err = filepath.Abs(socket); err != nil {
		return err
	}
	drop := unit.DropIn{
		Unit: name, App: at.App, After: at.After, Program: program, Socket: socket,
		File: opener.EnvironmentFile(filepath.Dir(socket), "%n"),
	}
	if err := drop.Write(); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: who may install units says which of them are apps", err)
	} else if err != nil {
		return err
	}
	if err := unit.Reload(); err != nil {
		return errors.Join(err, unit.Remove(name))
	}
	return s.say(map[string]string{"unit": name, "app": string(at.App), "dropIn": unit.Path(name)},
		"%s is the app %s from its next start on: systemctl restart %s", name, at.App.Name(), strings.Replace(name, "@.", "@*.", 1))
}

// ownProgram is the path of this program, which systemd is to run as root.
func ownProgram() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Sys().(*syscall.Stat_t).Uid != 0 || info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("systemd would run %s as root at each start of the unit, and it is not root's alone to write: install it, to /usr/bin for instance", path)
	}
	return path, nil
}

// detachUnit is the inverse.
func (s *session) detachUnit(socket, name string) error {
	if err := unit.CheckName(name); err != nil {
		return err
	}
	app, err := unit.Attached(name)
	if err != nil {
		return err
	}
	if app == "" {
		return fmt.Errorf("%s is no app: it has no %s", name, unit.Path(name))
	}
	if err := agent.DetachUnit(socket, app, name); err != nil {
		return err
	}
	if err := errors.Join(unit.Remove(name), unit.Reload()); err != nil {
		return err
	}
	return s.say(map[string]string{"unit": name, "app": string(app)}, "%s is the app %s no more.", name, app.Name())
}

// unitCommand is what systemd runs before a unit that is an app: it asks the agent
// for a generation, and writes down what the unit's programs are to know.
func (s *session) unitCommand() *cobra.Command {
	var app, socket string
	cmd := &cobra.Command{
		Use: unit.Subcommand + " NAME", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			program, err := os.Executable()
			if err != nil {
				return err
			}
			service, err := unit.Read(args[0])
			if err != nil {
				return err
			}
			if err := service.Check(program); err != nil {
				return err
			}
			if !startedBy(service) {
				return fmt.Errorf("this command is for systemd, before it starts %s", service.Name)
			}
			file := opener.EnvironmentFile(filepath.Dir(socket), service.Name)
			env, err := agent.StartUnit(socket, agent.UnitStart{
				App: app,
				Service: opener.Service{
					Unit: service.Name, Cgroup: service.Cgroup, UID: service.UID, GID: service.GID, Delegated: service.Delegated,
				},
				Invocation: service.Invocation, Env: unit.Without(os.Environ(), file),
			})
			if err != nil {
				return err
			}
			return unit.WriteVariables(file, env)
		},
	}
	cmd.Flags().StringVar(&app, "app", "", "id of the app")
	cmd.Flags().StringVar(&socket, "agent", defaultAgentSocket(), "the agent's `socket`")
	cmd.MarkFlagRequired("app")
	return cmd
}

// startedBy reports whether this process is in the service's cgroup, where systemd
// alone puts any.
func startedBy(s *unit.Service) bool {
	top, err := launch.Hierarchy()
	if err != nil || s.Cgroup == "" || s.UID == 0 {
		return false
	}
	own, err := launch.OwnDirectory()
	return err == nil && strings.HasPrefix(own+"/", filepath.Join(top, s.Cgroup)+"/") // below it, where it is delegated
}
