package resources

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"innate"
	"innate/rest"
)

const typeSubscription = "Microsoft.Resources/subscriptions"

// A kind is what is particular to one type of resource.
type kind struct {
	name    string // the type, as Azure spells it
	actions string // begins its actions, when not name
	plain   bool   // created with 200: the clients of this type refuse 201 (control-plane §3.4)
	gone    int    // status of a DELETE that deleted, when not 200
	// identities says that it may have them; ownAtBirth that it has one of its own unless told otherwise.
	identities, ownAtBirth bool
	naming                 func(name string) error // beside the rule for all; nil means none
	known                  []string                // properties that mean something to us, as we spell them
	computed               []string                // properties that only we write; what a client sends back is dropped
	// create fills in what a new resource keeps for life; nil means nothing.
	create func(r *Resource)
	// settle completes a change of what there is, or refuses it; nil means that anything goes.
	settle func(old, now *Resource) error
	// check refuses properties that mean something to us and make no sense.
	check func(s *Resources, r *Resource) error
	// show adds the computed properties that are not kept; nil means none.
	show func(s *Resources, r *Resource, p map[string]any)
}

// action is the right that a verb needs: read, write, delete, or one of the type's own.
func (k *kind) action(verb string) string {
	if k.actions != "" {
		return k.actions + "/" + verb
	}
	return k.name + "/" + verb
}

// kinds are the types that can be written.
var kinds = []*kind{
	{
		name: TypeGroup, actions: "Microsoft.Resources/subscriptions/resourceGroups",
	},
	{
		name: TypeVM, identities: true,
		known:    []string{propHost, propMinimumAssurance},
		computed: []string{propVMID, "timeCreated", "instanceView"},
		create:   giveVMID,
		check:    checkVM,
		show: func(_ *Resources, r *Resource, p map[string]any) {
			p["timeCreated"] = r.Created.Format(time.RFC3339)
		},
	},
	{
		name: TypeSite, plain: true, identities: true,
		known:    []string{propPlan, propRunAs, propConsoleFor, propMinimumAssurance, propSiteConfig, propMaxAge, "enabled"},
		computed: []string{"state", "defaultHostName", "hostNames"},
		check:    checkSite,
		show:     showSite,
	},
	{
		name:     TypePlan,
		known:    []string{propWorkers},
		computed: []string{"status", "numberOfWorkers"},
		check:    checkPlan,
		show: func(_ *Resources, r *Resource, p map[string]any) {
			p["status"], p["numberOfWorkers"] = "Ready", len(r.Workers())
		},
	},
	{
		name: TypeMachine, identities: true, ownAtBirth: true,
		computed: []string{propVMID},
		create:   giveVMID,
	},
	{
		name:     TypeIdentity,
		computed: []string{"tenantId", "principalId", "clientId"},
		show: func(s *Resources, r *Resource, p map[string]any) {
			p["tenantId"] = s.config.Tenant
			p["principalId"], p["clientId"] = r.Identity.System.Principal, r.Identity.System.Client
		},
	},
	{
		name: TypeVault, plain: true,
		naming:   vaultNaming,
		known:    []string{"tenantId", "sku", propPolicies, propByRole, propSoftDelete, propRetention, propProtection, propInTime, propCreateMode, "publicNetworkAccess"},
		computed: []string{"vaultUri", "note"},
		settle:   settleVault,
		check:    checkVault,
		show:     showVault,
	},
	{
		name: TypePostgres, plain: true, gone: http.StatusNoContent,
		naming:   postgresNaming,
		known:    []string{propFQDN, propPort, propAuthorities, propAcceptAzure, propLogIn},
		computed: []string{"audience", "state"},
		check:    checkPostgres,
		show:     showPostgres,
	},
}

// kindOf finds a type, whatever its case.
func kindOf(typ string) (*kind, bool) {
	i := slices.IndexFunc(kinds, func(k *kind) bool { return strings.EqualFold(k.name, typ) })
	if i < 0 {
		return nil, false
	}
	return kinds[i], true
}

// writable is kindOf for a request.
func writable(typ string) (*kind, error) {
	if k, ok := kindOf(typ); ok {
		return k, nil
	}
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return nil, rest.Errorf(http.StatusNotFound, "InvalidResourceType",
		"the type %s is not served here; these are: %s", typ, strings.Join(names, ", "))
}

