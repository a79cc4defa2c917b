package agent

import (
	"slices"
	"strings"
)

// ours reports whether a variable decides where SDKs look for an identity. None
// comes from outside: with one too many they take another road
// (managed-identity-endpoints §0.10, §0.13).
func ours(name string) bool {
	switch name {
	case "IMDS_ENDPOINT", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_POD_IDENTITY_AUTHORITY_HOST", "DEFAULT_IDENTITY_CLIENT_ID":
		return true
	}
	return strings.HasPrefix(name, "IDENTITY_") || strings.HasPrefix(name, "MSI_")
}

// environment is what an app's process is given: each layer over the ones
// before it, then the variables of its endpoint, which nothing overrides.
func environment(endpoint []string, direct []string, layers ...[]string) []string {
	var order []string
	values := map[string]string{}
	for _, layer := range layers {
		for _, v := range layer {
			name, value, ok := strings.Cut(v, "=")
			if !ok || name == "" || ours(name) {
				continue
			}
			if _, known := values[name]; !known {
				order = append(order, name)
			}
			values[name] = value
		}
	}
	env := make([]string, 0, len(order)+len(endpoint)+2)
	proxy := false
	for _, name := range order {
		switch strings.ToLower(name) {
		case "no_proxy":
			continue
		case "http_proxy", "https_proxy", "all_proxy":
			proxy = proxy || values[name] != ""
		}
		env = append(env, name+"="+values[name])
	}
	// Go and Node ask even loopback through a proxy (managed-identity-endpoints §0.11).
	if past := values["NO_PROXY"] + "," + values["no_proxy"]; proxy || past != "," {
		list := strings.Join(appendNew(strings.FieldsFunc(past, func(r rune) bool { return r == ',' || r == ' ' }), direct), ",")
		env = append(env, "NO_PROXY="+list, "no_proxy="+list)
	}
	return append(env, endpoint...)
}

// appendNew appends what is not there, and drops doubles.
func appendNew(to, more []string) (all []string) {
	for _, s := range append(to, more...) {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// direct is what an app must ask without a proxy: its endpoints and, on a
// laptop, the platform's names, which nobody else knows.
func (a *Agent) direct() []string {
	names := []string{"169.254.169.254", "127.0.0.1", "localhost"}
	if a.config.Dev {
		names = append(names, "."+a.machine.Domain)
	}
	return names
}

// pairs writes an app's settings as variables.
func pairs(settings map[string]string) []string {
	all := make([]string, 0, len(settings))
	for name, value := range settings {
		all = append(all, name+"="+value)
	}
	slices.Sort(all)
	return all
}
