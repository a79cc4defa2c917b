package ship_test

import (
	"testing"
	"time"

	"innate/audit/ship"
)

func TestWhoHasSentTooMuchWaitsAlsoWhenOthersCome(t *testing.T) {
	a := ship.Allowance{Rate: 1 << 10}
	now := time.Unix(1790000000, 0)
	if wait := a.Spend("a", 3<<20, now); wait != 0 {
		t.Fatalf("the first 3 MiB: wait %v", wait)
	}
	if wait := a.Spend("b", 1, now); wait != 0 {
		t.Errorf("another sender waits %v", wait)
	}
	if wait := a.Spend("a", 2<<20, now); wait < 10*time.Minute {
		t.Errorf("2 MiB more than may be sent at once, at 1 KiB a second: wait %v", wait)
	}
	// An hour later a has all of it again, and is forgotten when c comes.
	now = now.Add(2 * time.Hour)
	a.Spend("c", 1, now)
	if wait := a.Spend("a", 3<<20, now); wait != 0 {
		t.Errorf("after two hours: wait %v", wait)
	}
}
