package tokens

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// A Life is how long a token is good: 10 minutes to 24 hours, in whole seconds.
// As text it is an ISO 8601 duration, as ARM writes them: PT1H, PT90M, P1D.
type Life time.Duration

const (
	usualLife    = Life(time.Hour)
	shortestLife = Life(10 * time.Minute) // SDKs throw away what has five minutes left
	longestLife  = Life(24 * time.Hour)   // revocations and retired keys are kept as long
)

func (l Life) seconds() int64 { return int64(time.Duration(l) / time.Second) }

func (l Life) check() error {
	if l < shortestLife || l > longestLife || time.Duration(l)%time.Second != 0 {
		return fmt.Errorf("%s is no lifetime of a token: want whole seconds from %s to %s",
			time.Duration(l), time.Duration(shortestLife), time.Duration(longestLife))
	}
	return nil
}

// MarshalText writes l in hours, minutes and seconds.
func (l Life) MarshalText() ([]byte, error) {
	b := []byte("PT")
	for _, part := range []struct {
		n    int64
		unit byte
	}{{l.seconds() / 3600, 'H'}, {l.seconds() / 60 % 60, 'M'}, {l.seconds() % 60, 'S'}} {
		if part.n > 0 {
			b = append(strconv.AppendInt(b, part.n, 10), part.unit)
		}
	}
	return b, nil
}

// duration is the part of ISO 8601 that a life can be written in. Five digits
// hold the seconds of a day.
var duration = regexp.MustCompile(`^P(?:(\d{1,5})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,5})M)?(?:(\d{1,5})S)?)?$`)

// UnmarshalText reads days, hours, minutes and seconds, and refuses what is no life.
func (l *Life) UnmarshalText(text []byte) error {
	parts := duration.FindSubmatch(text)
	if parts == nil || text[len(text)-1] == 'T' {
		return fmt.Errorf("%s is no ISO 8601 duration: want one such as PT30M", shown(string(text)))
	}
	var sum time.Duration
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		n, _ := strconv.Atoi(string(parts[i+1])) // at most five digits; none are 0
		sum += time.Duration(n) * unit
	}
	if err := Life(sum).check(); err != nil {
		return err
	}
	*l = Life(sum)
	return nil
}
