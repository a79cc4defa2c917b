// Package seal keeps what must not be read at rest: data keys under a master
// key, by AES-256-GCM of the standard library.
//
// It owns the format of sealed bytes and of the master key's file; where sealed
// bytes are kept, and when a key is replaced, is its callers' business.
//
// Associated data is not decoration: it must name the place of what is sealed
// (table and row), so that sealed bytes moved to another row do not open there.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

// version is the first of sealed bytes: AES-256-GCM, a random nonce of 12 bytes
// in front, a tag of 16 bytes behind.
const version = 1

// keySize is that of AES-256, in bytes.
const keySize = 32

// A Key seals and opens. Associated data binds a ciphertext to its place:
// opened anywhere else it is an error. Nonces are random, so one key is good
// for 2³² seals (NIST SP 800-38D §8.3).
//
// A master key may be replaced while it is in use: it seals with the newest, and
// until the process ends still opens what an older one sealed.
type Key struct {
	aeads atomic.Pointer[[]cipher.AEAD] // newest first, one at least
}

func newKey(raw []byte) (*Key, error) {
	if len(raw) != keySize {
		return nil, fmt.Errorf("a key has %d bytes: want %d", len(raw), keySize)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	k := new(Key)
	k.aeads.Store(&[]cipher.AEAD{aead})
	return k, nil
}

// succeed puts a newer key in front.
func (k *Key) succeed(newer *Key) {
	all := append(slices.Clone(*newer.aeads.Load()), *k.aeads.Load()...)
	k.aeads.Store(&all)
}

func randomKey() []byte {
	raw := make([]byte, keySize)
	rand.Read(raw) // never fails, see crypto/rand
	return raw
}

// NewDataKey makes a key and returns it beside its form sealed under k.
func (k *Key) NewDataKey(aad []byte) (key *Key, wrapped []byte, err error) {
	raw := randomKey()
	if key, err = newKey(raw); err != nil {
		return nil, nil, err
	}
	return key, k.Seal(raw, aad), nil
}

// DataKey opens what NewDataKey wrapped.
func (k *Key) DataKey(wrapped, aad []byte) (*Key, error) {
	raw, err := k.Open(wrapped, aad)
	if err != nil {
		return nil, fmt.Errorf("data key: %w", err)
	}
	return newKey(raw)
}

// Seal encrypts plain; the format's version and the random nonce stand first.
func (k *Key) Seal(plain, aad []byte) []byte {
	newest := (*k.aeads.Load())[0]
	sealed := make([]byte, 1, 1+newest.Overhead()+len(plain))
	sealed[0] = version
	return newest.Seal(sealed, nil, plain, aad)
}

// Reseal seals again, under the newest key, what any of them sealed.
func (k *Key) Reseal(sealed, aad []byte) ([]byte, error) {
	plain, err := k.Open(sealed, aad)
	if err != nil {
		return nil, err
	}
	return k.Seal(plain, aad), nil
}

// Open is the inverse of Seal; a flipped bit or another place is an error.
func (k *Key) Open(sealed, aad []byte) ([]byte, error) {
	if len(sealed) == 0 {
		return nil, errors.New("sealed bytes are empty")
	}
	if sealed[0] != version {
		return nil, fmt.Errorf("sealed bytes are of format %d: this program reads %d", sealed[0], version)
	}
	for _, aead := range *k.aeads.Load() {
		if plain, err := aead.Open(nil, nil, sealed[1:], aad); err == nil {
			return plain, nil
		}
	}
	return nil, errors.New("sealed bytes do not open: they were changed, moved from another place, or sealed under another key")
}
