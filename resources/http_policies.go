package resources

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"innate/audit"
	"innate/rest"
	"innate/store"
)

// changePolicies answers PUT {vault}/accessPolicies/{add, replace or remove}.
// add gives a principal further permissions, remove takes some away, and replace
// makes its policy the one that is sent.
func (s *Resources) changePolicies(c call) error {
	const action = "Microsoft.KeyVault/vaults/accessPolicies/write"
	id, k, err := c.target()
	if err != nil {
		return err
	}
	edit, ok := map[string]func(old, sent accessPolicy) accessPolicy{
		"add": widened, "replace": replaced, "remove": narrowed,
	}[strings.ToLower(c.args["operation"])]
	if !ok || k.name != TypeVault {
		return rest.Errorf(http.StatusNotFound, "NotFound", "a vault has accessPolicies/add, replace and remove, and nothing else has any")
	}
	if err := s.need(c, action, id); err != nil {
		return err
	}
	var body struct {
		Properties struct {
			Policies []accessPolicy `json:"accessPolicies"`
		} `json:"properties"`
	}
	if err := rest.Read(c.Request, &body); err != nil {
		return err
	}
	if err := s.config.DB.Sync(c.Context()); err != nil {
		return err
	}
	var now *Resource
	_, err = s.config.DB.Update(c.Context(), func(tx store.Tx) error {
		old, ok, err := Get(tx, id)
		if err != nil {
			return err
		}
		if !ok {
			return notFound(id)
		}
		if now, err = s.withPolicies(old, body.Properties.Policies, edit); err != nil {
			return err
		}
		if err := s.put(tx, old, now); err != nil {
			return err
		}
		ev := s.written(c.Context(), c.who, change{kind: k}, old, now)
		ev.Action = action
		ev.Detail["operation"] = strings.ToLower(c.args["operation"])
		for _, p := range body.Properties.Policies {
			ev.Detail["objects"] = strings.TrimSpace(ev.Detail["objects"] + " " + p.Object)
		}
		return audit.Leave(tx, ev)
	})
	if err != nil {
		return err
	}
	policies := now.policies()
	if policies == nil {
		policies = []accessPolicy{}
	}
	rest.Write(c.w, http.StatusOK, map[string]any{
		"id": string(now.ID) + "/accessPolicies/", "type": TypeVault + "/accessPolicies", "location": now.Location,
		"properties": map[string]any{propPolicies: policies},
	})
	return nil
}

// withPolicies is a copy of a vault, with the policies sent worked into its own.
func (s *Resources) withPolicies(old *Resource, sent []accessPolicy, edit func(old, sent accessPolicy) accessPolicy) (*Resource, error) {
	now := *old
	now.Changed = s.config.Now().UTC()
	now.Properties = maps.Clone(old.Properties)
	all := old.policies()
	for _, p := range sent {
		if err := s.checkPolicy(&p); err != nil {
			return nil, err
		}
		before := accessPolicy{Tenant: p.Tenant, Object: p.Object, Client: p.Client}
		i := slices.IndexFunc(all, p.same)
		if i >= 0 {
			before = all[i]
			all = slices.Delete(all, i, i+1)
		}
		if p = edit(before, p); len(p.Permissions) > 0 {
			all = append(all, p)
		}
	}
	keep(&now, propPolicies, all)
	return &now, s.checkPolicies(&now)
}

func replaced(_, sent accessPolicy) accessPolicy { return sent }

func widened(old, sent accessPolicy) accessPolicy {
	permissions := map[string][]string{}
	maps.Copy(permissions, old.Permissions)
	for kind, words := range sent.Permissions {
		permissions[kind] = slices.Concat(permissions[kind], excluding(words, permissions[kind]))
	}
	sent.Permissions = permissions
	return sent
}

func narrowed(old, sent accessPolicy) accessPolicy {
	permissions := map[string][]string{}
	for kind, words := range old.Permissions {
		if left := excluding(words, sent.Permissions[kind]); len(left) > 0 {
			permissions[kind] = left
		}
	}
	old.Permissions = permissions
	return old
}

// excluding is words without those of not, whatever their case.
func excluding(words, not []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool {
		return slices.ContainsFunc(not, func(n string) bool { return strings.EqualFold(w, n) })
	})
}
