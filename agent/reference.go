package agent

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// A reference is an app's setting that is a secret of a vault:
//
//	@Microsoft.KeyVault(SecretUri=https://VAULT.vault.DOMAIN/secrets/NAME[/VERSION])
//	@Microsoft.KeyVault(VaultName=VAULT;SecretName=NAME[;SecretVersion=VERSION])
type reference struct {
	vault   string // its name, in lower case
	name    string
	version string // empty: always the newest
}

// String is the reference in a few words.
func (r reference) String() string {
	if r.version != "" {
		return fmt.Sprintf("version %s of secret %s of vault %s", r.version, r.name, r.vault)
	}
	return fmt.Sprintf("secret %s of vault %s", r.name, r.vault)
}

const referencePrefix = "@Microsoft.KeyVault("

var (
	vaultNameRule  = regexp.MustCompile(`^[a-z][a-z0-9-]{1,22}[a-z0-9]$`)
	secretNameRule = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
	versionRule    = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// parseReference reads a setting's value; is reports whether it is a reference
// at all. domain is the platform's: a vault elsewhere is never asked.
func parseReference(value, domain string) (r reference, is bool, err error) {
	if len(value) < len(referencePrefix) || !strings.EqualFold(value[:len(referencePrefix)], referencePrefix) {
		return r, false, nil
	}
	inner, closed := strings.CutSuffix(value[len(referencePrefix):], ")")
	if !closed {
		return r, true, errors.New("the reference to a secret has no closing parenthesis at its end")
	}
	fields, err := referenceFields(inner)
	if err != nil {
		return r, true, err
	}
	if uri, ok := fields["secreturi"]; ok {
		if len(fields) > 1 {
			return r, true, errors.New("the reference to a secret has a SecretUri and more: the SecretUri says all, leave the rest out")
		}
		r, err = parseSecretURI(uri, domain)
	} else {
		r = reference{strings.ToLower(fields["vaultname"]), fields["secretname"], fields["secretversion"]}
	}
	if err != nil {
		return reference{}, true, err
	}
	r.version = strings.ToLower(r.version)
	return r, true, r.check()
}

// referenceFields reads KEY=VALUE;KEY=VALUE, the keys in any case.
func referenceFields(inner string) (map[string]string, error) {
	fields := map[string]string{}
	for field := range strings.SplitSeq(inner, ";") {
		key, value, _ := strings.Cut(field, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		switch key {
		case "secreturi", "vaultname", "secretname", "secretversion":
		default:
			return nil, fmt.Errorf("the reference to a secret says %.120q: want SecretUri=…, or VaultName=…;SecretName=… and perhaps SecretVersion=…", field)
		}
		if _, twice := fields[key]; twice {
			return nil, fmt.Errorf("the reference to a secret says %s twice", key)
		}
		fields[key] = strings.TrimSpace(value)
	}
	return fields, nil
}

// parseSecretURI reads a secret's id. A port is passed over: the agent knows
// where the platform's vaults are.
func parseSecretURI(uri, domain string) (reference, error) {
	suffix := ".vault." + strings.ToLower(domain)
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return reference{}, fmt.Errorf("SecretUri is %.120q: want https://VAULT%s/secrets/NAME, with /VERSION or without", uri, suffix)
	}
	vault, ours := strings.CutSuffix(strings.ToLower(u.Hostname()), suffix)
	if !ours {
		return reference{}, fmt.Errorf("SecretUri is at %.120q, which is no vault of this platform: want VAULT%s", u.Hostname(), suffix)
	}
	path, isSecret := strings.CutPrefix(u.Path, "/secrets/")
	name, version, _ := strings.Cut(strings.TrimSuffix(path, "/"), "/")
	if !isSecret {
		return reference{}, fmt.Errorf("SecretUri has the path %.120q: want /secrets/NAME, with /VERSION or without", u.Path)
	}
	return reference{vault, name, version}, nil
}

func (r reference) check() error {
	switch {
	case !vaultNameRule.MatchString(r.vault):
		return fmt.Errorf("the reference to a secret names the vault %.120q: want 3 to 24 letters, digits and hyphens", r.vault)
	case !secretNameRule.MatchString(r.name):
		return fmt.Errorf("the reference to a secret names the secret %.150q: want 1 to 127 letters, digits and hyphens", r.name)
	case r.version != "" && !versionRule.MatchString(r.version):
		return fmt.Errorf("the reference to a secret names the version %.120q: want 32 hexadecimal digits, or none for the newest", r.version)
	}
	return nil
}
