package resources

import (
	"maps"
	"net/http"
	"slices"

	"innate"
	"innate/rest"
)

// pageSize is the most resources of one answer.
const pageSize = 500

// listOfType answers GET …/providers/{ns}/{type}, in a group or a subscription.
func (s *Resources) listOfType(c call) error {
	k, err := writable(c.typ())
	if err != nil {
		return err
	}
	return s.list(c, k.name, s.show)
}

// listGroups answers GET {subscription}/resourceGroups.
func (s *Resources) listGroups(c call) error { return s.list(c, TypeGroup, s.show) }

// listResources answers GET …/resources, in a group or a subscription.
func (s *Resources) listResources(c call) error { return s.list(c, "", s.showBriefly) }

// list answers with what the caller sees of a type, or of every type that is in groups.
func (s *Resources) list(c call, typ string, show func(*Resource) map[string]any) error {
	filter, err := rest.ParseFilter(c.URL.Query().Get("$filter"))
	if err != nil {
		return err
	}
	page, err := rest.PageOf(c.Request, pageSize)
	if err != nil {
		return err
	}
	within, err := s.scope(c)
	if err != nil {
		return err
	}
	answer := list[map[string]any]{Value: []map[string]any{}}
	s.index.each(within, typ, page.From, func(e entry) bool {
		id := innate.ResourceID("/" + e.key)
		if typ == "" && id.Is(TypeGroup) || !s.config.Access.Sees(c.who, id) {
			return true
		}
		r := e.resource()
		var ok bool
		if ok, err = filter.Match(r.field, nil); err != nil || !ok {
			return err == nil
		}
		if len(answer.Value) == page.Size {
			answer.Next = page.Next(c.Request, e.key)
			return false
		}
		answer.Value = append(answer.Value, show(r))
		return true
	})
	if err != nil {
		return err
	}
	rest.Write(c.w, http.StatusOK, answer)
	return nil
}

// scope is the group or subscription of a list, once this process has seen all
// that was committed before. Whether it exists is for those who may read it.
func (s *Resources) scope(c call) (innate.ResourceID, error) {
	if err := s.config.DB.Sync(c.Context()); err != nil {
		return "", err
	}
	sub, err := c.subscription()
	if err != nil {
		return "", err
	}
	if c.args["group"] == "" {
		return sub, s.known(c, sub)
	}
	id := sub + innate.ResourceID("/resourceGroups/"+c.args["group"])
	if _, ok := s.index.find(id); ok {
		return id, nil
	}
	k, err := writable(TypeGroup)
	if err != nil {
		return "", err
	}
	if err := s.need(c, k.action("read"), id); err != nil {
		return "", err
	}
	return "", notFound(id)
}

// field is a property of r as a $filter names it.
func (r *Resource) field(name string) []string {
	switch name {
	case "resourceType", "type":
		return []string{r.ID.Type()}
	case "name":
		return []string{r.ID.Name()}
	case "location":
		return []string{r.Location}
	case "resourceGroup":
		return []string{r.ID.Group()}
	case "tagName":
		return slices.Collect(maps.Keys(r.Tags))
	case "tagValue":
		return slices.Collect(maps.Values(r.Tags))
	}
	return nil
}
