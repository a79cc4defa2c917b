package databases

import (
	"crypto/rand"
	"encoding/hex"

	"innate"
	"innate/feed/client"
	"innate/store"
)

// A placed is where a certificate for a server may come from.
type placed struct {
	Server innate.ResourceID `json:"server"`
	ID     string            `json:"id"`
}

// placedRows are keyed by principal, hosting resource, host and server.
const placedRows store.Table[placed] = "databases/placed/"

func placedAt(p client.DatabasePlace) string {
	return string(p.Object) + p.Hosting.Key() + "/" + p.Host.Key() + "//"
}

func placesAt(server innate.ResourceID) store.Table[client.DatabasePlace] {
	return store.Table[client.DatabasePlace](told(server) + client.DatabasePlaceKey(""))
}

// Place is the id of a place in certificates for a server: until the place is gone
// it is the same, so that the next certificate is good before the gateway has
// heard of anything.
func (d *Databases) Place(tx store.Tx, server innate.ResourceID, p client.DatabasePlace) (id string, err error) {
	row := placedAt(p) + rowOf(server)
	at, known, err := placedRows.Get(tx, row)
	if err != nil || known {
		return at.ID, err
	}
	var b [8]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	at = placed{server, hex.EncodeToString(b[:])}
	if err := placedRows.Put(tx, row, at); err != nil {
		return "", err
	}
	return at.ID, placesAt(server).Put(tx, at.ID, p)
}

// Displace ends a place: certificates from there are good at no server any more,
// and sessions that began with one end.
func (d *Databases) Displace(tx store.Tx, p client.DatabasePlace) error {
	under := placedAt(p)
	for row, at := range placedRows.All(tx, under, "") {
		placesAt(at.Server).Delete(tx, at.ID)
		placedRows.Delete(tx, row)
	}
	return nil
}
