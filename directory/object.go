package directory

import (
	"context"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"innate"
	"innate/store"
)

// A Kind is what sort of object a principal is.
type Kind string

// The kinds of principal.
const (
	User            Kind = "User"
	Group           Kind = "Group"
	Application     Kind = "Application"     // service principal of an app registration
	ManagedIdentity Kind = "ManagedIdentity" // service principal kept by the platform
)

// An Object is one entry of the directory: whoever can be named in a role assignment.
type Object struct {
	ID      innate.ObjectID   `json:"id"`
	Kind    Kind              `json:"kind"`
	Name    string            `json:"name"`
	Enabled bool              `json:"enabled"`
	Created time.Time         `json:"created"`
	Client  innate.ClientID   `json:"client,omitempty"` // service principals
	Owner   innate.ResourceID `json:"owner,omitempty"`  // managed identities: the resource they live with (xms_mirid)
	Shared  bool              `json:"shared,omitempty"` // managed identities: user-assigned (isExplicit=True)
	UPN     string            `json:"upn,omitempty"`    // users: userPrincipalName
}

// PrincipalType is the kind as role assignments say it: User, Group or ServicePrincipal.
func (o Object) PrincipalType() string {
	switch o.Kind {
	case Application, ManagedIdentity:
		return "ServicePrincipal"
	}
	return string(o.Kind)
}

const (
	objects store.Table[Object]          = "directory/objects/" // object id
	upns    store.Table[innate.ObjectID] = "directory/upns/"    // user principal name, lower-case
)

// Find reads a principal inside a transaction.
func Find(r store.Reader, id innate.ObjectID) (Object, bool, error) {
	return objects.Get(r, string(id))
}

// find is Find for those who need it there.
func find(r store.Reader, id innate.ObjectID) (Object, error) {
	o, ok, err := Find(r, id)
	if err == nil && !ok {
		err = notFound(id)
	}
	return o, err
}

// create writes a new object.
func create(tx store.Tx, o Object, now time.Time) (Object, error) {
	if err := checkName(o.Name); err != nil {
		return Object{}, err
	}
	o.ID, o.Enabled, o.Created = innate.ObjectID(innate.NewGUID()), true, now.UTC()
	return o, objects.Put(tx, string(o.ID), o)
}

// CreateIdentity makes the service principal of a managed identity.
func CreateIdentity(tx store.Tx, name string, owner innate.ResourceID, shared bool, now time.Time) (Object, error) {
	return create(tx, Object{
		Kind: ManagedIdentity, Name: name, Client: innate.ClientID(innate.NewGUID()), Owner: owner, Shared: shared,
	}, now)
}

// CreateUser makes a user (the local administrator, or one declared in a file).
func CreateUser(tx store.Tx, name, upn string, now time.Time) (Object, error) {
	if err := checkUPN(upn); err != nil {
		return Object{}, err
	}
	key := strings.ToLower(upn)
	if _, ok, err := upns.Get(tx, key); err != nil {
		return Object{}, err
	} else if ok {
		return Object{}, taken("Another user has the userPrincipalName '%s'.", upn)
	}
	o, err := create(tx, Object{Kind: User, Name: name, UPN: upn}, now)
	if err != nil {
		return Object{}, err
	}
	return o, upns.Put(tx, key, o.ID)
}

// CreateGroup makes a group.
func CreateGroup(tx store.Tx, name string, now time.Time) (Object, error) {
	return create(tx, Object{Kind: Group, Name: name}, now)
}

// DeleteObject removes a principal with its group memberships, app roles, keys,
// federated credentials and, for an Application, its registration; and runs OnDelete.
func (d *Directory) DeleteObject(tx store.Tx, id innate.ObjectID) error {
	o, err := find(tx, id)
	if err != nil {
		return err
	}
	if err := d.dropMemberships(tx, id); err != nil {
		return err
	}
	dropFederatedOf(tx, id)
	dropAppRoles(tx, id)
	if err := DropKeys(tx, id, "", ""); err != nil {
		return err
	}
	switch o.Kind {
	case User:
		upns.Delete(tx, strings.ToLower(o.UPN))
	case Application:
		if err := dropRegistration(tx, o.Client); err != nil {
			return err
		}
	}
	objects.Delete(tx, string(id))
	for _, gone := range d.config.OnDelete {
		if err := gone(tx, o); err != nil {
			return err
		}
	}
	return nil
}

// SetEnabled enables or disables a principal. A disabled one gets no token and its tokens open nothing.
func (d *Directory) SetEnabled(ctx context.Context, who innate.Principal, id innate.ObjectID, enabled bool) error {
	if err := d.config.MayEdit(ctx, who, actionPrincipal+"update"); err != nil {
		return err
	}
	return d.update(ctx, func(tx store.Tx) error { return d.enable(ctx, tx, who, id, enabled) })
}

func (d *Directory) enable(ctx context.Context, tx store.Tx, who innate.Principal, id innate.ObjectID, enabled bool) error {
	o, err := find(tx, id)
	if err != nil {
		return err
	}
	if o.Kind == Group {
		return bad("A group cannot be disabled: remove its members or its role assignments.")
	}
	if o.Enabled == enabled {
		return nil
	}
	o.Enabled = enabled
	if err := objects.Put(tx, string(id), o); err != nil {
		return err
	}
	for _, changed := range d.config.OnEnable {
		if err := changed(tx, o); err != nil {
			return err
		}
	}
	word := "disable"
	if enabled {
		word = "enable"
	}
	return d.leave(ctx, tx, who, actionPrincipal+word, string(id))
}

// maxName bounds names, in characters; it is Graph's bound for displayName.
const maxName = 256

func checkName(name string) error {
	switch n := utf8.RuneCountInString(name); {
	case n == 0:
		return bad("A value is required for property 'displayName'.")
	case n > maxName:
		return bad("The displayName has %d characters: want at most %d.", n, maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return bad("The displayName has a control character or is not UTF-8.")
	}
	return nil
}

func checkUPN(upn string) error {
	user, domain, ok := strings.Cut(upn, "@")
	odd := func(c rune) bool {
		return unicode.IsControl(c) || unicode.IsSpace(c) || strings.ContainsRune(`/\?#%'"@`, c)
	}
	if !ok || user == "" || domain == "" || len(upn) > maxName || !utf8.ValidString(upn) ||
		strings.ContainsFunc(user, odd) || strings.ContainsFunc(domain, odd) {
		return bad("The userPrincipalName must look like name@domain, of at most %d characters and without spaces, quotes or slashes.", maxName)
	}
	return nil
}