var (
	nameRule      = regexp.MustCompile(`^[A-Za-z0-9._()-]{1,90}$`)
	vaultNameRule = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{2,23}$`)
)

func (k *kind) checkName(name string) error {
	if !nameRule.MatchString(name) || strings.HasSuffix(name, ".") {
		return rest.Errorf(http.StatusBadRequest, "InvalidResourceName",
			"the name %q: want 1 to 90 letters, digits and ._()- with no full stop at the end", name)
	}
	if k.naming == nil {
		return nil
	}
	return k.naming(name)
}

// vaultNaming is Azure's rule: the name becomes a label of a host name.
func vaultNaming(name string) error {
	if vaultNameRule.MatchString(name) && !strings.HasSuffix(name, "-") && !strings.Contains(name, "--") {
		return nil
	}
	return rest.Errorf(http.StatusBadRequest, "VaultNameNotValid",
		"the vault name %q: want 3 to 24 letters, digits and single hyphens, beginning with a letter and not ending with a hyphen", name)
}

// invalid refuses a property.
func invalid(name, format string, args ...any) error {
	e := rest.Errorf(http.StatusBadRequest, "InvalidParameter", format, args...)
	e.Target = "properties." + name
	e.Message = e.Target + ": " + e.Message
	return e
}

func giveVMID(r *Resource) { keep(r, propVMID, innate.NewGUID()) }

// keep sets a property to a value of ours.
func keep(r *Resource, name string, value any) {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err) // our own strings and numbers
	}
	if r.Properties == nil {
		r.Properties = map[string]json.RawMessage{}
	}
	r.Properties[name] = raw
}

func hostOf(r *Resource) (innate.ResourceID, error) {
	host, err := property[struct {
		ID string `json:"id"`
	}](r, propHost)
	if err != nil {
		return "", invalid(propHost, `want {"id": the id of a machine}`)
	}
	return referenced(propHost, host.ID, TypeMachine)
}

func planOf(r *Resource) (innate.ResourceID, error) {
	id, err := property[string](r, propPlan)
	if err != nil {
		return "", invalid(propPlan, "want the id of a plan")
	}
	return referenced(propPlan, id, TypePlan)
}

func workersOf(r *Resource) ([]innate.ResourceID, error) {
	ids, err := property[[]string](r, propWorkers)
	if err != nil {
		return nil, invalid(propWorkers, "want a list of ids of machines")
	}
	var workers []innate.ResourceID
	for _, s := range ids {
		id, err := referenced(propWorkers, s, TypeMachine)
		if err != nil {
			return nil, err
		}
		if id == "" {
			return nil, invalid(propWorkers, "one of the ids is empty")
		}
		workers = with(workers, id)
	}
	return workers, nil
}

// referenced reads the id of a resource of one type; an empty one refers to nothing.
func referenced(name, s, typ string) (innate.ResourceID, error) {
	if s == "" {
		return "", nil
	}
	id, err := innate.ParseResourceID(s)
	if err != nil {
		return "", invalid(name, "%v", err)
	}
	if !id.Is(typ) {
		return "", invalid(name, "%s is not a %s", id, typ)
	}
	return id, nil
}

// with adds id unless it is there.
func with(ids []innate.ResourceID, id innate.ResourceID) []innate.ResourceID {
	if slices.ContainsFunc(ids, id.Equal) {
		return ids
	}
	return append(ids, id)
}

// without removes id.
func without(ids []innate.ResourceID, id innate.ResourceID) []innate.ResourceID {
	return slices.DeleteFunc(slices.Clone(ids), id.Equal)
}

func checkVM(_ *Resources, r *Resource) error {
	if _, err := hostOf(r); err != nil {
		return err
	}
	return checkAssurance(r)
}

func checkAssurance(r *Resource) error {
	word, err := property[string](r, propMinimumAssurance)
	if err != nil {
		return invalid(propMinimumAssurance, "want a word, such as %q", innate.CgroupUID)
	}
	if word == "" {
		delete(r.Properties, propMinimumAssurance)
		return nil
	}
	if _, err := innate.ParseAssurance(word); err != nil {
		return invalid(propMinimumAssurance, "%v", err)
	}
	return nil
}

const (
	maxWorkers = 1000
	maxUIDs    = 64
	noUID      = 1<<32 - 1 // (uid_t)-1, which names nobody
)

// orElse shows a default for a property that is not there.
func orElse(p map[string]any, name string, value any) {
	if p[name] == nil {
		p[name] = value
	}
}

// says reads a switch that is on unless it is turned off.
func says(r *Resource, name string) bool {
	on, err := property[*bool](r, name)
	return err != nil || on == nil || *on
}

func checkPlan(_ *Resources, r *Resource) error {
	workers, err := workersOf(r)
	if err == nil && len(workers) > maxWorkers {
		err = invalid(propWorkers, "%d machines: want at most %d", len(workers), maxWorkers)
	}
	return err
}
