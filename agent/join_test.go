package agent_test

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"innate/agent"
	"innate/agent/tpm/tpmtest"
)

func TestJoiningTrustsOnlyTheAuthorityInTheJoinString(t *testing.T) {
	p := newPlane(t)
	dir := filepath.Join(folder(t), "state")
	err := agent.Join(t.Context(), dir, p.joinString(sha256.Sum256([]byte("another"))))
	if err == nil || !strings.Contains(err.Error(), "not the one that the join string names") {
		t.Errorf("another authority: got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "join.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("join.json after a refusal: %v", err)
	}
}

func TestJoiningByTPMTrustsOnlyTheAuthorityInTheJoinString(t *testing.T) {
	p := newPlane(t)
	dir := filepath.Join(folder(t), "state")
	line := p.joinString(sha256.Sum256([]byte("another")))
	err := agent.JoinTPM(t.Context(), dir, line, tpmtest.Start(t))
	if err == nil || !strings.Contains(err.Error(), "not the one that the join string names") {
		t.Errorf("another authority: got %v", err)
	}
}

func TestWhatJoiningWritesIsForItsOwnerAlone(t *testing.T) {
	p := newPlane(t)
	dir := filepath.Join(folder(t), "state")
	if err := agent.Join(t.Context(), dir, p.joinString(p.pin())); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"": fs.ModeDir | 0o700, "host.pem": 0o600, "join.json": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%q has mode %v, want %v", name, info.Mode(), want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("%d files are left, want 2: %v", len(entries), entries)
	}
}

func TestJoiningRefusesAFolderThatOthersMayLookInto(t *testing.T) {
	p := newPlane(t)
	dir := filepath.Join(folder(t), "state")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := agent.Join(t.Context(), dir, p.joinString(p.pin())); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("got %v, want what to do about its mode", err)
	}
	if p.joins.Load() != 0 {
		t.Error("the token was used up all the same")
	}
}

func TestARefusedJoinTokenSaysSo(t *testing.T) {
	p := newPlane(t)
	err := agent.Join(t.Context(), filepath.Join(folder(t), "state"), strings.Replace(p.joinString(p.pin()), "s3cret", "other", 1))
	if err == nil || !strings.Contains(err.Error(), "InvalidJoinToken") {
		t.Errorf("got %v, want the server's reason", err)
	}
	if err != nil && strings.Contains(err.Error(), "other") {
		t.Errorf("the error quotes the token: %v", err)
	}
}

func TestAnAgentThatHasNotJoinedSaysHow(t *testing.T) {
	_, err := agent.New(agent.Config{State: folder(t), Runtime: folder(t)})
	if err == nil || !strings.Contains(err.Error(), "innate host add") {
		t.Errorf("got %v", err)
	}
}

var joinStrings = []struct{ join, wrong string }{
	{"", "no join string"},
	{"https://a/", "no join string"},
	{"innate+join://h:1/?ca=sha256:" + strings.Repeat("0", 64) + "&name=n", ""}, // of a TPM that is allowed
	{"innate+join://@h:1/?ca=sha256:" + strings.Repeat("0", 64) + "&name=n", "token is empty"},
	{"innate+join://t@h/?ca=sha256:" + strings.Repeat("0", 64) + "&name=n", "want HOST:PORT"},
	{"innate+join://t@:1/?ca=sha256:" + strings.Repeat("0", 64) + "&name=n", "want HOST:PORT"},
	{"innate+join://t@h:1/?ca=" + strings.Repeat("0", 64) + "&name=n", "no SHA-256"},
	{"innate+join://t@h:1/?ca=sha256:00&name=n", "no SHA-256"},
	{"innate+join://t@h:1/?ca=sha256:" + strings.Repeat("0", 64), "TLS name"},
	{"innate+join://t@h:1/?ca=sha256:" + strings.Repeat("0", 64) + "&name=" + strings.Repeat("n", 2000), "at most"},
	{"innate+join://t@h:1/?ca=sha256:" + strings.Repeat("0", 64) + "&name=n", ""},
	{" innate+join://t@[::1]:1/?ca=sha256:" + strings.Repeat("A", 64) + "&name=n\n", ""},
}

func TestAJoinStringThatCannotBeReadSaysWhy(t *testing.T) {
	for _, c := range joinStrings {
		_, _, err := agent.ParseTicket(c.join)
		switch {
		case c.wrong == "" && err != nil:
			t.Errorf("%q: %v", c.join, err)
		case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("%q: got %v, want %q", c.join, err, c.wrong)
		}
	}
}

func FuzzJoinString(f *testing.F) {
	for _, c := range joinStrings {
		f.Add(c.join)
	}
	f.Fuzz(func(t *testing.T, s string) {
		address, name, err := agent.ParseTicket(s)
		if err == nil && (address == "" || name == "") {
			t.Errorf("%q: accepted with address %q and name %q", s, address, name)
		}
	})
}
