package opener

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// The folders that a generation can have. Each is Runtime/KIND/HOME; who sees it where is start's.
const (
	Secrets    = "secrets"    // a file for each setting
	Logins     = "postgres"   // what PostgreSQL clients read
	Challenges = "challenges" // Arc's; the app can enter the folder, not list it
)

// kinds are those of folders. Each is seen by the app at one place in all its
// generations, where it can have a mount namespace of its own.
var kinds = map[string]struct {
	folder, files fs.FileMode
	at            string // empty: over the folders of all other generations
}{
	Secrets:    {0o750, 0o400, ""},
	Logins:     {0o750, 0o600, ""},
	Challenges: {0o711, 0o400, challengeDir},
}

// challengeDir is where SDKs insist that the files of Arc's challenges are.
const challengeDir = "/var/opt/azcmagent/tokens"

const (
	mostContent = 256 << 10 // bytes of a file
	mostFiles   = 1024      // of a folder
)

// fileName is what a file may be called: no path, nothing hidden.
var fileName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}$`)

// makeFolder makes a folder, empty: what an opener that was killed left there has
// lost its meaning. The app may read it, and nobody but us write.
func (h *home) makeFolder(_ context.Context, o Order, _ []*os.File) (Answer, []*os.File, error) {
	kind, known := kinds[o.Folder]
	if !known {
		return Answer{}, nil, fmt.Errorf("generations have no folder %.40q", o.Folder)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return Answer{}, nil, errOver
	}
	dir := h.folder(o.Folder)
	err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Dir(dir), 0o711))
	if err == nil {
		h.folders[o.Folder] = true // from here on it is removed with the home
		err = os.Mkdir(dir, 0o700)
	}
	if err == nil && h.local.root {
		err = os.Chown(dir, 0, int(h.groups[0]))
	}
	if err == nil {
		err = os.Chmod(dir, kind.folder)
	}
	if err != nil {
		err = fmt.Errorf("making the folder of the app's %s: %w", o.Folder, err)
	}
	return Answer{Path: h.seenAt(o.Folder)}, nil, errors.Join(err, h.save())
}

// seenAt is where the app sees one of its folders.
func (h *home) seenAt(kind string) string {
	switch {
	case kinds[kind].at != "":
		return kinds[kind].at
	case h.unit == nil && h.local.ground().facts.NoMounts == "":
		return filepath.Dir(h.folder(kind))
	}
	return h.folder(kind)
}

var errOver = errors.New("the generation is over")

// file is the path of a file in a folder that was made; h.mu is held.
func (h *home) file(o Order) (string, error) {
	switch {
	case h.over:
		return "", errOver
	case !h.folders[o.Folder]:
		return "", fmt.Errorf("the generation has no folder %.40q", o.Folder)
	case !fileName.MatchString(o.Name):
		return "", fmt.Errorf("a file called %.80q: want letters, digits, dots, hyphens and underscores", o.Name)
	}
	return filepath.Join(h.folder(o.Folder), o.Name), nil
}

// write puts a file of the app's own in the place of the old one: whoever
// opens it reads the one or the other, whole. It says whether there is a difference.
func (h *home) write(_ context.Context, o Order, _ []*os.File) (Answer, []*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	path, err := h.file(o)
	if err != nil {
		return Answer{}, nil, err
	}
	if len(o.Content) > mostContent {
		return Answer{}, nil, fmt.Errorf("a file of %d bytes: want at most %d", len(o.Content), mostContent)
	}
	old, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(old, o.Content):
		return Answer{}, nil, nil
	case errors.Is(err, fs.ErrNotExist):
		if all, err := os.ReadDir(filepath.Dir(path)); err != nil || len(all) >= mostFiles {
			return Answer{}, nil, errors.Join(err, fmt.Errorf("a folder of %d files: want at most %d", len(all), mostFiles))
		}
	}
	return Answer{Changed: true}, nil, h.replace(path, o.Content, kinds[o.Folder].files)
}

func (h *home) replace(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is none
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode))
	if h.local.root {
		err = errors.Join(err, f.Chown(int(h.UID), int(h.groups[0])))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// unlink takes a file away; it may be gone.
func (h *home) unlink(_ context.Context, o Order, _ []*os.File) (Answer, []*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	path, err := h.file(o)
	if err == nil {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return Answer{}, nil, err
}
