package opener

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
)

// SocketFile is the agent's socket, in Config.Runtime.
const SocketFile = "agent.sock"

// control opens the agent's socket, or finds it open. Everybody may connect: the
// kernel says who did. What an earlier agent left in the folders of generations,
// secrets among it, is removed when it is sure that there is no other.
func (l *Local) openControl(context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.control == nil {
		c, err := listenAt(l.config.Runtime)
		if err != nil {
			return Answer{}, nil, err
		}
		defer c.Close()
		if l.control, err = duplicate(c, SocketFile); err != nil {
			return Answer{}, nil, err
		}
		l.manager.keep(SocketFile, map[string]*os.File{SocketFile: l.control})
		if err := l.sweepFolders(); err != nil {
			return Answer{}, nil, err
		}
	}
	f, err := duplicate(l.control, SocketFile)
	return Answer{}, []*os.File{f}, err
}

// listenAt listens at the socket in a folder, unless another agent does.
func listenAt(runtime string) (*net.UnixListener, error) {
	if err := os.MkdirAll(runtime, 0o711); err != nil {
		return nil, err
	}
	path := filepath.Join(runtime, SocketFile)
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("another agent answers at %s", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("opening the agent's socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// sweepFolders removes the folders of generations that are not, and their units'
// variables; l.mu is held.
func (l *Local) sweepFolders() error {
	kept := map[string]bool{}
	for _, h := range l.homes {
		for kind := range kinds {
			kept[h.folder(kind)] = true
		}
		if h.Service != nil {
			kept[h.variables()] = true
		}
	}
	for _, kind := range append(slices.Sorted(maps.Keys(kinds)), unitsDir) {
		dir := filepath.Join(l.config.Runtime, kind)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); !kept[path] {
				err = errors.Join(err, os.RemoveAll(path))
			}
		}
		if err != nil {
			return fmt.Errorf("removing %s that an earlier agent left: %w", kind, err)
		}
	}
	return nil
}
