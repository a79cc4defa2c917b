package file_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"innate/store"
	"innate/store/file"
)

// BenchmarkWrite is one durable Update of one row by each of 1 and 64 writers,
// beside what the disk itself takes for a write and its fsync in the same run.
func BenchmarkWrite(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			engine, err := file.Create(filepath.Join(b.TempDir(), "store"))
			if err != nil {
				b.Fatal(err)
			}
			db, err := store.Open(b.Context(), engine)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			value := make([]byte, 256)
			fsync := bareFsync(b, value)
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var all sync.WaitGroup
			for w := range writers {
				all.Go(func() {
					for i := 0; left.Add(-1) >= 0; i++ {
						key := fmt.Sprintf("rows/%d/%d", w, i%1000)
						if _, err := db.Update(b.Context(), func(tx store.Tx) error {
							tx.Put(key, value)
							return nil
						}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(fsync), "fsyncs/write")
		})
	}
}

// bareFsync is the median time of appending value to a file and syncing it.
func bareFsync(b *testing.B, value []byte) time.Duration {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	took := make([]time.Duration, 101)
	for i := range took {
		start := time.Now()
		if _, err := f.Write(value); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		took[i] = time.Since(start)
	}
	return median(took)
}

func median(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)/2]
}
