package tokens

import "container/list"

// A recent is a map of bounded size: for a new key the one that was used
// longest ago makes room. The zero value with most is ready.
type recent[K comparable, V any] struct {
	most  int
	order list.List // of *pair[K, V], the last used first
	at    map[K]*list.Element
}

type pair[K comparable, V any] struct {
	key   K
	value V
}

// get uses the value of key.
func (m *recent[K, V]) get(key K) (v V, ok bool) {
	e, ok := m.at[key]
	if !ok {
		return v, false
	}
	m.order.MoveToFront(e)
	return e.Value.(*pair[K, V]).value, true
}

// put adds a key that is not there.
func (m *recent[K, V]) put(key K, value V) {
	if m.at == nil {
		m.at = map[K]*list.Element{}
	}
	if len(m.at) >= m.most {
		oldest := m.order.Remove(m.order.Back()).(*pair[K, V])
		delete(m.at, oldest.key)
	}
	m.at[key] = m.order.PushFront(&pair[K, V]{key, value})
}
