//go:build pkcs11

package pkcs11

// #cgo CFLAGS: -std=gnu11 -Wall
// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "token.h"
import "C"

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"
)

// A Keeper is a seal.Keeper: an AES key in a token.
type Keeper struct {
	Module  string // path of the vendor's library
	Token   string // its label
	Label   string // of an AES key in it that may encrypt and decrypt
	PINFile string // path of a file with the user's PIN; what it ends in of line ends does not count

	mu sync.Mutex // the library is initialized for one use at a time
}

const (
	nonceSize = 12
	tagSize   = 16
	maxKey    = 1 << 10 // bytes of what is kept
)

// purpose binds what the token encrypts for us to what it is for.
var purpose = []byte("innate master key")

// Name is pkcs11.
func (k *Keeper) Name() string { return "pkcs11" }

// Keep encrypts a key by the token's: a nonce, then what AES-GCM makes of it.
func (k *Keeper) Keep(key []byte) ([]byte, error) {
	nonce := make([]byte, nonceSize)
	rand.Read(nonce) // never fails, see crypto/rand
	kept, err := k.use(nonce, key, false)
	return append(nonce, kept...), err
}

// Key is the inverse of Keep.
func (k *Keeper) Key(kept []byte) ([]byte, error) {
	if len(kept) <= nonceSize+tagSize || len(kept) > maxKey {
		return nil, errors.New("this is not what a token kept for this program")
	}
	return k.use(kept[:nonceSize], kept[nonceSize:], true)
}

// use has the token encrypt or decrypt in.
func (k *Keeper) use(nonce, in []byte, decrypt bool) ([]byte, error) {
	pin, err := os.ReadFile(k.PINFile)
	if err != nil {
		return nil, fmt.Errorf("reading the PIN of the token %s: %w", k.Token, err)
	}
	pin = bytes.TrimRight(pin, "\r\n")
	k.mu.Lock()
	defer k.mu.Unlock()
	use := (*C.token_use)(C.calloc(1, C.sizeof_token_use))
	defer C.free(unsafe.Pointer(use))
	var lent []lent
	defer func() {
		for _, l := range lent {
			l.free()
		}
	}()
	lend := func(b []byte, room int) *C.uchar {
		l := newLent(b, room)
		lent = append(lent, l)
		return l.at
	}
	text := func(s string) *C.char { return (*C.char)(unsafe.Pointer(lend([]byte(s), len(s)+1))) }
	use.module, use.token, use.key = text(k.Module), text(k.Token), text(k.Label)
	use.pin, use.pin_length = lend(pin, len(pin)+1), C.ulong(len(pin))
	use.iv, use.iv_length = lend(nonce, len(nonce)), C.ulong(len(nonce))
	use.aad, use.aad_length = lend(purpose, len(purpose)), C.ulong(len(purpose))
	use.in, use.in_length = lend(in, len(in)), C.ulong(len(in))
	use.out, use.out_length = lend(nil, maxKey), maxKey
	if decrypt {
		use.decrypt = 1
	}
	if code := C.token_run(use); code != 0 {
		return nil, fmt.Errorf("token %s: %s: %s (PKCS #11 code 0x%x)", k.Token, C.GoString(use.step), C.GoString(&use.reason[0]), uint64(code))
	}
	return C.GoBytes(unsafe.Pointer(use.out), C.int(use.out_length)), nil
}

// A lent is bytes in C's memory, which is wiped when it is given back.
type lent struct {
	at   *C.uchar
	room int
}

func newLent(b []byte, room int) lent {
	l := lent{(*C.uchar)(C.calloc(1, C.size_t(room))), room}
	copy(unsafe.Slice((*byte)(l.at), room), b)
	return l
}

func (l lent) free() {
	clear(unsafe.Slice((*byte)(l.at), l.room))
	C.free(unsafe.Pointer(l.at))
}
