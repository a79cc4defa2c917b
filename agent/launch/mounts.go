package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Shown directory is seen by the program in another place as well. The place
// need not exist: it is then made in what the program alone sees.
type Shown struct{ Dir, At string }

// show binds the directory to its place.
func (s Shown) show() error {
	if err := makePlace(s.At); err != nil {
		return fmt.Errorf("making %s: %w", s.At, err)
	}
	if err := unix.Mount(s.Dir, s.At, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("showing %s as %s: %w", s.Dir, s.At, err)
	}
	return nil
}

// makePlace makes a directory that is not there, in an empty file system over
// the nearest one above that is; what that one has is bound into it again.
func makePlace(place string) error {
	if _, err := os.Stat(place); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	above := filepath.Dir(place)
	for ; above != "/"; above = filepath.Dir(above) {
		if _, err := os.Stat(above); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if above == "/" {
		return fmt.Errorf("%s is missing: make it", place[:1+strings.IndexByte(place[1:]+"/", '/')])
	}
	covered, err := os.Open(above) // its content, once it is covered
	if err != nil {
		return err
	}
	defer covered.Close()
	entries, err := covered.ReadDir(-1)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", above, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("covering %s: %w", above, err)
	}
	for _, e := range entries {
		from := fmt.Sprintf("/proc/self/fd/%d/%s", covered.Fd(), e.Name())
		if err := rebind(from, filepath.Join(above, e.Name()), e); err != nil {
			return fmt.Errorf("keeping %s in %s: %w", e.Name(), above, err)
		}
	}
	return os.MkdirAll(place, 0o755)
}

// rebind makes what e is at to again.
func rebind(from, to string, e fs.DirEntry) error {
	switch {
	case e.Type() == fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case e.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
	default:
		f, err := os.Create(to)
		if err != nil {
			return err
		}
		f.Close()
	}
	return unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
}
