package tpm_test

import (
	"bytes"
	"testing"
)

func TestWhatATPMSealedItAloneOpens(t *testing.T) {
	d, other := device(t), device(t)
	secret := []byte("thirty-two bytes of a master key")
	sealed, err := d.Seal(secret)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, secret) {
		t.Error("the secret stands in what was sealed")
	}
	for range 5 { // nothing stays in the chip, which has room for three
		if got, err := d.Unseal(sealed); err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("unsealed %q, %v", got, err)
		}
	}
	if _, err := other.Unseal(sealed); err == nil {
		t.Error("another TPM opened it")
	}
	for i := range sealed {
		flipped := bytes.Clone(sealed)
		flipped[i] ^= 1
		if got, err := d.Unseal(flipped); err == nil && !bytes.Equal(got, secret) {
			t.Errorf("with byte %d changed it unsealed another secret", i)
		}
	}
	key, err := enrol(t, d).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Unseal(key); err == nil {
		t.Error("a key was unsealed")
	}
}
