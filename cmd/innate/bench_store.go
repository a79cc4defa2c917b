package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"innate/store"
)

// rowSize is what one write writes, in bytes.
const rowSize = 256

// write is durable transactions of one row by that many writers; the limit is
// what one writer can append to a file and sync in the same folder.
func write(writers int) func(context.Context, *bench) (contest, error) {
	return func(ctx context.Context, b *bench) (contest, error) {
		dir := filepath.Join(b.dir, fmt.Sprint("write-", writers))
		db, err := newStore(ctx, dir)
		if err != nil {
			return contest{}, err
		}
		f, err := os.Create(filepath.Join(dir, "bare"))
		if err != nil {
			return contest{}, errors.Join(err, db.Close())
		}
		return contest{
			ours:  func(ctx context.Context, d time.Duration) (float64, error) { return writeRows(ctx, db, writers, d) },
			limit: func(ctx context.Context, d time.Duration) (float64, error) { return appendAndSync(ctx, f, d) },
			end:   func() error { return errors.Join(f.Close(), db.Close()) },
		}, nil
	}
}

// writeRows returns how many transactions a second were durable.
func writeRows(ctx context.Context, db *store.DB, writers int, d time.Duration) (float64, error) {
	const keys = 1000 // of each writer, over and over, so that the store stays small
	var done atomic.Int64
	begin := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for w := range writers {
		g.Go(func() error {
			for i := 0; time.Since(begin) < d; i++ {
				key := fmt.Sprintf("bench/%d/%d", w, i%keys)
				if _, err := db.Update(ctx, func(tx store.Tx) error {
					tx.Put(key, make([]byte, rowSize))
					return nil
				}); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		})
	}
	err := g.Wait()
	return float64(done.Load()) / time.Since(begin).Seconds(), err
}

// appendAndSync returns how many writes a second the disk itself makes durable.
func appendAndSync(ctx context.Context, f *os.File, d time.Duration) (float64, error) {
	value := make([]byte, rowSize)
	done := 0
	begin := time.Now()
	for time.Since(begin) < d && ctx.Err() == nil {
		if _, err := f.Write(value); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		done++
	}
	return float64(done) / time.Since(begin).Seconds(), ctx.Err()
}
