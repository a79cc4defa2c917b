package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"innate"
	"innate/agent/opener"
	"innate/feed/client"
)

// resolving is how long the secrets of a generation may take to be read.
const resolving = 10 * time.Second

// The variables by which an app knows about the files of its secrets.
const (
	secretsDirVariable   = "INNATE_SECRETS_DIR"
	secretSignalVariable = "INNATE_SECRET_SIGNAL" // a setting: signal that tells its first process of a changed file
)

// secrets are the settings of a generation that are references to secrets. They
// are read as the app, by an identity of its own: it gets nothing that it may
// not read by itself. A value is in the generation's environment and in its file,
// which follows the vault; it is in no log, audit event or status.
type secrets struct {
	agent    *Agent
	app      innate.ResourceID
	which    innate.Selector
	proof    innate.Assurance
	files    *opener.Folder
	signal   syscall.Signal // 0: none
	settings []string       // their names
	found    []*found

	stop      context.CancelFunc // nil: nothing is followed
	following sync.WaitGroup
}

// found is a secret and the settings that it is the value of.
type found struct {
	reference
	settings []string
}

// resolve puts secrets in the place of references in an app's settings, and in
// files; it sets g.secrets when there are any. Nothing starts without them.
func (s *apps) resolve(ctx context.Context, g *Generation, p *client.Placement) (map[string]string, error) {
	a := s.agent
	all, err := references(p.Settings, a.machine.Domain)
	if err != nil || len(all) == 0 {
		return p.Settings, err
	}
	k := &secrets{
		agent: a, app: g.App, which: innate.Selector{Resource: p.SecretsIdentity}, proof: g.Assurance, found: all,
	}
	if k.signal, err = secretSignal(p.Settings); err != nil {
		return nil, err
	}
	if k.files, err = g.home.Folder(opener.Secrets); err != nil {
		return nil, err
	}
	g.secrets = k
	ctx, cancel := context.WithTimeout(ctx, resolving)
	defer cancel()
	settings := maps.Clone(p.Settings)
	for _, f := range all {
		k.settings = append(k.settings, f.settings...)
		value, err := k.read(ctx, f)
		if err == nil && strings.ContainsRune(value, 0) {
			err = errors.New("the value has a NUL, which an environment cannot hold")
		}
		if err == nil {
			_, err = k.keep(f, value)
		}
		if err != nil {
			return nil, fmt.Errorf("setting %s, %s: %w", strings.Join(f.settings, ", "), f, err)
		}
		for _, name := range f.settings {
			settings[name] = value
		}
	}
	settings[secretsDirVariable] = k.files.At
	return settings, nil
}

// A secretsNote is what a next agent follows secrets by. No value is in it.
type secretsNote struct {
	Which    innate.Selector `json:"which"`
	Signal   syscall.Signal  `json:"signal"`
	Settings []string        `json:"settings"`
	Found    []foundNote     `json:"found"`
}

type foundNote struct {
	Vault    string   `json:"vault"`
	Name     string   `json:"name"`
	Version  string   `json:"version,omitempty"`
	Settings []string `json:"settings"`
}

func (k *secrets) note() *secretsNote {
	n := &secretsNote{Which: k.which, Signal: k.signal, Settings: k.settings}
	for _, f := range k.found {
		n.Found = append(n.Found, foundNote{f.vault, f.name, f.version, f.settings})
	}
	return n
}

// again follows the secrets of a generation that an earlier agent started.
func (n *secretsNote) again(a *Agent, g *Generation, files *opener.Folder) *secrets {
	k := &secrets{agent: a, app: g.App, which: n.Which, proof: g.Assurance, files: files, signal: n.Signal, settings: n.Settings}
	for _, f := range n.Found {
		k.found = append(k.found, &found{reference{f.Vault, f.Name, f.Version}, f.Settings})
	}
	return k
}

// references finds the secrets that settings refer to, each once, and all that
// is wrong with any of them.
func references(settings map[string]string, domain string) (all []*found, err error) {
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		r, is, err := parseReference(settings[name], domain)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("setting %s: %w", name, err))
			continue
		}
		if !is {
			continue
		}
		i := slices.IndexFunc(all, func(f *found) bool { return f.reference == r })
		if i < 0 {
			i = len(all)
			all = append(all, &found{reference: r})
		}
		all[i].settings = append(all[i].settings, name)
	}
	return all, errors.Join(wrong...)
}

// secretSignals are those that a program can take for news and live.
var secretSignals = map[string]syscall.Signal{"HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2}

func secretSignal(settings map[string]string) (syscall.Signal, error) {
	word, ok := settings[secretSignalVariable]
	if !ok {
		return 0, nil
	}
	signal, ok := secretSignals[strings.TrimPrefix(strings.ToUpper(word), "SIG")]
	if !ok {
		return 0, fmt.Errorf("the app's setting %s is %.40q: want HUP, USR1 or USR2", secretSignalVariable, word)
	}
	return signal, nil
}

// token is the app's own for vaults.
func (k *secrets) token(ctx context.Context) (string, error) {
	t, err := k.agent.Token(ctx, k.app, k.which, vaultAudience, k.proof)
	switch {
	case errors.Is(err, innate.ErrNoIdentity) && k.which != innate.Selector{}:
		return "", fmt.Errorf("the app does not hold the identity that its keyVaultReferenceIdentity names (%s): assign it, or name another", k.which.Resource)
	case errors.Is(err, innate.ErrNoIdentity):
		return "", errors.New("the app has no identity to read secrets by: give it one")
	case errors.Is(err, innate.ErrManyIdentities):
		return "", errors.New("the app has several identities and none of its own: name one in its properties.keyVaultReferenceIdentity")
	}
	return t.Value, err
}

// read asks the vault for a secret's value.
func (k *secrets) read(ctx context.Context, f *found) (string, error) {
	token, err := k.token(ctx)
	if err != nil {
		return "", err
	}
	return k.agent.vaults.secret(ctx, f.reference, token)
}

// keep writes the value into the files of a secret's settings; changed says
// whether there is a difference.
func (k *secrets) keep(f *found, value string) (changed bool, err error) {
	for _, name := range f.settings {
		differs, err := k.files.Write(name, []byte(value))
		if err != nil {
			return changed, fmt.Errorf("writing its file: %w", err)
		}
		changed = changed || differs
	}
	return changed, nil
}

// close stops what follows the vaults.
func (k *secrets) close() {
	if k.stop != nil {
		k.stop()
		k.following.Wait()
	}
}
