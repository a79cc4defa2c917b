package vault

import (
	"bytes"
	"sync"

	"innate"
	"innate/store"
)

// known is the rows of vaults as they were last decoded, for every request looks
// at its vault's twice. A row is taken from here only while the store's bytes are
// the same, so that a reader sees what is at its own revision. The zero value is
// empty.
type known struct {
	rows sync.Map // resource id key to decoded
}

type decoded struct {
	from []byte
	row  vaultRow // what it holds is shared, and never modified
}

// get is vaults.Get.
func (k *known) get(r store.Reader, id innate.ResourceID) (row vaultRow, ok bool, err error) {
	key := id.Key()
	b, ok := r.Get(string(vaults) + key)
	if !ok {
		k.rows.Delete(key)
		return row, false, nil
	}
	if d, ok := k.rows.Load(key); ok && bytes.Equal(d.(decoded).from, b) {
		return d.(decoded).row, true, nil
	}
	if row, err = vaults.Decode(b); err != nil {
		return row, false, err
	}
	k.rows.Store(key, decoded{b, row})
	return row, true, nil
}
