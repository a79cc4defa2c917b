package unit

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"innate"
)

// Subcommand of our program is what systemd runs before a start.
const Subcommand = "unit"

const (
	folder   = "/etc/systemd/system"
	fileName = "90-innate.conf" // late: what it adds comes after what the unit has
	appKey   = "App="
)

// foreign are variables by which SDKs would look for an identity elsewhere.
const foreign = "IMDS_ENDPOINT IDENTITY_SERVER_THUMBPRINT AZURE_FEDERATED_TOKEN_FILE AZURE_POD_IDENTITY_AUTHORITY_HOST DEFAULT_IDENTITY_CLIENT_ID"

// A DropIn makes a unit an app.
type DropIn struct {
	Unit    string
	App     innate.ResourceID
	After   string // the agent's own unit; empty: it has none
	Program string // ours
	Socket  string // the agent's
	File    string // of the variables; may have systemd's %n
}

// Path is where the drop-in of a unit is. That of an instance comes before its
// template's, which is called the same.
func Path(unit string) string { return filepath.Join(folder, unit+".d", fileName) }

func (d DropIn) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# This unit is an app. Written by 'innate attach'; 'innate detach --unit %s' takes it away.\n", d.Unit)
	fmt.Fprintf(&b, "[X-Innate]\n%s%s\n\n", appKey, d.App)
	if d.After != "" {
		fmt.Fprintf(&b, "[Unit]\nWants=%s\nAfter=%s\n\n", d.After, d.After)
	}
	fmt.Fprintf(&b, "[Service]\nExecStartPre=+%s %s --app %s --agent %s -- %%n\n", quoted(d.Program), Subcommand, quoted(string(d.App)), quoted(d.Socket))
	fmt.Fprintf(&b, "EnvironmentFile=-%s\nUnsetEnvironment=%s\n", d.File, foreign)
	return b.String()
}

// quoted is a word of a command line; systemd.service(5).
func quoted(word string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(word) + `"`
}

// Write installs the drop-in; systemd knows it after Reload.
func (d DropIn) Write() error {
	path := Path(d.Unit)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte(d.text()), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Remove takes the drop-in of a unit away, and the folder if it was the only one.
func Remove(unit string) error {
	if err := os.Remove(Path(unit)); err != nil {
		return err
	}
	os.Remove(filepath.Dir(Path(unit))) // others of the unit's may be in it
	return nil
}

// Attached is the app that a drop-in of a unit says; empty: it has none.
func Attached(unit string) (innate.ResourceID, error) {
	b, err := os.ReadFile(Path(unit))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if app, is := strings.CutPrefix(line, appKey); is {
			return innate.ResourceID(strings.TrimSpace(app)), nil
		}
	}
	return "", fmt.Errorf("%s does not say which app the unit is", Path(unit))
}

// All are the units that are apps.
func All() (all map[string]innate.ResourceID, err error) {
	paths, err := filepath.Glob(Path("*.service"))
	if err != nil {
		return nil, err
	}
	all = map[string]innate.ResourceID{}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(filepath.Dir(path)), ".d")
		app, readErr := Attached(name)
		if err = errors.Join(err, readErr); readErr == nil {
			all[name] = app
		}
	}
	return all, err
}

// Related are those among the units that are apps that a unit shares services with:
// itself, its template, and a template's instances.
func Related(unit string) (map[string]innate.ResourceID, error) {
	all, err := All()
	maps.DeleteFunc(all, func(name string, _ innate.ResourceID) bool {
		return name != unit && template(unit) != name && template(name) != unit
	})
	return all, err
}
