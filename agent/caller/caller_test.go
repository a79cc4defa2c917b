package caller_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"innate"
	"innate/agent/caller"
	"innate/agent/launch"
)

func newDiag(t testing.TB) *caller.Diag {
	t.Helper()
	d, err := caller.NewDiag()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func listen(t testing.TB, addr string) *net.TCPListener {
	t.Helper()
	l, err := caller.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func accept(t testing.TB, l *net.TCPListener) *net.TCPConn {
	t.Helper()
	l.SetDeadline(time.Now().Add(5 * time.Second))
	c, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// groups makes empty cgroups, removed with the test.
func groups(t testing.TB, names ...string) []*launch.Cgroup {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for cgroups and uids of its own")
	}
	name, err := launch.OwnName("innate-test-caller-")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := launch.OpenCgroups(name)
	if errors.Is(err, launch.ErrNoCgroups) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	var made []*launch.Cgroup
	for _, n := range names {
		g, err := tree.Make(n)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, g)
	}
	return made
}

func TestTheKernelNamesUIDAndCgroupOfWhoeverConnected(t *testing.T) {
	g := groups(t, "a", "b")
	d, l := newDiag(t), listen(t, "127.0.0.1:0")
	for _, want := range []caller.Facts{
		{UID: 60001, Cgroup: g[0].ID},
		{UID: 60001, Cgroup: g[1].ID}, // same uid, other cgroup
		{UID: 60002, Cgroup: g[1].ID},
	} {
		group := g[slices.IndexFunc(g, func(g *launch.Cgroup) bool { return g.ID == want.Cgroup })]
		newPeer(t, group, want.UID).do("connect from 0 to %d", port(l))
		got, err := d.Attest(accept(t, l))
		if err != nil {
			t.Fatalf("uid %d in cgroup %d: %v", want.UID, want.Cgroup, err)
		}
		if got.UID != want.UID || got.Cgroup != want.Cgroup || got.Inode == 0 || got.Cookie == 0 {
			t.Errorf("got %+v, want uid %d in cgroup %d", got, want.UID, want.Cgroup)
		}
	}
}

// Java and Node use IPv6 sockets for everything; Go's clients may ask for MPTCP.
func TestEveryKindOfClientSocketIsAttested(t *testing.T) {
	own, err := launch.OwnCgroup()
	if err != nil {
		t.Skip(err)
	}
	d := newDiag(t)
	for _, test := range []struct {
		name, listen string
		family       int
		protocol     int
		to           [16]byte
	}{
		{"IPv4", "127.0.0.1:0", unix.AF_INET, 0, [16]byte{127, 0, 0, 1}},
		{"IPv6 socket to a mapped address", "127.0.0.1:0", unix.AF_INET6, 0, [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}},
		{"mapped on both sides", "[::]:0", unix.AF_INET6, 0, [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}},
		{"IPv6", "[::1]:0", unix.AF_INET6, 0, [16]byte{15: 1}},
		{"MPTCP", "127.0.0.1:0", unix.AF_INET, unix.IPPROTO_MPTCP, [16]byte{127, 0, 0, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := listen(t, test.listen)
			fd, err := unix.Socket(test.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, test.protocol)
			if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOPROTOOPT) {
				t.Skipf("this kernel has no such socket: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			var to unix.Sockaddr = &unix.SockaddrInet6{Port: port(l), Addr: test.to}
			if test.family == unix.AF_INET {
				to = &unix.SockaddrInet4{Port: port(l), Addr: [4]byte(test.to[:4])}
			}
			if err := unix.Connect(fd, to); err != nil {
				t.Fatal(err)
			}
			got, err := d.Attest(accept(t, l))
			if err != nil {
				t.Fatal(err)
			}
			if got.UID != uint32(os.Getuid()) || got.Cgroup != own {
				t.Errorf("got uid %d in cgroup %d, want %d in %d", got.UID, got.Cgroup, os.Getuid(), own)
			}
		})
	}
}

// host-attestation §1: the look-up of a dead connection answers with whoever
// took its port; only our own end knows that the connection is dead.
func TestWhoeverTakesThePortAfterAResetIsNotTakenForThePeer(t *testing.T) {
	g := groups(t, "victim", "thief")
	d, l := newDiag(t), listen(t, "127.0.0.1:0")
	for _, take := range []string{"listen on %d", "connect from %d to %d"} {
		t.Run(take[:7], func(t *testing.T) {
			victim, thief := newPeer(t, g[0], 60001), newPeer(t, g[1], 60002)
			victim.do("connect from 0 to %d", port(l))
			c := accept(t, l)
			from := c.RemoteAddr().(*net.TCPAddr).Port
			if f, err := d.Attest(c); err != nil || f.UID != 60001 {
				t.Fatalf("before the reset: %+v, %v", f, err)
			}
			victim.do("reset")
			args := []any{from, port(l)}
			if take[0] == 'l' {
				args = args[:1]
			}
			thief.do(take, args...)
			f, err := d.Attest(c)
			if !errors.Is(err, caller.ErrOwnEnd) && !errors.Is(err, caller.ErrNotEstablished) {
				t.Errorf("after the reset: %+v, %v; want a refusal", f, err)
			}
			if take[0] == 'c' { // the thief's own connection is the thief's
				if f, err := d.Attest(accept(t, l)); err != nil || f.UID != 60002 || f.Cgroup != g[1].ID {
					t.Errorf("the thief's own connection: %+v, %v", f, err)
				}
			}
		})
	}
}

func TestAPeerThatHungUpIsRefusedAndNotTakenForRoot(t *testing.T) {
	d, l := newDiag(t), listen(t, "127.0.0.1:0")
	for _, how := range []string{"close", "reset", "half-close"} {
		t.Run(how, func(t *testing.T) {
			client, err := net.Dial("tcp4", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			c := accept(t, l)
			switch how {
			case "close":
				client.Close()
			case "reset":
				client.(*net.TCPConn).SetLinger(0)
				client.Close()
			case "half-close":
				client.(*net.TCPConn).CloseWrite()
			}
			if f, err := d.Attest(c); err == nil {
				t.Errorf("got %+v, want a refusal", f)
			}
		})
	}
}

func TestAClosedDiagRefuses(t *testing.T) {
	d, l := newDiag(t), listen(t, "127.0.0.1:0")
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	d.Close()
	if f, err := d.Attest(accept(t, l)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %+v, %v; want net.ErrClosed", f, err)
	}
}

func TestNobodyElseCanListenOnOurPort(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			t.Fatal(err)
		}
	}
	err = unix.Bind(fd, loopback(port(l)))
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second listener on our port: %v, want %v", err, unix.EADDRINUSE)
	}
}

