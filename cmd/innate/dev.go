package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
	"golang.org/x/sync/errgroup"

	"innate/discovery"
	"innate/platform"
)

// A declaration is the file that 'innate dev' keeps a platform like. Each name
// is unique in its section; the resource group is "dev".
type declaration struct {
	Vaults        map[string]declaredVault        `yaml:"vaults"`
	Apps          map[string]declaredApp          `yaml:"apps"`
	VMs           map[string]declaredVM           `yaml:"vms"`
	Identities    []string                        `yaml:"identities"`    // user-assigned
	Registrations map[string]declaredRegistration `yaml:"registrations"` // programs with credentials of their own
	Roles         []declaredRole                  `yaml:"roles"`
}

type declaredVault struct {
	Secrets map[string]string `yaml:"secrets"` // name: value, or ${NAME} of dev's own environment
}

type declaredApp struct {
	Kind       string            `yaml:"kind"`       // empty means app
	Identities []string          `yaml:"identities"` // beside its own
	Settings   map[string]string `yaml:"settings"`
}

type declaredVM struct {
	Identities []string `yaml:"identities"`
	NetNS      string   `yaml:"netns"` // network namespace that it is, by name; needs root
}

type declaredRegistration struct {
	URIs   []string `yaml:"uris"`   // audiences that it answers to
	Secret bool     `yaml:"secret"` // make one and write it to the env file
}

type declaredRole struct {
	To   string `yaml:"to"`
	Role string `yaml:"role"`
	At   string `yaml:"at"`
}

// readDeclaration reads the file; an absent one that nobody named is empty.
func readDeclaration(path string, named bool) (d declaration, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	dec, err := yaml.NewLoader(bytes.NewReader(b), yaml.WithKnownFields())
	if err != nil {
		return d, err
	}
	if len(bytes.TrimSpace(b)) > 0 {
		err = dec.Load(&d)
	}
	return d, errors.Join(misread(path, err), d.check(path))
}

// misread says what the decoder found, one line a fault, in words about the file.
func misread(path string, err error) error {
	var found *yaml.LoadErrors
	if !errors.As(err, &found) {
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
		return err
	}
	var errs []error
	for _, f := range found.Errors {
		text := f.Message
		if field, _, unknown := strings.Cut(text, " not found in type "); unknown {
			text = fmt.Sprintf("there is no key %q here", strings.TrimPrefix(field, "field "))
		}
		errs = append(errs, fmt.Errorf("%s: line %d: %s", path, f.Mark.Line, text))
	}
	return errors.Join(errs...)
}

// check finds every fault that can be seen without a server.
func (d declaration) check(path string) error {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf(path+": "+format, args...))
	}
	shared := func(where string, names []string) {
		for _, n := range names {
			if !slices.Contains(d.Identities, n) {
				fault("%s uses the identity %q, which is not in identities", where, n)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Apps)) {
		shared("apps."+name, d.Apps[name].Identities)
	}
	for _, name := range slices.Sorted(maps.Keys(d.VMs)) {
		shared("vms."+name, d.VMs[name].Identities)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Vaults)) {
		secrets := d.Vaults[name].Secrets
		for _, secret := range slices.Sorted(maps.Keys(secrets)) {
			if _, err := expand(secrets[secret]); err != nil {
				fault("vaults.%s.secrets.%s: %w", name, secret, err)
			}
		}
	}
	for i, r := range d.Roles {
		if r.To == "" || r.Role == "" || r.At == "" {
			fault("roles[%d]: want to, role and at", i)
		}
	}
	return errors.Join(errs...)
}

// expand is value, or what the environment variable holds that a value of the form ${NAME} names.
func expand(value string) (string, error) {
	name, ok := strings.CutPrefix(value, "${")
	if !ok || !strings.HasSuffix(name, "}") {
		return value, nil
	}
	name = strings.TrimSuffix(name, "}")
	v, ok := os.LookupEnv(name)
	if !ok {
		return "", fmt.Errorf("the environment has no %s", name)
	}
	return v, nil
}

func (s *session) devCommand() *cobra.Command {
	var file, envFile string
	var port int
	var outside outside
	cmd := &cobra.Command{
		Use: "dev", Short: "Keep a platform up for a day's work or a CI job, as one small file says", Args: cobra.NoArgs,
		Long: `Runs a control plane and this host's agent until Ctrl-C, and keeps what exists on
it as the file declares; the file is applied again when it changes. Programs get
an identity with 'innate run --app NAME -- PROGRAM' from another shell.

The platform is new at each start, listens on loopback only, and is not for production.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			reach, err := outside.read()
			if err != nil {
				return err
			}
			return s.dev(cmd.Context(), file, cmd.Flags().Changed("file"), envFile, port, reach)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "innate.yaml", "what is to exist")
	cmd.Flags().StringVar(&envFile, "env-file", "", "write what other programs need to this `file`: addresses, trust, ids; it appears when all is ready")
	cmd.Flags().IntVar(&port, "port", 0, "port on loopback; 0 means any free one")
	outside.flags(cmd)
	return cmd
}

func (s *session) dev(ctx context.Context, file string, named bool, envFile string, port int, reach discovery.Outside) error {
	want, err := readDeclaration(file, named)
	if err != nil {
		return err
	}
	if envFile != "" { // an old one must not look like readiness, nor this one once we have ended
		if err := os.Remove(envFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		defer os.Remove(envFile)
	}
	dir, err := temporary("innate-dev-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	stub, err := publicCopy(dir)
	if err != nil {
		return err
	}
	p, err := platform.Open(ctx, platform.Config{
		Dir: filepath.Join(dir, "platform"), Port: port, Stub: []string{stub, "launch"}, Log: s.log(), Outside: reach,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Run(ctx) })
	g.Go(func() error {
		select {
		case <-p.Ready():
		case <-ctx.Done():
			return nil
		}
		k := &keeper{session: s, platform: p, stub: stub, envFile: envFile, registered: map[string]registered{}}
		if err := k.apply(ctx, want); err != nil {
			return err
		}
		k.greet(file)
		return k.follow(ctx, file)
	})
	return g.Wait()
}

// follow applies the file again whenever it has changed and stayed so for a
// tick: an editor may empty it first, and an empty file declares that nothing is
// to exist. A file that is wrong changes nothing and says why.
func (k *keeper) follow(ctx context.Context, file string) error {
	applied := modified(file)
	seen := applied
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		before := seen
		seen = modified(file)
		if seen == applied || seen != before {
			continue
		}
		applied = seen
		want, err := readDeclaration(file, true)
		if err == nil {
			err = k.apply(ctx, want)
		}
		if err != nil {
			fmt.Fprintf(k.session.diagnostics, "innate dev: not applied: %v\n", err)
			continue
		}
		fmt.Fprintf(k.session.diagnostics, "innate dev: %s applied\n", file)
	}
}

// modified is the time and size of a file, to compare.
func modified(file string) string {
	st, err := os.Stat(file)
	if err != nil {
		return ""
	}
	return fmt.Sprint(st.ModTime(), st.Size())
}
