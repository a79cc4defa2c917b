package caller

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Listen listens on a TCP address in the calling thread's network namespace as
// attestation needs it: without MPTCP, whose further subflows have tuples that
// nobody attested, and without SO_REUSEPORT, so that no other process can share
// the port. The host in addr is an IP address.
func Listen(addr string) (*net.TCPListener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // Go's default is on
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// InNamespace runs fn on a thread that is inside the network namespace ns, and
// returns its error. Sockets belong to the namespace they are made in, so what
// fn opens there serves from there on without any switching. It needs
// CAP_SYS_ADMIN. fn must open what it opens itself, not in a goroutine.
func InNamespace(ns *os.File, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("opening our own network namespace: %w", err)
			return
		}
		defer home.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("entering network namespace %s: %w", ns.Name(), err)
			return
		}
		err = fn()
		// A thread that cannot go home ends with its locked goroutine: no other
		// goroutine must ever run in the workload's namespace.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
