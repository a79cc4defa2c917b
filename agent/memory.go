package agent

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"innate"
	"innate/feed/client"
)

const (
	memoryFile = "memory.sealed" // in Config.Runtime, 0600
	// rememberEvery is how often what is remembered may be written; a token that
	// came since then is fetched again after a crash.
	rememberEvery = time.Second
)

// A memory is what an agent knows, kept over its restart: the tokens that it
// holds, and what the feed had told when it gave them out. So an agent that comes
// back while the control plane is away goes on exactly as if it had stayed.
//
// It is sealed (AES-256-GCM) under a key derived from the host's private key and
// the id of this boot: whoever can open it could as well ask for new tokens, and
// after a reboot or elsewhere it is noise. Whatever is wrong with it, it is
// thrown away whole, and everything is fetched again.
type memory struct {
	path    string
	machine innate.ResourceID
	key     func() *tls.Certificate // the host's, present one
	boot    string
	log     *slog.Logger
	stale   chan struct{} // has an element when the file is old

	mu     sync.Mutex // guards the file and:
	wrongs int        // how often tokens were thrown away
}

// A remembered is what the file holds.
type remembered struct {
	Placements []*client.Placement           `json:"placements"`
	Revoked    map[innate.ObjectID]time.Time `json:"revoked"`
	Keys       []string                      `json:"keys"` // signing keys that are revoked
	Tokens     []rememberedToken             `json:"tokens"`
}

// A rememberedToken is an entry of the cache.
type rememberedToken struct {
	Workload innate.ResourceID `json:"workload"`
	Proof    innate.Assurance  `json:"proof"`
	Fetched  time.Time         `json:"fetched"`
	Token    innate.Token      `json:"token"`
}

func newMemory(runtime string, u *upstream, log *slog.Logger) (*memory, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("reading the id of this boot: %w", err)
	}
	return &memory{
		path: filepath.Join(runtime, memoryFile), machine: u.Machine, key: u.key.Load,
		boot: strings.TrimSpace(string(boot)), log: log, stale: make(chan struct{}, 1),
	}, nil
}

// old has the file written again soon. It does not wait.
func (m *memory) old() {
	select {
	case m.stale <- struct{}{}:
	default:
	}
}

// wrong takes the file away at once: tokens in it were thrown away, and no crash may bring them back.
func (m *memory) wrong() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wrongs++
	if err := os.Remove(m.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Error("taking away the tokens kept for a restart", "err", err)
	}
	m.old()
}

// keeping writes the file when it is old, until ctx ends, and a last time then.
func (m *memory) keeping(ctx context.Context, now func() remembered) error {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-m.stale:
		}
		m.write(now)
		select {
		case <-ctx.Done():
		case <-time.After(rememberEvery):
		}
	}
	m.write(now)
	return nil
}

func (m *memory) write(now func() remembered) {
	if err := m.replace(now); err != nil {
		m.log.Warn("keeping tokens for a restart; they will be fetched again", "err", err)
	}
}

// replace replaces the file by what is known now, unless some of it is thrown away meanwhile.
func (m *memory) replace(now func() remembered) error {
	m.mu.Lock()
	before := m.wrongs
	m.mu.Unlock()
	b, err := json.Marshal(now())
	if err != nil {
		return err
	}
	aead, err := m.aead()
	if err != nil {
		return err
	}
	sealed := aead.Seal(nil, nil, b, nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wrongs != before {
		return nil // wrong has asked for another writing
	}
	return replace(m.path, sealed)
}

// read opens the file; a file that there is not is no error.
func (m *memory) read() (r remembered, err error) {
	sealed, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	aead, err := m.aead()
	if err != nil {
		return r, err
	}
	b, err := aead.Open(nil, nil, sealed, nil)
	if err != nil {
		return r, errors.New("it was sealed under another host key or in another boot, or it is damaged")
	}
	err = json.Unmarshal(b, &r)
	return r, err
}

// aead is the seal, with a random nonce before each message.
func (m *memory) aead() (cipher.AEAD, error) {
	secret, err := x509.MarshalPKCS8PrivateKey(m.key().PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("deriving a key from the host's: %w", err)
	}
	key, err := hkdf.Key(sha256.New, secret, []byte(m.boot), "innate agent memory 1 "+m.machine.Key(), 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// know is all that a restart should find again. The feed's word is taken first:
// what it revokes from there on is revoked again after the restart.
func (a *Agent) know() remembered {
	r := a.placed.remember()
	for _, w := range a.tokens.wallets() {
		w.mu.Lock()
		now := a.config.Now()
		for _, e := range w.tokens {
			if e.good(now) {
				r.Tokens = append(r.Tokens, rememberedToken{e.order.workload, e.order.proof, e.fetched, e.token})
			}
		}
		w.mu.Unlock()
	}
	return r
}

// recall takes up what an agent before this one knew, when it can be trusted.
func (a *Agent) recall() {
	r, err := a.memory.read()
	if err != nil {
		a.config.Log.Warn("tokens kept for a restart are thrown away", "err", err)
		a.memory.wrong()
		return
	}
	a.placed.recall(r)
	now := a.config.Now()
	for _, t := range r.Tokens {
		p, placed := a.placed.get(t.Workload)
		if !placed {
			continue
		}
		id, has := holds(p, t.Token.Object)
		o := order{workload: p.Resource, identity: id, resource: t.Token.Resource, proof: t.Proof}
		e := &entry{order: o}
		e.keep(t.Token, t.Fetched)
		if has && e.good(now) {
			e.asked = true
			w := a.tokens.wallet(t.Workload.Key())
			w.mu.Lock()
			w.tokens[o.key()] = e
			w.mu.Unlock()
		}
	}
}

// remember is what the feed has told.
func (p *placements) remember() remembered {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return remembered{
		Placements: slices.Collect(maps.Values(p.byKey)),
		Revoked:    maps.Clone(p.revokes),
		Keys:       slices.Collect(maps.Keys(p.keys)),
	}
}

// recall takes up what the feed had told before a restart. The feed is given a
// moment to say what has changed since, then it is gone by: the first snapshot
// ends what it does not repeat, whenever it comes.
func (p *placements) recall(r remembered) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pl := range r.Placements {
		p.byKey[pl.Resource.Key()] = pl
	}
	maps.Copy(p.revokes, r.Revoked)
	for _, kid := range r.Keys {
		p.keys[kid] = true
	}
	p.settled = make(chan struct{})
	time.AfterFunc(arrival, p.settle)
}

// settle lets what is remembered be gone by.
func (p *placements) settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.settled:
	default:
		close(p.settled)
	}
}

// certain waits until what is known may be gone by.
func (p *placements) certain(ctx context.Context) {
	p.mu.RLock()
	settled := p.settled
	p.mu.RUnlock()
	select {
	case <-settled:
	case <-ctx.Done():
	}
}
