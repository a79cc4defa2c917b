// Package storetest is the contract of a store.Engine as tests: an engine that
// passes Run can stand under a store.DB.
//
// It owns what every engine must do; what only one can do (a file that another
// process holds, a killed server) is tested beside that engine.
package storetest

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"innate/store"
)

// Run tests an engine. fresh makes a new, empty place to store and returns what
// opens it, again after each Close.
func Run(t *testing.T, fresh func(t *testing.T) (open func(t *testing.T) store.Engine)) {
	tests := []struct {
		name string
		test func(t *testing.T, open func(t *testing.T) store.Engine)
	}{
		{"AnUpdateSeesItsOwnWritesAndNobodyElseDoes", ownWrites},
		{"AScanIsWhatASortedMapWouldGive", scansLikeAMap},
		{"AFailedUpdateWritesNothing", failedUpdate},
		{"APanicLeavesTheStoreUsable", panicking},
		{"AnUpdateThatWritesNothingCommitsNothing", readOnlyUpdate},
		{"AKeyThatCannotBeStoredIsRefused", badKeys},
		{"ConcurrentUpdatesLoseNoWrite", counters},
		{"WhatAnUpdateReadHasNotChangedWhenItCommits", conflicts},
		{"NoPhantoms", phantoms},
		{"NoWriteSkew", writeSkew},
		{"ALongUpdateEndsAmongShortOnes", starvation},
		{"AViewIsOneRevision", consistentView},
		{"AWatcherMissesAndRepeatsNothing", watch},
		{"AWatcherOfTheUnknownIsTold", watchUnknown},
		{"AnIndexIsCompleteAndInOrder", index},
		{"SyncShowsWhatAnotherCommitted", syncing},
		{"ReopeningKeepsEverything", reopening},
		{"AnEndedContextEndsTheCall", cancelled},
		{"AClosedStoreSaysSo", closed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, fresh(t)) })
	}
}

func openDB(t *testing.T, engine store.Engine) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), engine)
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	t.Cleanup(func() { closeDB(t, db) })
	return db
}

func closeDB(t *testing.T, db *store.DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
}

func update(t *testing.T, db *store.DB, fn func(tx store.Tx)) store.Revision {
	t.Helper()
	rev, err := db.Update(t.Context(), func(tx store.Tx) error { fn(tx); return nil })
	if err != nil {
		t.Fatalf("updating: %v", err)
	}
	return rev
}

func put(t *testing.T, db *store.DB, key, value string) store.Revision {
	t.Helper()
	return update(t, db, func(tx store.Tx) { tx.Put(key, []byte(value)) })
}

// all is the rows under prefix in this process's view.
func all(t *testing.T, db *store.DB, prefix string) (rows []string) {
	t.Helper()
	if err := db.View(t.Context(), func(r store.Reader) error {
		rows = scanned(r, prefix, "")
		return nil
	}); err != nil {
		t.Fatalf("viewing: %v", err)
	}
	return rows
}

func scanned(r store.Reader, prefix, from string) (rows []string) {
	for k, v := range r.Scan(prefix, from) {
		rows = append(rows, k+"="+string(v))
	}
	return rows
}

// number reads a counter; one that is absent is 0.
func number(r store.Reader, key string) (int, error) {
	b, ok := r.Get(key)
	if !ok {
		return 0, nil
	}
	return strconv.Atoi(string(b))
}

// add adds to a counter.
func add(ctx context.Context, db *store.DB, key string, n int) error {
	_, err := db.Update(ctx, func(tx store.Tx) error {
		have, err := number(tx, key)
		if err != nil {
			return err
		}
		tx.Put(key, fmt.Append(nil, have+n))
		return nil
	})
	return err
}
