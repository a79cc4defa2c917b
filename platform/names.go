package platform

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// names keeps the file that apps see as /etc/hosts. It is made anew with the
// first name, when the platform is surely ours, and after that only appended to,
// with one write a name: apps have it bind-mounted and read it at any moment. A
// name whose vault is gone stays, and its vault's 404 is the answer.
type names struct {
	path string

	mu   sync.Mutex
	seen map[string]bool // nil before the first name
}

// add makes name resolve to this host, before it returns.
func (n *names) add(name string) error {
	name = strings.ToLower(name)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen == nil {
		if err := n.begin(); err != nil {
			return err
		}
		n.seen = map[string]bool{}
	}
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

// begin starts the file with what the system's own says.
func (n *names) begin() error {
	system, err := os.ReadFile("/etc/hosts")
	if err != nil {
		system = []byte("127.0.0.1 localhost\n::1 localhost\n")
	}
	if k := len(system); k > 0 && system[k-1] != '\n' {
		system = append(system, '\n')
	}
	return os.WriteFile(n.path, system, 0o644)
}
