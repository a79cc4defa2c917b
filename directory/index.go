package directory

import (
	"slices"
	"strings"
	"sync"

	"innate"
	"innate/store"
)

// An index is the directory in memory, kept by the store in the order of its
// commits. What it points to is never modified.
type index struct {
	mu            sync.RWMutex
	objects       map[innate.ObjectID]*Object
	byClient      map[innate.ClientID]*Object
	byUPN         map[string]*Object // lower-case
	registrations map[innate.ClientID]*Registration
	byID          map[innate.ObjectID]*Registration // application object
	byURI         map[string]*Registration          // as URIKey spells it
	held          map[innate.ObjectID][]*Key
	holders       map[string]*Key                       // thumbprint
	memberOf      map[innate.ObjectID][]innate.ObjectID // direct
	nested        map[innate.ObjectID][]innate.ObjectID // answers of groups; emptied by every change of a membership

	federated federatedIndex
	assigned  map[innate.ObjectID]map[innate.ObjectID][]string // service, holder, ids of roles
}

func newIndex(db *store.DB) *index {
	x := &index{
		objects:       map[innate.ObjectID]*Object{},
		byClient:      map[innate.ClientID]*Object{},
		byUPN:         map[string]*Object{},
		registrations: map[innate.ClientID]*Registration{},
		byID:          map[innate.ObjectID]*Registration{},
		byURI:         map[string]*Registration{},
		held:          map[innate.ObjectID][]*Key{},
		holders:       map[string]*Key{},
		memberOf:      map[innate.ObjectID][]innate.ObjectID{},
		nested:        map[innate.ObjectID][]innate.ObjectID{},
		federated:     newFederatedIndex(),
		assigned:      map[innate.ObjectID]map[innate.ObjectID][]string{},
	}
	objects.Index(db, x.object)
	registrations.Index(db, x.registration)
	keys.Index(db, x.key)
	memberOfs.Index(db, x.membership)
	federated.Index(db, x.federation)
	roleHolders.Index(db, x.appRole)
	return x
}

func (x *index) object(row string, o *Object) {
	x.mu.Lock()
	defer x.mu.Unlock()
	id := innate.ObjectID(row)
	if o == nil {
		if old, ok := x.objects[id]; ok {
			delete(x.byClient, old.Client)
			x.dropUPN(old)
			delete(x.objects, id)
		}
		return
	}
	x.objects[id] = o
	if o.Client != "" {
		x.byClient[o.Client] = o
	}
	if o.UPN != "" {
		x.byUPN[strings.ToLower(o.UPN)] = o
	}
}

// dropUPN forgets the name of a user that is gone, unless another took it in
// the same commit.
func (x *index) dropUPN(gone *Object) {
	upn := strings.ToLower(gone.UPN)
	if now, ok := x.byUPN[upn]; ok && now.ID == gone.ID {
		delete(x.byUPN, upn)
	}
}

func (x *index) registration(row string, r *Registration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	client := innate.ClientID(row)
	if old, ok := x.registrations[client]; ok {
		delete(x.byID, old.ID)
		for _, uri := range old.IdentifierURIs {
			if key := URIKey(uri); x.byURI[key] == old { // it may have gone to another in the same commit
				delete(x.byURI, key)
			}
		}
	}
	if r == nil {
		delete(x.registrations, client)
		return
	}
	x.registrations[client] = r
	x.byID[r.ID] = r
	for _, uri := range r.IdentifierURIs {
		x.byURI[URIKey(uri)] = r
	}
}

func (x *index) key(row string, k *Key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	principal, thumbprint, _ := strings.Cut(row, "/")
	id := innate.ObjectID(principal)
	if h, ok := x.holders[thumbprint]; ok && h.Principal == id {
		delete(x.holders, thumbprint)
	}
	kept := slices.DeleteFunc(slices.Clone(x.held[id]), func(k *Key) bool { return k.Thumbprint == thumbprint })
	if k != nil {
		x.holders[thumbprint] = k
		kept = append(kept, k)
	}
	if len(kept) == 0 {
		delete(x.held, id)
		return
	}
	x.held[id] = kept
}

