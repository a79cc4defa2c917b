package resources

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	"innate/audit"
	"innate/rest"
	"innate/store"
)

// The rights at a site's settings. They are often secrets, so that reading the
// site is not enough.
const (
	writeSettings = "config/write"
	readSettings  = "config/list/action"
)

// settingName is what can be the name of an environment variable on any system.
var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.:-]{0,255}$`)

// ofTheAgent are the variables by which a workload finds its token endpoint: the
// agent sets them, and nobody else may.
var ofTheAgent = []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT", "MSI_ENDPOINT", "MSI_SECRET"}

// putSettings answers PUT {site}/config/appsettings: 200 only (control-plane §3.4).
func (s *Resources) putSettings(c call) error {
	id, k, err := c.target()
	if err != nil {
		return err
	}
	if err := s.need(c, k.action(writeSettings), id); err != nil {
		return err
	}
	var body struct {
		Properties map[string]string `json:"properties"`
	}
	if err := rest.Read(c.Request, &body); err != nil {
		return err
	}
	for name, value := range body.Properties {
		if err := checkSetting(name, value); err != nil {
			return err
		}
	}
	if err := s.config.DB.Sync(c.Context()); err != nil {
		return err
	}
	var now Resource
	if _, err := s.config.DB.Update(c.Context(), func(tx store.Tx) error {
		old, ok, err := Get(tx, id)
		if err != nil {
			return err
		}
		if !ok {
			return notFound(id)
		}
		now = *old
		now.Settings, now.Changed = body.Properties, s.config.Now().UTC()
		if err := s.put(tx, old, &now); err != nil {
			return err
		}
		return audit.Leave(tx, s.event(c.Context(), c.who, k.action(writeSettings), now.ID))
	}); err != nil {
		return err
	}
	rest.Write(c.w, http.StatusOK, settingsShape(&now))
	return nil
}

func checkSetting(name, value string) error {
	if !settingName.MatchString(name) {
		return invalid(name, "want 1 to 256 letters, digits and _.:- that do not begin with a digit")
	}
	if slices.ContainsFunc(ofTheAgent, func(own string) bool { return strings.EqualFold(own, name) }) {
		return invalid(name, "the agent sets this variable itself: leave it out")
	}
	if strings.ContainsRune(value, 0) {
		return invalid(name, "the value has a NUL, which an environment cannot hold")
	}
	return nil
}

// listSettings answers POST {site}/config/appsettings/list.
func (s *Resources) listSettings(c call) error {
	site, err := s.read(c, readSettings)
	if err != nil {
		return err
	}
	rest.Write(c.w, http.StatusOK, settingsShape(site))
	return nil
}
