package audit

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// An Outbox is where a transaction leaves its event, to be drained to the file
// after the commit. store.Tx is one.
type Outbox interface {
	Put(key string, value []byte)
}

// OutboxPrefix begins the keys of the rows that Leave writes. What follows
// sorts by the time of leaving.
const OutboxPrefix = "audit/outbox/"

// Leave puts ev in the transaction that it records.
func Leave(tx Outbox, ev Event) error {
	event, err := ev.append(nil)
	if err != nil {
		return err
	}
	var unique [8]byte
	rand.Read(unique[:]) // never fails
	tx.Put(fmt.Sprintf("%s%016x-%s", OutboxPrefix, time.Now().UnixNano(), hex.EncodeToString(unique[:])), event)
	return nil
}

// Drained reads a row that Leave wrote.
func Drained(value []byte) (Event, error) { return decode(value) }
