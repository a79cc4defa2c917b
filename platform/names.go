package platform

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// names keeps the file that apps see as /etc/hosts. It is only ever appended
// to, with one write a name: apps have it bind-mounted and read it at any
// moment. A name whose vault is gone stays, and its vault's 404 is the answer.
type names struct {
	mu   sync.Mutex
	path string
	seen map[string]bool
}

// newNames starts the file with what the system's own says.
func newNames(path string) (*names, error) {
	system, err := os.ReadFile("/etc/hosts")
	if err != nil {
		system = []byte("127.0.0.1 localhost\n::1 localhost\n")
	}
	if n := len(system); n > 0 && system[n-1] != '\n' {
		system = append(system, '\n')
	}
	return &names{path: path, seen: map[string]bool{}}, os.WriteFile(path, system, 0o644)
}

// add makes name resolve to this host, before it returns.
func (n *names) add(name string) error {
	name = strings.ToLower(name)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen[name] {
		return nil
	}
	f, err := os.OpenFile(n.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "127.0.0.1 %s\n", name); err != nil {
		return err
	}
	n.seen[name] = true
	return nil
}
