package main_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	command   = regexp.MustCompile(`(?m)^    (?:[a-z]+ .*\| )?(innate (?:.*\\\n)*.*)$`)
	shellWord = regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`)
	afterIt   = regexp.MustCompile(`\s+([#<>|&].*)?$`)
)

// Whoever copies a line of the documentation is not told that there is no such
// command, and no such flag.
func TestTheCommandsInTheDocumentationAreThere(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	for _, file := range []string{"../../README.md", "../../docs/audit.md", "../../docs/federation.md", "../../docs/imds.md", "../../docs/postgres.md", "../../docs/secrets.md", "../../docs/tokens.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := command.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s has no command", file)
		}
		for _, line := range found {
			checkCommand(t, s, file, afterIt.ReplaceAllString(strings.ReplaceAll(line[1], "\\\n", " "), ""))
		}
	}
}

// checkCommand asks for the help of a command as it is written: its flags are
// read before, and the help is that of as many words as are commands.
func checkCommand(t *testing.T, s *shell, file, line string) {
	t.Helper()
	words := shellWord.FindAllString(line, -1)[1:]
	own := words
	if i := slices.Index(words, "--"); i >= 0 {
		own = words[:i] // what follows is another program's
	}
	p := s.run(append(slices.Clone(own), "--help")...)
	_, usage, _ := strings.Cut(p.out.String(), "\nUsage:\n  innate")
	usage, rest, _ := strings.Cut(usage, "\n")
	var path []string
	for _, word := range strings.Fields(usage) {
		if strings.HasPrefix(word, "[") || strings.ToUpper(word) == word {
			break
		}
		path = append(path, word)
	}
	group := strings.HasPrefix(rest, "  innate")
	next := ""
	if len(path) < len(own) {
		next = own[len(path)]
	}
	if p.code() != 0 || !slices.Equal(path, own[:min(len(path), len(own))]) || group && next != "" && !strings.HasPrefix(next, "-") {
		t.Errorf("%s: %q is no command:\n%s", file, line, p.errout.String())
	}
}
