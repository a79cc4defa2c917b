package appservice

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"innate"
)

// ChallengeDir is where SDKs insist that the files of challenges are, and where
// the app must see Config.Challenges.
const ChallengeDir = "/var/opt/azcmagent/tokens"

const (
	challengeLife  = 60 * time.Second
	mostChallenges = ownConnections // a client that does not read its files gets no more
)

// challenges are the secrets of an Arc-shaped endpoint: each in a file that only
// the app may read, good for one request (host-attestation §7). The files' names
// are in no listing: the directory can be entered, not read.
type challenges struct {
	folder Folder
	now    func() time.Time

	mu   sync.Mutex
	open map[[sha256.Size]byte]*challenge // by the SHA-256 of the secret; nil once closed
}

type challenge struct {
	name   string
	until  time.Time
	remove *time.Timer
}

func newChallenges(folder Folder, now func() time.Time) *challenges {
	return &challenges{folder: folder, now: now, open: map[[sha256.Size]byte]*challenge{}}
}

// issue writes a new secret and returns the file's name as the app sees it.
func (s *challenges) issue() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return "", fs.ErrClosed
	}
	for sum, c := range s.open {
		if !s.now().Before(c.until) {
			s.drop(sum)
		}
	}
	if len(s.open) >= mostChallenges {
		return "", &innate.Refusal{Status: http.StatusTooManyRequests, Text: fmt.Sprintf("%d files are waiting to be read: read them", mostChallenges)}
	}
	name, secret := rand.Text()+".key", rand.Text()+rand.Text()     // 128 bits each
	if _, err := s.folder.Write(name, []byte(secret)); err != nil { // clients send it as it is: there is no line end
		return "", fmt.Errorf("writing a challenge: %w", err)
	}
	sum := sha256.Sum256([]byte(secret))
	s.open[sum] = &challenge{
		name: name, until: s.now().Add(challengeLife),
		remove: time.AfterFunc(challengeLife, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.drop(sum)
		}),
	}
	return filepath.Join(ChallengeDir, name), nil
}

// knows reports whether "Basic SECRET" has the secret of an open challenge, and
// ends that challenge. What is looked up is a hash: its timing tells nothing.
func (s *challenges) knows(presented []string) bool {
	if len(presented) != 1 {
		return false
	}
	scheme, secret, _ := strings.Cut(presented[0], " ")
	if !strings.EqualFold(scheme, "Basic") {
		return false
	}
	sum := sha256.Sum256([]byte(secret))
	s.mu.Lock()
	defer s.mu.Unlock()
	c, open := s.open[sum]
	if !open {
		return false
	}
	s.drop(sum)
	return s.now().Before(c.until)
}

// drop ends a challenge, if it is still open; s.mu is held.
func (s *challenges) drop(sum [sha256.Size]byte) {
	c, open := s.open[sum]
	if !open {
		return
	}
	delete(s.open, sum)
	c.remove.Stop()
	s.folder.Remove(c.name) // what is left goes with the generation
}

// close ends every challenge.
func (s *challenges) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sum := range s.open {
		s.drop(sum)
	}
	s.open = nil
}