// namespace makes a network namespace of its own with its loopback up.
func namespace(t *testing.T) *os.File {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for a network namespace of its own")
	}
	made := make(chan *os.File, 1)
	go func() {
		defer close(made)
		runtime.LockOSThread() // the thread ends with the goroutine: it is never unlocked
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("making a network namespace: %v", err)
			return
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Errorf("bringing lo up: %v", err)
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
			return
		}
		made <- f
	}()
	f, ok := <-made
	if !ok {
		t.FailNow()
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestWhatIsOpenedInANamespaceServesThereAndNowhereElse(t *testing.T) {
	ns := namespace(t)
	var l *net.TCPListener
	var d *caller.Diag
	err := caller.InNamespace(ns, func() (err error) {
		if l, err = caller.Listen("127.0.0.1:0"); err != nil {
			return err
		}
		d, err = caller.NewDiag()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer d.Close()

	if c, err := net.Dial("tcp4", l.Addr().String()); err == nil {
		c.Close()
		t.Error("the listener inside answers outside")
	}
	var client net.Conn
	err = caller.InNamespace(ns, func() (err error) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "client")
		defer f.Close()
		if err := unix.Connect(fd, loopback(port(l))); err != nil {
			return err
		}
		client, err = net.FileConn(f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c := accept(t, l)
	if f, err := d.Attest(c); err != nil || f.UID != uint32(os.Getuid()) {
		t.Errorf("asking inside: %+v, %v", f, err)
	}
	if f, err := newDiag(t).Attest(c); err == nil {
		t.Errorf("asking outside about a connection inside: %+v, want a refusal", f)
	}
}

func TestInNamespaceReturnsTheErrorAndComesHome(t *testing.T) {
	ns := namespace(t)
	boom := errors.New("boom")
	before, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		var inside string
		err := caller.InNamespace(ns, func() (err error) {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			return errors.Join(boom, err)
		})
		if !errors.Is(err, boom) || inside == before {
			t.Fatalf("inside %s, error %v", inside, err)
		}
		if after, _ := os.Readlink("/proc/thread-self/ns/net"); after != before {
			t.Fatalf("a goroutine of the test runs in %s", after)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := caller.InNamespace(null, func() error { t.Error("ran"); return nil }); err == nil {
		t.Error("entering something that is no namespace: no error")
	}
}

func TestProbeReachesCgroupAndUIDHere(t *testing.T) {
	own, err := launch.OwnCgroup()
	if err != nil {
		t.Skip(err)
	}
	if level, why := newDiag(t).Probe(own); level != innate.CgroupUID || why != nil {
		t.Errorf("got %v because %v", level, why)
	}
	if level, why := newDiag(t).Probe(own + 1); level != innate.UID || why == nil {
		t.Errorf("with another cgroup than ours: %v because %v, want uid and a reason", level, why)
	}
}

// connections makes n loopback connections and returns their server ends.
func connections(t testing.TB, l *net.TCPListener, n int) []*net.TCPConn {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(2*n+100) {
		t.Skipf("needs %d descriptors, has %d", 2*n+100, limit.Cur)
	}
	var conns []*net.TCPConn
	for range n {
		c, err := new(net.Dialer).DialContext(context.Background(), "tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, accept(t, l))
	}
	return conns
}

// The kernel finds one connection among thousands by its hash, and a dump or a
// table in /proc would be read whole: some hundred times as long as alone.
func TestAttestationCostsTheSameAmongManyOtherConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 10 000 descriptors")
	}
	const most = 5 // times the median alone: the machine may do other things meanwhile
	d, l := newDiag(t), listen(t, "127.0.0.1:0")
	one := connections(t, l, 1)
	alone := medianAttestation(t, d, one)
	among := medianAttestation(t, d, append(one, connections(t, l, 5000)...))
	if among > most*alone {
		t.Errorf("median attestation among 5000 other connections: %v, alone %v", among, alone)
	}
}

// medianAttestation is the best median of some rounds over conns.
func medianAttestation(tb testing.TB, d *caller.Diag, conns []*net.TCPConn) time.Duration {
	tb.Helper()
	best := time.Hour
	for range 10 {
		var took []time.Duration
		for i := range 200 {
			start := time.Now()
			if _, err := d.Attest(conns[i*25%len(conns)]); err != nil {
				tb.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		best = min(best, took[len(took)/2])
	}
	return best
}

func BenchmarkAttest(b *testing.B) {
	for _, n := range []int{1, 1000, 5000} {
		b.Run(strconv.Itoa(n)+" connections", func(b *testing.B) {
			d := newDiag(b)
			conns := connections(b, listen(b, "127.0.0.1:0"), n)
			for i := 0; b.Loop(); i++ {
				if _, err := d.Attest(conns[i%n]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(medianAttestation(b, d, conns).Nanoseconds()), "median-ns/op") // aim: at most 20 µs
		})
	}
}

// message is an answer of the kernel's, v4, as the bytes on the wire.
func message(attributes ...byte) []byte {
	b := make([]byte, 16+72, 16+72+len(attributes))
	b = append(b, attributes...)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint32(b[8:], 7)
	b[16], b[17] = unix.AF_INET, 1
	copy(b[20:], []byte{0xc0, 0x00, 0x1f, 0x90}) // ports 49152 and 8080
	copy(b[24:], []byte{127, 0, 0, 1})
	copy(b[40:], []byte{127, 0, 0, 1})
	binary.NativeEndian.PutUint32(b[16+64:], 60001)
	binary.NativeEndian.PutUint32(b[16+68:], 4711)
	return b
}

func attribute(size, typ uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, size)
	return append(binary.NativeEndian.AppendUint16(b, typ), value...)
}

func TestMalformedAnswersOfTheKernelAreErrors(t *testing.T) {
	cgroup := attribute(12, 21, 42, 0, 0, 0, 0, 0, 0, 0)
	good, err := caller.ParseReply(message(append(attribute(5, 8, 0, 0, 0, 0), cgroup...)...))
	if err != nil || good.UID != 60001 || good.Inode != 4711 || good.Cgroup == 0 {
		t.Fatalf("a good answer: %+v, %v", good, err)
	}
	without, err := caller.ParseReply(message())
	if err != nil || without.Cgroup != 0 {
		t.Errorf("an answer without a cgroup: %+v, %v; want cgroup 0", without, err)
	}
	long := message()
	binary.NativeEndian.PutUint32(long, 1<<31)
	for name, b := range map[string][]byte{
		"empty":                         {},
		"half a header":                 message()[:8],
		"cut":                           message()[:60],
		"longer than it is":             long,
		"attribute of no length":        message(attribute(0, 21)...),
		"attribute beyond the end":      message(attribute(40, 21)...),
		"cgroup of four bytes":          message(attribute(8, 21, 1, 2, 3, 4)...),
		"an address family of its own":  func() []byte { b := message(); b[16] = 99; return b }(),
		"a message type of its own":     func() []byte { b := message(); b[4] = 99; return b }(),
		"an error message without code": func() []byte { b := message()[:16]; b[0], b[4], b[5] = 16, 2, 0; return b }(),
	} {
		if r, err := caller.ParseReply(b); err == nil {
			t.Errorf("%s: got %+v, want an error", name, r)
		}
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add([]byte{})
	f.Add(message())
	f.Add(message(attribute(12, 21, 42, 0, 0, 0, 0, 0, 0, 0)...))
	f.Add(message(attribute(5, 8, 0, 0, 0, 0)...))
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff}) // ENOENT
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := caller.ParseReply(b)
		if err == nil && len(b) < 88 && r.Inode != 0 {
			t.Errorf("facts %+v out of %d bytes", r.Facts, len(b))
		}
	})
}
