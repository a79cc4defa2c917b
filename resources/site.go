package resources

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"innate"
)

// Properties of a site that say how its programs are run on a host.
const (
	propConsoleFor = "consoleFor"                // uids
	propSiteConfig = "siteConfig"                // App Service's own; of it we look at healthCheckPath
	propMaxAge     = "maxGenerationAge"          // ISO 8601 duration; PT0S: no limit
	propSecrets    = "keyVaultReferenceIdentity" // App Service's own: SystemAssigned, or the id of an identity
)

const (
	shortestAge = 5 * time.Minute
	longestAge  = 30 * 24 * time.Hour
)

// A siteConfig is what of App Service's means something to us.
type siteConfig struct {
	HealthCheckPath string `json:"healthCheckPath"`
}

// HealthCheck is the path by which a site says that it is well, or empty.
func (r *Resource) HealthCheck() string {
	c, _ := property[siteConfig](r, propSiteConfig)
	return c.HealthCheckPath
}

// ConsoleFor lists the uids that may look into a site while it runs, beside root.
func (r *Resource) ConsoleFor() []uint32 {
	uids, _ := property[[]uint32](r, propConsoleFor)
	return uids
}

// SecretsIdentity is the user-assigned identity by which settings that refer to
// secrets are read; empty means the site's default one.
func (r *Resource) SecretsIdentity() innate.ResourceID {
	id, _ := property[string](r, propSecrets)
	if strings.EqualFold(id, "SystemAssigned") {
		return ""
	}
	return innate.ResourceID(id)
}

// MaxGenerationAge is how long a process of a site may serve before a new one
// replaces it; 0 means as long as it likes, nil what is usual.
func (r *Resource) MaxGenerationAge() *time.Duration {
	word, err := property[*string](r, propMaxAge)
	if err != nil || word == nil {
		return nil
	}
	age, ok := parseAge(*word)
	if !ok {
		return nil
	}
	return &age
}

// ageRule is as much of an ISO 8601 duration as such an age needs.
var ageRule = regexp.MustCompile(`^PT(\d{1,3}H)?(\d{1,5}M)?(\d{1,7}S)?$`)

func parseAge(word string) (time.Duration, bool) {
	if !ageRule.MatchString(word) {
		return 0, false
	}
	age, err := time.ParseDuration(strings.ToLower(word[len("PT"):]))
	return age, err == nil && (age == 0 || age >= shortestAge && age <= longestAge)
}

func checkSite(_ *Resources, r *Resource) error {
	if _, err := planOf(r); err != nil {
		return err
	}
	for _, name := range []string{propRunAs, propConsoleFor} {
		uids, err := property[[]uint32](r, name)
		if err != nil || len(uids) > maxUIDs || slices.Contains(uids, noUID) {
			return invalid(name, "want a list of at most %d numeric uids", maxUIDs)
		}
	}
	config, err := property[siteConfig](r, propSiteConfig)
	if path := config.HealthCheckPath; err != nil || path != "" && !pathRule.MatchString(path) {
		return invalid(propSiteConfig+".healthCheckPath", "want a path that begins with a slash, with no spaces")
	}
	if raw, ok := r.Properties[propMaxAge]; ok && string(raw) != "null" && r.MaxGenerationAge() == nil {
		return invalid(propMaxAge, "want PT0S, which means no limit, or from PT5M to PT720H, such as PT8H")
	}
	if id, err := property[string](r, propSecrets); err != nil || r.SecretsIdentity() != "" && !innate.ResourceID(id).Is(TypeIdentity) {
		return invalid(propSecrets, "want SystemAssigned, or the resource id of a user-assigned identity that the site has")
	}
	if _, err := property[bool](r, "enabled"); err != nil {
		return invalid("enabled", "want true or false")
	}
	return checkAssurance(r)
}

// pathRule is what can stand in the first line of an HTTP request.
var pathRule = regexp.MustCompile(`^/[!-~]{0,999}$`)

// showSite names a host under .invalid (RFC 6761 §6.4): clients want a name,
// and there is no front end of ours that would answer to one.
func showSite(_ *Resources, r *Resource, p map[string]any) {
	host := strings.ToLower(r.ID.Name()) + ".invalid"
	p["defaultHostName"], p["hostNames"] = host, []string{host}
	orElse(p, "enabled", true)
	p["state"] = "Running"
	if !says(r, "enabled") {
		p["state"] = "Stopped"
	}
}
