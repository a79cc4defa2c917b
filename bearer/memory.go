package bearer

import (
	"crypto/sha256"
	"sync"
	"time"
)

// mostRemembered bounds the memory: about 3 KB a token.
const mostRemembered = 10_000

// A memory holds proved tokens by their SHA-256, never the tokens. Its zero
// value is empty.
type memory struct {
	mu     sync.RWMutex
	tokens map[[sha256.Size]byte]*proved
}

func (m *memory) get(sum [sha256.Size]byte) (*proved, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	p, ok := m.tokens[sum]
	return p, ok
}

// put remembers p. When there is no room it forgets what has ended or, finding
// little of that, whatever else it comes upon: a forgotten token is proved again.
func (m *memory) put(sum [sha256.Size]byte, p *proved, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tokens == nil {
		m.tokens = map[[sha256.Size]byte]*proved{}
	}
	if len(m.tokens) >= mostRemembered {
		m.makeRoom(now)
	}
	m.tokens[sum] = p
}

// makeRoom looks at a few tokens, in the map's random order, so that putting
// costs the same however full the memory is.
func (m *memory) makeRoom(now time.Time) {
	looked := 0
	for sum, p := range m.tokens {
		ended := now.After(p.Expires.Add(skew))
		if looked++; ended || looked == 1 {
			delete(m.tokens, sum)
		}
		if looked == 16 {
			return
		}
	}
}
