// Package tpm is a host's TPM 2.0: what it is called, a key that never leaves
// it, and the proof that a key is there (TPM 2.0 Library; host-attestation §6).
//
// It owns the templates of the keys and how long each stays in the chip, which
// has room for three: until the function that loaded it returns. Whom the proof
// is for, and where the key's blob is kept, is its caller's business.
package tpm

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// DefaultDevice is the kernel's own, which several programs may use at once.
const DefaultDevice = "/dev/tpmrm0"

// A Device is a TPM. It is opened for each use and closed after it.
type Device struct {
	path string
	open func() (transport.TPMCloser, error)
	mu   sync.Mutex // one use at a time: the slots for keys are three
}

// Find returns the TPM at path: a device such as DefaultDevice, or the unix
// socket of an emulator.
func Find(path string) (*Device, error) {
	return find(path, func() (transport.TPMCloser, error) { return openAt(path) })
}

// Lent returns the TPM at path for a program that may not open it itself: open
// gets it, open, from one that may.
func Lent(path string, open func() (*os.File, error)) (*Device, error) {
	return find(path, func() (transport.TPMCloser, error) {
		f, err := open()
		if err != nil {
			return nil, err
		}
		return transport.FromReadWriteCloser(f), nil
	})
}

func find(path string, open func() (transport.TPMCloser, error)) (*Device, error) {
	d := &Device{path: path, open: open}
	return d, d.use(func(transport.TPM) error { return nil })
}

func openAt(path string) (transport.TPMCloser, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no TPM at %s: name its device with --tpm-device, or join with a one-time token alone", path)
	}
	if err == nil && info.Mode()&fs.ModeSocket != 0 {
		return linuxudstpm.Open(path)
	}
	return linuxtpm.Open(path)
}

// Path is where the device is.
func (d *Device) Path() string { return d.path }

// use opens the device for fn.
func (d *Device) use(fn func(transport.TPM) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := d.open()
	if err != nil {
		return fmt.Errorf("opening the TPM: %w", err)
	}
	if err := errors.Join(fn(t), t.Close()); err != nil {
		return fmt.Errorf("TPM at %s: %w", d.path, err)
	}
	return nil
}

// An Endorsement is who a TPM is.
type Endorsement struct {
	Key         []byte // SubjectPublicKeyInfo, DER
	Certificate []byte // of its vendor, DER; nil where the chip has none
}

// Hash is what an operator allows the TPM by: the SHA-256 of the key, in
// lower-case hexadecimal.
func (e Endorsement) Hash() string {
	sum := sha256.Sum256(e.Key)
	return hex.EncodeToString(sum[:])
}

// Endorsement asks the chip who it is.
func (d *Device) Endorsement() (e Endorsement, err error) {
	err = d.use(func(t transport.TPM) error {
		e, err = endorsement(t)
		return err
	})
	return e, err
}

func endorsement(t transport.TPM) (e Endorsement, err error) {
	ek, err := primary(t, tpm2.TPMRHEndorsement, tpm2.RSAEKTemplate)
	if err != nil {
		return e, fmt.Errorf("making the endorsement key: %w", err)
	}
	defer ek.flush(t)
	key, err := tpm2.Pub(*ek.public)
	if err != nil {
		return e, fmt.Errorf("reading the endorsement key: %w", err)
	}
	if e.Key, err = x509.MarshalPKIXPublicKey(key.(*rsa.PublicKey)); err != nil {
		return e, err
	}
	e.Certificate, err = endorsementCertificate(t)
	return e, err
}

// Where the certificate of an RSA endorsement key is, and how much of it is read
// at once (TCG EK Credential Profile §2.2.1.4; TPM_PT_NV_BUFFER_MAX is 512 or more).
const (
	certificateIndex = tpm2.TPMHandle(0x01c00002)
	certificateChunk = 512
)

func endorsementCertificate(t transport.TPM) ([]byte, error) {
	index, err := tpm2.NVReadPublic{NVIndex: certificateIndex}.Execute(t)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil // an emulator, or a vendor who publishes elsewhere
	}
	if err != nil {
		return nil, fmt.Errorf("looking for the endorsement certificate: %w", err)
	}
	public, err := index.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("looking for the endorsement certificate: %w", err)
	}
	at := tpm2.NamedHandle{Handle: certificateIndex, Name: index.NVName}
	var der []byte
	for len(der) < int(public.DataSize) {
		part, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: at.Handle, Name: at.Name, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    at, Offset: uint16(len(der)), Size: min(certificateChunk, public.DataSize-uint16(len(der))),
		}.Execute(t)
		if err != nil {
			return nil, fmt.Errorf("reading the endorsement certificate: %w", err)
		}
		der = append(der, part.Data.Buffer...)
	}
	return der, nil
}

// A loaded key is in a slot of the chip.
type loaded struct {
	tpm2.NamedHandle
	public *tpm2.TPMTPublic // of a primary key
}

// flush frees the slot. That the chip does not is no reason to fail what was
// done: the next load says so.
func (l loaded) flush(t transport.TPM) {
	tpm2.FlushContext{FlushHandle: l.Handle}.Execute(t)
}

// primary makes a key from a seed of the chip: the same one each time.
func primary(t transport.TPM, hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) (loaded, error) {
	r, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(t)
	if err != nil {
		return loaded{}, err
	}
	l := loaded{NamedHandle: tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name}}
	if l.public, err = r.OutPublic.Contents(); err != nil {
		l.flush(t)
		return loaded{}, err
	}
	return l, nil
}

// storage makes the key under which ours are kept: the standard one, with no password.
func storage(t transport.TPM) (loaded, error) {
	l, err := primary(t, tpm2.TPMRHOwner, tpm2.ECCSRKTemplate)
	if err != nil {
		return l, fmt.Errorf("making the storage key (its owner hierarchy must have no password): %w", err)
	}
	return l, nil
}
