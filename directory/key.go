package directory

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"innate"
	"innate/store"
)

// A Key is a certificate that a managed identity holds, on one host for one hosting resource.
type Key struct {
	Thumbprint string            `json:"thumbprint"` // SHA-256 of the DER, lower-case hex
	Principal  innate.ObjectID   `json:"principal"`
	Hosting    innate.ResourceID `json:"hosting"`
	Host       innate.ResourceID `json:"host"`
	NotBefore  time.Time         `json:"notBefore"`
	NotAfter   time.Time         `json:"notAfter"`
}

const keys store.Table[Key] = "directory/keys/" // principal/thumbprint

func (k Key) row() string { return string(k.Principal) + "/" + k.Thumbprint }

// sameHolder reports whether both are held by one identity, for one resource, on one host.
func (k Key) sameHolder(o Key) bool {
	return k.Principal == o.Principal && k.Hosting.Equal(o.Hosting) && k.Host.Equal(o.Host)
}

// AddKey makes a principal the holder of a certificate; expired keys of the same holder are dropped.
func AddKey(tx store.Tx, k Key, now time.Time) error {
	k.Thumbprint = strings.ToLower(k.Thumbprint)
	if sum, err := hex.DecodeString(k.Thumbprint); err != nil || len(sum) != 32 {
		return fmt.Errorf("key of %s: thumbprint %q is no SHA-256 in hex", k.Principal, k.Thumbprint)
	}
	if _, err := find(tx, k.Principal); err != nil {
		return err
	}
	for id, old := range keys.All(tx, string(k.Principal)+"/", "") {
		if old.sameHolder(k) && !now.Before(old.NotAfter) {
			keys.Delete(tx, id)
		}
	}
	return keys.Put(tx, k.row(), k)
}

// DropKeys removes the keys that match: any empty argument matches all.
func DropKeys(tx store.Tx, principal innate.ObjectID, hosting, host innate.ResourceID) error {
	under := ""
	if principal != "" {
		under = string(principal) + "/"
	}
	for id, k := range keys.All(tx, under, "") {
		if (hosting == "" || k.Hosting.Equal(hosting)) && (host == "" || k.Host.Equal(host)) {
			keys.Delete(tx, id)
		}
	}
	return nil
}
