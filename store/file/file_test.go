package file_test

import (
	"path/filepath"
	"testing"

	"innate/store"
	"innate/store/file"
	"innate/store/storetest"
)

func TestTheContractOfAnEngine(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func(t *testing.T) store.Engine {
		path := filepath.Join(t.TempDir(), "store")
		begun := false
		return func(t *testing.T) store.Engine {
			open := file.Open
			if !begun {
				open, begun = file.Create, true
			}
			engine, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			return engine
		}
	})
}
