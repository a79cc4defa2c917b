package opener

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Metadata is the address where every SDK looks for the metadata service.
const Metadata = "169.254.169.254"

// atSpot finds the spot that an order is about.
func atSpot(do func(*spot, Order) (Answer, []*os.File, error)) func(*Local, context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	return func(l *Local, _ context.Context, o Order, _ []*os.File) (Answer, []*os.File, error) {
		l.mu.Lock()
		s := l.spots[o.Spot]
		l.mu.Unlock()
		if s == nil {
			return Answer{}, nil, fmt.Errorf("%s: there is no spot %.80q", o.Op, o.Spot)
		}
		return do(s, o)
	}
}

const withoutConsent = "this is the network namespace of the host itself: the address 169.254.169.254 would be ours there, and a cloud's own metadata service would be hidden from the host; give the VM, or the VMs' devices, a namespace of their own, or start the agent with --take-over-imds"

// find finds the spot of a place, with its namespace if the place names one.
func (l *Local) find(_ context.Context, o Order, files []*os.File) (Answer, []*os.File, error) {
	if o.Place == nil {
		return Answer{}, nil, errors.New("find wants a place")
	}
	var ns *os.File
	if len(files) > 0 {
		var err error
		if ns, err = duplicate(files[0], files[0].Name()); err != nil {
			return Answer{}, nil, err
		}
	}
	s, err := o.Place.find(ns)
	if err != nil {
		return Answer{}, nil, err
	}
	if s.own && !l.config.TakeOver {
		return Answer{}, nil, errors.Join(errors.New(withoutConsent), s.close())
	}
	s.local, s.note = l, bytes.Clone(o.Content)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.spots) >= mostSpots {
		return Answer{}, nil, errors.Join(fmt.Errorf("%d VMs are met already", len(l.spots)), s.close())
	}
	l.spots[s.id] = s
	return Answer{Spot: s.found()}, nil, s.save()
}

func (s *spot) found() *Found {
	return &Found{ID: s.id, Place: s.Place, Watched: s.NetNS == "" || s.named, Sees: s.interfaces() != nil, Note: s.note}
}

// open opens the listener of a spot, or finds it open; the one of a tenant who
// destroyed it is opened anew (host-attestation §4.1).
func (s *spot) open(Order) (a Answer, _ []*os.File, err error) {
	l := s.local
	l.taking.Lock()
	defer l.taking.Unlock()
	l.mu.Lock()
	left := l.spots[s.id] != s
	l.mu.Unlock()
	if left {
		return Answer{}, nil, fmt.Errorf("spot %s was left", s.id)
	}
	if over := s.over(); over != nil {
		return Answer{}, nil, over
	}
	held := s.listener
	switch {
	case s.Port != "":
		if s.port == nil {
			s.port, err = l.bridges.add(s, nil)
		} else {
			err = s.port.bridge.reopen(s)
		}
		if err == nil {
			held, a.Bridge, a.Mark = s.port.bridge.listener, s.port.bridge.key.String(), s.port.mark
		}
	case held == nil || !listens(held):
		held, err = s.reopen()
	}
	if err != nil {
		return Answer{}, nil, err
	}
	if over := s.over(); over != nil { // its name may be another's by now
		return Answer{}, nil, over
	}
	if err := s.save(); err != nil {
		return Answer{}, nil, err
	}
	f, err := duplicate(held, "metadata service")
	return a, []*os.File{f}, err
}

// reopen opens the VM's own listener; local.taking is held.
func (s *spot) reopen() (*os.File, error) {
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
	l, err := s.listen()
	if err != nil {
		return nil, err
	}
	defer l.Close()
	s.listener, err = duplicate(l, "metadata service")
	return s.listener, err
}

// listens reports whether a listener still is one: whoever may do so in its
// namespace can have destroyed it.
func listens(f *os.File) (still bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	ctl := raw.Control(func(fd uintptr) {
		on, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		still = err == nil && on != 0
	})
	return still && ctl == nil
}

// tellOver says why nobody can be met at a spot any more.
func (s *spot) tellOver(Order) (Answer, []*os.File, error) { return Answer{}, nil, s.over() }

// tellInterfaces reads the network interfaces of the VM.
func (s *spot) tellInterfaces(Order) (Answer, []*os.File, error) {
	read := s.interfaces()
	if read == nil {
		return Answer{}, nil, errors.New("nobody can say which network interfaces the VM has")
	}
	all, err := read()
	return Answer{Interfaces: all}, nil, err
}

// leave closes a spot, and takes the address off our own namespace behind the
// last VM that was met there.
func (l *Local) leave(_ context.Context, o Order, _ []*os.File) (Answer, []*os.File, error) {
	l.taking.Lock()
	defer l.taking.Unlock()
	l.mu.Lock()
	s := l.spots[o.Spot]
	delete(l.spots, o.Spot)
	here := false
	for _, other := range l.spots {
		here = here || other.own
	}
	l.mu.Unlock()
	if s == nil {
		return Answer{}, nil, fmt.Errorf("there is no spot %.80q", o.Spot)
	}
	var errs []error
	if s.port != nil {
		errs = append(errs, l.bridges.remove(s.port))
	}
	if s.own && !here {
		if err := giveBack(); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) { // it was not taken yet
			errs = append(errs, err)
		}
	}
	return Answer{}, nil, errors.Join(append(errs, s.close(), l.unsave(spotRecords, s.id))...)
}

// addresses of a port, for its rules.
func (p *port) addresses() string {
	var all []string
	for _, a := range p.Addresses {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}
