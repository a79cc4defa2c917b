package unit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"
)

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// escapes of a quoted value; systemd.exec(5), EnvironmentFile=.
var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`)

// Variables writes an environment down as systemd reads it. What systemd would drop
// without a word is an error, and so is what the loader of programs looks at: of the
// next start, systemd gives it to our own program, which is root.
func Variables(env []string) ([]byte, error) {
	var b strings.Builder
	var wrong []error
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		switch {
		case !variable.MatchString(name):
			wrong = append(wrong, fmt.Errorf("variable %.80q: systemd wants letters, digits and underscores", name))
		case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
			wrong = append(wrong, fmt.Errorf("the value of %s is no text: systemd wants UTF-8", name))
		case strings.HasPrefix(name, "LD_"), name == "GLIBC_TUNABLES", name == "GCONV_PATH":
			wrong = append(wrong, fmt.Errorf("variable %s: a unit that is an app may not have it from the app's settings", name))
		}
		fmt.Fprintf(&b, "%s=\"%s\"\n", name, escapes.Replace(value))
	}
	return []byte(b.String()), errors.Join(wrong...)
}

// WriteVariables puts a file that only root reads in the place of the last one.
func WriteVariables(path string, env []string) error {
	b, err := Variables(env)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is none
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Without is env without the variables that an earlier file had.
func Without(env []string, path string) (own []string) {
	b, _ := os.ReadFile(path) // systemd could not have read it either
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		if text := string(b); !strings.HasPrefix(text, name+"=\"") && !strings.Contains(text, "\n"+name+"=\"") {
			own = append(own, v)
		}
	}
	return own
}
