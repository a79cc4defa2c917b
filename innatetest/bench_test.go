package innatetest_test

import (
	"testing"

	"innate/innatetest"
)

// BenchmarkStart is what every test that uses a platform pays.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		innatetest.Start(b)
	}
}
