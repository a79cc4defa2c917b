package opener

import (
	"context"
	"errors"
	"net"
	"os"
)

// A Spot is where a VM is met.
type Spot struct {
	Found

	by Opener
}

// Find finds the spot of a place. ns is the open network namespace that the place
// names, nil our own; it stays the caller's.
func Find(ctx context.Context, by Opener, p Place, ns *os.File, note string) (*Spot, error) {
	var files []*os.File
	if ns != nil {
		files = []*os.File{ns}
	}
	a, _, err := by.Do(ctx, Order{Op: "find", Place: &p, Content: []byte(note)}, files...)
	if err != nil {
		return nil, err
	}
	if a.Spot == nil {
		return nil, errors.New("the opener did not say what it found")
	}
	return &Spot{Found: *a.Spot, by: by}, nil
}

func (s *Spot) do(o Order) (Answer, []*os.File, error) {
	o.Spot = s.ID
	return s.by.Do(context.Background(), o)
}

// A Bridged says of a listener that it is that of a bridge, for the VMs at its ports.
type Bridged struct {
	Bridge string // empty: the listener is the VM's alone
	Mark   uint32 // of connections that came in by the VM's port
}

// Listen opens the metadata address for callers who come in by the spot's own
// device: the loopback of a namespace, so that a container routed through it is
// none of them, the VM's, or the bridge that it is at.
func (s *Spot) Listen() (*net.TCPListener, Bridged, error) {
	a, files, err := s.do(Order{Op: "listen"})
	if err != nil {
		return nil, Bridged{}, err
	}
	l, err := listener(files)
	return l, Bridged{a.Bridge, a.Mark}, err
}

// Over says why nobody can be met there any more; nil while the VM may live.
func (s *Spot) Over() error {
	_, _, err := s.do(Order{Op: "over"})
	return err
}

// Interfaces reads the network interfaces of the VM, where Sees.
func (s *Spot) Interfaces() ([]Interface, error) {
	a, _, err := s.do(Order{Op: "interfaces"})
	return a.Interfaces, err
}

// Leave closes the spot, when its listener is closed.
func (s *Spot) Leave() error {
	_, _, err := s.do(Order{Op: "leave"})
	return err
}
