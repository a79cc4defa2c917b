package resources

import (
	"cmp"
	"errors"
	"net/http"
	"strings"

	"innate/rest"
)

// get answers GET {resource} and GET {group}.
func (s *Resources) get(c call) error {
	r, err := s.read(c, "read")
	if err != nil {
		return err
	}
	return s.answer(c, http.StatusOK, r)
}

// read finds the resource that the path names for a caller who has a right at
// it, in that order: who may not read learns nothing of what exists.
func (s *Resources) read(c call, verb string) (*Resource, error) {
	id, k, err := c.target()
	if err != nil {
		return nil, err
	}
	if err := s.need(c, k.action(verb), id); err != nil {
		return nil, err
	}
	return s.found(c, id)
}

// head answers HEAD {group}: 204 or 404 (control-plane §3.4).
func (s *Resources) head(c call) error {
	if _, err := s.read(c, "read"); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Resources) putOne(c call) error   { return s.change(c, false) }
func (s *Resources) patchOne(c call) error { return s.change(c, true) }

func (s *Resources) change(c call, patch bool) error {
	id, k, err := c.target()
	if err != nil {
		return err
	}
	if err := s.need(c, k.action("write"), id); err != nil {
		return err
	}
	b, err := readBody(c.Request, k)
	if err != nil {
		return err
	}
	r, created, err := s.write(c.Context(), c.who, change{id, k, b, patch, c.conditions()})
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created && !k.plain {
		status = http.StatusCreated
	}
	return s.answer(c, status, r)
}

func (c call) conditions() conditions {
	return conditions{
		match:     strings.Join(c.Header.Values("If-Match"), ","),
		noneMatch: strings.Join(c.Header.Values("If-None-Match"), ","),
	}
}

// deleteOne answers DELETE {resource}: 200, or what its kind says, or 204 when there is none.
func (s *Resources) deleteOne(c call) error {
	err := s.deleteTarget(c)
	var e *rest.Error
	if errors.As(err, &e) && e.Code == codeNoResource {
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return err
}

// deleteGroup answers DELETE {group}: 200, or 404 when there is none.
func (s *Resources) deleteGroup(c call) error { return s.deleteTarget(c) }

func (s *Resources) deleteTarget(c call) error {
	id, k, err := c.target()
	if err != nil {
		return err
	}
	if err := s.delete(c.Context(), c.who, id, c.conditions()); err != nil {
		return err
	}
	c.w.WriteHeader(cmp.Or(k.gone, http.StatusOK))
	return nil
}

// act answers POST {resource}/{action} by the noun that serves it.
func (s *Resources) act(c call) error {
	id, k, err := c.target()
	if err != nil {
		return err
	}
	serve, ok := s.config.Actions[strings.ToLower(k.name+"/"+c.args["action"])]
	if !ok {
		return rest.Errorf(http.StatusNotFound, "NotFound", "a %s has no action %s", k.name, c.args["action"])
	}
	r, err := s.found(c, id)
	if err != nil { // that there is none is for those who may read
		if denied := s.need(c, k.action("read"), id); denied != nil {
			return denied
		}
		return err
	}
	serve(c.w, c.Request, c.who, r)
	return nil
}
