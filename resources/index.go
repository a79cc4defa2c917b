package resources

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/google/btree"

	"innate"
	"innate/store"
)

// An entry is a resource in the index. Its row is the store's own bytes: with a
// million resources, one copy in memory is enough.
type entry struct {
	key string // of the row
	row []byte
}

func (e entry) resource() *Resource {
	r, err := rows.Decode(e.row)
	if err != nil {
		panic(err) // the engine checks integrity; see store.Table
	}
	return &r
}

// An index answers reads from memory, in order of id.
type index struct {
	mu            sync.RWMutex
	all           *btree.BTreeG[entry]
	byType        map[string]*btree.BTreeG[entry] // lower-case type
	subscriptions map[string]Subscription
	vaults        map[string]innate.ResourceID // lower-case name
	servers       map[string]innate.ResourceID // the same of PostgreSQL servers
}

func newIndex(db *store.DB) *index {
	x := &index{
		all: newTree(), byType: map[string]*btree.BTreeG[entry]{},
		subscriptions: map[string]Subscription{}, vaults: map[string]innate.ResourceID{}, servers: map[string]innate.ResourceID{},
	}
	db.Index(string(rows), x.applyRow)
	subscriptions.Index(db, func(id string, s *Subscription) { apply(&x.mu, x.subscriptions, id, s) })
	vaultNames.Index(db, func(name string, id *innate.ResourceID) { apply(&x.mu, x.vaults, name, id) })
	postgresNames.Index(db, func(name string, id *innate.ResourceID) { apply(&x.mu, x.servers, name, id) })
	return x
}

func newTree() *btree.BTreeG[entry] {
	return btree.NewG(32, func(a, b entry) bool { return a.key < b.key })
}

// apply puts a row into a map, or takes it out.
func apply[T any](mu *sync.RWMutex, m map[string]T, key string, row *T) {
	mu.Lock()
	defer mu.Unlock()
	if row == nil {
		delete(m, key)
	} else {
		m[key] = *row
	}
}

func (x *index) applyRow(c store.Change) {
	e := entry{strings.TrimPrefix(c.Key, string(rows)), c.Value}
	typ := strings.ToLower(innate.ResourceID("/" + e.key).Type())
	x.mu.Lock()
	defer x.mu.Unlock()
	same := x.byType[typ]
	if same == nil {
		same = newTree()
		x.byType[typ] = same
	}
	if e.row == nil {
		x.all.Delete(e)
		same.Delete(e)
		return
	}
	x.all.ReplaceOrInsert(e)
	same.ReplaceOrInsert(e)
}

func (x *index) find(id innate.ResourceID) (*Resource, bool) {
	x.mu.RLock()
	e, ok := x.all.Get(entry{key: rowOf(id)})
	x.mu.RUnlock()
	if !ok {
		return nil, false
	}
	return e.resource(), true
}

func (x *index) subscription(id string) (Subscription, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	s, ok := x.subscriptions[strings.ToLower(id)]
	return s, ok
}

func (x *index) vault(name string) (innate.ResourceID, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	id, ok := x.vaults[strings.ToLower(name)]
	return id, ok
}

func (x *index) server(name string) (innate.ResourceID, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	id, ok := x.servers[strings.ToLower(name)]
	return id, ok
}

// allServers is in order of name.
func (x *index) allServers() (all []innate.ResourceID) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(x.servers)) {
		all = append(all, x.servers[name])
	}
	return all
}

// batch is how many entries are read under one lock.
const batch = 256

// each calls yield with the resources below scope, of one type or of any when
// typ is empty, from the row named from on, in order of id, until yield is
// false. Writers are never held up for longer than a batch.
func (x *index) each(scope innate.ResourceID, typ, from string, yield func(entry) bool) {
	prefix := rowOf(scope) + "/"
	from = max(from, prefix)
	for {
		var found []entry
		x.mu.RLock()
		tree := x.all
		if typ != "" {
			tree = x.byType[strings.ToLower(typ)]
		}
		if tree != nil {
			tree.AscendGreaterOrEqual(entry{key: from}, func(e entry) bool {
				if !strings.HasPrefix(e.key, prefix) {
					return false
				}
				found = append(found, e)
				return len(found) < batch
			})
		}
		x.mu.RUnlock()
		for _, e := range found {
			if !yield(e) {
				return
			}
		}
		if len(found) < batch {
			return
		}
		from = found[batch-1].key + "\x00"
	}
}

// allSubscriptions is in order of id.
func (x *index) allSubscriptions() []Subscription {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.SortedFunc(maps.Values(x.subscriptions), func(a, b Subscription) int { return strings.Compare(a.ID, b.ID) })
}