func (x *index) membership(row string, there *struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	first, second, _ := strings.Cut(row, "/")
	member, group := innate.ObjectID(first), innate.ObjectID(second)
	kept := slices.DeleteFunc(slices.Clone(x.memberOf[member]), func(g innate.ObjectID) bool { return g == group })
	if there != nil {
		kept = append(kept, group)
	}
	if len(kept) == 0 {
		delete(x.memberOf, member)
	} else {
		x.memberOf[member] = kept
	}
	clear(x.nested)
}

// groups lists every group that id is in, each once however many ways lead there.
func (x *index) groups(id innate.ObjectID) []innate.ObjectID {
	x.mu.RLock()
	_, member := x.memberOf[id]
	all, known := x.nested[id]
	x.mu.RUnlock()
	if !member || known {
		return all
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	all = closure(id, func(id innate.ObjectID) []innate.ObjectID { return x.memberOf[id] })
	x.nested[id] = all
	return all
}

// all lists the principals of some kinds, in no order.
func (x *index) all(kinds ...Kind) (found []*Object) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, o := range x.objects {
		if slices.Contains(kinds, o.Kind) {
			found = append(found, o)
		}
	}
	return found
}

// Registrations lists the app registrations, in no order. They are shared: do not modify.
func (d *Directory) Registrations() []*Registration { return d.index.applications() }

func (x *index) applications() (found []*Registration) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, r := range x.registrations {
		found = append(found, r)
	}
	return found
}

// get reads one entry of one of an index's maps.
func get[K comparable, V any](x *index, m map[K]*V, key K) (v V, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	p, ok := m[key]
	if !ok {
		return v, false
	}
	return *p, true
}

// Object returns a principal by object id.
func (d *Directory) Object(id innate.ObjectID) (Object, bool) {
	return get(d.index, d.index.objects, id)
}

// ByClient returns a service principal by client id.
func (d *Directory) ByClient(id innate.ClientID) (Object, bool) {
	return get(d.index, d.index.byClient, id)
}

// Registration returns an app registration by client id.
func (d *Directory) Registration(id innate.ClientID) (Registration, bool) {
	return get(d.index, d.index.registrations, id)
}

// Audience returns the registration that an identifier URI, client id or api://client-id names, ignoring
// one trailing slash and the case of scheme and host.
func (d *Directory) Audience(uri string) (Registration, bool) {
	if client, ok := clientOf(uri); ok {
		return d.Registration(client)
	}
	return get(d.index, d.index.byURI, URIKey(uri))
}

// Holder returns who holds the certificate with that SHA-256 thumbprint (hex).
func (d *Directory) Holder(thumbprint string) (Key, bool) {
	return get(d.index, d.index.holders, strings.ToLower(thumbprint))
}

// Keys lists what a principal holds now, the newest last.
func (d *Directory) Keys(id innate.ObjectID) (held []Key) {
	d.index.mu.RLock()
	defer d.index.mu.RUnlock()
	for _, k := range d.index.held[id] {
		if d.config.Now().Before(k.NotAfter) {
			held = append(held, *k)
		}
	}
	slices.SortFunc(held, func(a, b Key) int { return a.NotBefore.Compare(b.NotBefore) })
	return held
}

// directGroups lists the groups that id is a member of itself. The result is shared: do not modify.
func (d *Directory) directGroups(id innate.ObjectID) []innate.ObjectID {
	d.index.mu.RLock()
	defer d.index.mu.RUnlock()
	return d.index.memberOf[id]
}

// Groups lists every group that id is in, nested ones too. The result is shared: do not modify.
func (d *Directory) Groups(id innate.ObjectID) []innate.ObjectID { return d.index.groups(id) }
