package tokens

import "sync"

// A byDER remembers what was found out about certificates, because to read one
// or to check who signed it costs as much as a good part of a token. A
// certificate is found by its DER, which takes less than making its hash. What
// changes while the certificate stays the same does not belong in here.
//
// Its memory is bounded: with most certificates in it all are forgotten, and
// each is found out again. The zero value with most is ready.
type byDER[V any] struct {
	most  int
	mu    sync.RWMutex
	known map[string]V
}

func (m *byDER[V]) get(der []byte) (v V, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, ok = m.known[string(der)]
	return v, ok
}

func (m *byDER[V]) put(der []byte, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= m.most {
		m.known = map[string]V{}
	}
	m.known[string(der)] = v
}
