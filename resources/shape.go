package resources

import (
	"maps"
	"time"
)

// systemData says when a resource was written.
type systemData struct {
	CreatedAt      time.Time `json:"createdAt"`
	LastModifiedAt time.Time `json:"lastModifiedAt"`
}

// show is a resource as ARM shows it (control-plane §3.3, §3.6).
func (s *Resources) show(r *Resource) map[string]any {
	m := s.showBriefly(r)
	for name, raw := range r.Extra {
		m[name] = raw
	}
	p := map[string]any{"provisioningState": "Succeeded"}
	for name, raw := range r.Properties {
		p[name] = raw
	}
	if k, ok := kindOf(r.ID.Type()); ok && k.show != nil {
		k.show(s, r, p)
	}
	m["properties"] = p
	m["systemData"] = systemData{r.Created, r.Changed}
	return m
}

// showBriefly is a resource in a list of many types.
func (s *Resources) showBriefly(r *Resource) map[string]any {
	m := map[string]any{
		"id": r.ID, "name": r.ID.Name(), "type": r.ID.Type(), "location": r.Location, "tags": map[string]string{},
	}
	if len(r.Tags) > 0 {
		m["tags"] = r.Tags
	}
	if r.Kind != "" {
		m["kind"] = r.Kind
	}
	if r.SKU != nil {
		m["sku"] = r.SKU
	}
	if r.ID.Is(TypeIdentity) {
		return m // what it has is its properties, not a block
	}
	if i := s.showIdentity(r.Identity); i != nil {
		m["identity"] = i
	}
	return m
}

// settingsShape is config/appsettings of a site.
func settingsShape(site *Resource) map[string]any {
	settings := map[string]string{}
	maps.Copy(settings, site.Settings)
	return map[string]any{
		"id": string(site.ID) + "/config/appsettings", "name": "appsettings", "type": "Microsoft.Web/sites/config",
		"location": site.Location, "properties": settings,
	}
}

// A list is a page of anything.
type list[T any] struct {
	Value []T    `json:"value"`
	Next  string `json:"nextLink,omitempty"`
}
