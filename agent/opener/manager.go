package opener

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A manager is the service manager that started us (sd_notify(3)): it hears that
// we serve and that we live, and keeps open files for whoever it starts after us.
// nil is none.
type manager struct {
	socket   string
	patience time.Duration // within which it wants to hear of us again (WatchdogSec=); 0: it does not
	log      *slog.Logger
}

// saying bounds the wait for a manager that is busy.
const saying = 5 * time.Second

// findManager finds who started us.
func findManager(log *slog.Logger) *manager {
	m := &manager{socket: os.Getenv("NOTIFY_SOCKET"), log: log}
	if m.socket == "" {
		return nil
	}
	if usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		m.patience = time.Duration(usec) * time.Microsecond
	}
	return m
}

// Managed reports whether a service manager keeps what is held for the next run.
func Managed() bool { return findManager(nil) != nil }

// say tells the manager something. What it does not hear it does without.
func (m *manager) say(what string, files ...*os.File) {
	if m == nil {
		return
	}
	if err := m.try(what, files); err != nil {
		m.log.Error("telling the service manager", "what", what, "err", err)
	}
}

func (m *manager) try(what string, files []*os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(saying.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return err
	}
	return withRights(files, func(rights []byte) error {
		for {
			err := unix.Sendmsg(fd, []byte(what), rights, &unix.SockaddrUnix{Name: m.socket}, unix.MSG_NOSIGNAL)
			if !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
}

// keep has the manager keep copies of open files, each by a name, in the place of
// those that it kept as this.
func (m *manager) keep(as string, files map[string]*os.File) {
	if m == nil {
		return
	}
	m.drop(as)
	if len(files) == 0 {
		return
	}
	p, err := pack(files)
	if err != nil {
		m.log.Error("having the service manager keep what is held: it is lost when this process is killed", "what", as, "err", err)
		return
	}
	defer p.Close()
	m.say("FDSTORE=1\nFDPOLL=0\nFDNAME="+as, p)
}

// drop has the manager keep what it kept as this no longer.
func (m *manager) drop(as string) { m.say("FDSTOREREMOVE=1\nFDNAME=" + as) }

// firstFile is the first descriptor that a manager passes (sd_listen_fds(3)).
const firstFile = 3

// returned are the open files that the manager kept, by their names.
func (m *manager) returned() (map[string]*os.File, error) {
	files := map[string]*os.File{}
	if m == nil || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return files, nil
	}
	count, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil {
		return nil, fmt.Errorf("LISTEN_FDS of the service manager: %w", err)
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range count {
		p := os.NewFile(uintptr(firstFile+i), "kept")
		some, err := unpack(p)
		p.Close()
		if err != nil {
			m.log.Warn("the service manager returns something that cannot be read", "err", err)
			if i < len(names) {
				m.drop(names[i])
			}
			continue
		}
		maps.Copy(files, some)
	}
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(v); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// pack makes one open file of several: a socket with a message in it that nobody
// reads. Managers keep an open file once, whatever its names, and programs that
// were run from one terminal have the same.
func pack(files map[string]*os.File) (*os.File, error) {
	names := slices.Sorted(maps.Keys(files))
	b, err := json.Marshal(names)
	if err != nil {
		return nil, err
	}
	all := make([]*os.File, len(names))
	for i, n := range names {
		all[i] = files[n]
	}
	in, out, err := newPair()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	err = withRights(all, func(rights []byte) error {
		return unix.Sendmsg(int(in.Fd()), b, rights, nil, unix.MSG_NOSIGNAL)
	})
	if err != nil {
		out.Close()
		return nil, err
	}
	return out, nil
}

// unpack returns what is in such a file, and leaves it there.
func unpack(f *os.File) (map[string]*os.File, error) {
	b, rights := make([]byte, mostPacket), make([]byte, unix.CmsgSpace(4*mostPassed))
	n, oobn, flags, _, err := unix.Recvmsg(int(f.Fd()), b, rights, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	all, err := takeFiles(rights[:oobn])
	if err != nil {
		closeAll(all)
		return nil, err
	}
	var names []string
	if err := json.Unmarshal(b[:n], &names); err != nil || len(names) != len(all) || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(all)
		return nil, errors.Join(err, fmt.Errorf("%d names for %d files", len(names), len(all)))
	}
	files := map[string]*os.File{}
	for i, n := range names {
		files[n] = all[i]
	}
	return files, nil
}
