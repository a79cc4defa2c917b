package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// A folder is a directory with files for one generation, in Config.Runtime: the
// app reads them, and nobody but the agent puts any there or takes any away. They
// go with the generation, or with the next start of the agent.
type folder struct {
	dir   string
	at    string // where the app sees it
	uid   uint32 // owner of the files
	gid   uint32
	files fs.FileMode
}

// Kinds of folders: each is a directory in Config.Runtime that has one for each generation.
const (
	secretsDir = "secrets"  // a file for each setting
	loginsDir  = "postgres" // what PostgreSQL clients read
)

// fileModes are those of the files, by the kind of their folder.
var fileModes = map[string]fs.FileMode{secretsDir: 0o400, loginsDir: 0o600}

// makeFolder makes a generation's folder of a kind. With a mount namespace of its
// own the app sees it at one place in all its generations, over those of all
// other apps.
func (s *apps) makeFolder(g *Generation, kind string) (*folder, error) {
	all := filepath.Join(s.agent.config.Runtime, kind)
	f := &folder{dir: filepath.Join(all, directoryName(g.App)+"-g"+strconv.Itoa(g.Generation)), uid: g.UID, gid: g.group(), files: fileModes[kind]}
	if f.at = f.dir; s.agent.host().mounts == nil {
		f.at = all
	}
	if err := os.MkdirAll(all, 0o711); err != nil {
		return nil, err
	}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		return nil, err
	}
	g.folders = append(g.folders, f) // from here on it is taken away with g
	if os.Getuid() != 0 {
		return f, nil // the app's uid is ours
	}
	return f, errors.Join(os.Chown(f.dir, 0, int(f.gid)), os.Chmod(f.dir, 0o750))
}

// write puts a file in the place of the old one: whoever opens it reads the one
// or the other, whole.
func (f *folder) write(name string, content []byte) error {
	file, err := os.CreateTemp(f.dir, ".new-") // O_EXCL, 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // after the rename there is none
	_, err = file.Write(content)
	err = errors.Join(err, file.Chmod(f.files))
	if os.Getuid() == 0 {
		err = errors.Join(err, file.Chown(int(f.uid), int(f.gid)))
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), filepath.Join(f.dir, name))
}

// drop takes a file away, if there is one.
func (f *folder) drop(name string) error {
	if err := os.Remove(filepath.Join(f.dir, name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// remove takes the folder away; nothing may write to it any more.
func (f *folder) remove() error {
	if err := os.RemoveAll(f.dir); err != nil {
		return fmt.Errorf("removing an app's folder: %w", err)
	}
	return nil
}

// sweepFolders removes what an agent that was killed left in its apps' folders.
func (a *Agent) sweepFolders() error {
	for kind := range fileModes {
		if err := os.RemoveAll(filepath.Join(a.config.Runtime, kind)); err != nil {
			return fmt.Errorf("removing what an earlier agent left for its apps: %w", err)
		}
	}
	return nil
}
