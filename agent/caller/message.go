package caller

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The layout of struct inet_diag_req_v2 and struct inet_diag_msg behind a
// struct nlmsghdr (linux/inet_diag.h, linux/netlink.h); offsets are from the
// start of the message.
const (
	requestSize = 72
	replySize   = 16 + 72 // header and fixed part; attributes follow

	attributeCgroup = 21 // INET_DIAG_CGROUP_ID, u64, sent without asking since Linux 5.8
	established     = 1  // TCP_ESTABLISHED
)

// A tuple is a connection as its client sees it; addresses are never v4-in-v6.
type tuple struct{ client, server netip.AddrPort }

func (t tuple) String() string { return t.client.String() + "→" + t.server.String() }

// putRequest writes the exact query for t into b, which has requestSize bytes.
func putRequest(b []byte, seq uint32, t tuple) {
	clear(b)
	native := binary.NativeEndian
	native.PutUint32(b[0:], requestSize)
	native.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST) // not NLM_F_DUMP: one socket, not a scan
	native.PutUint32(b[8:], seq)

	b[16], b[17] = unix.AF_INET, unix.IPPROTO_TCP
	if t.client.Addr().Is6() {
		b[16] = unix.AF_INET6
	}
	native.PutUint32(b[20:], 0xffffffff) // every state; an exact query ignores it
	binary.BigEndian.PutUint16(b[24:], t.client.Port())
	binary.BigEndian.PutUint16(b[26:], t.server.Port())
	copy(b[28:44], t.client.Addr().AsSlice())
	copy(b[44:60], t.server.Addr().AsSlice())
	native.PutUint64(b[64:], 0xffffffffffffffff) // INET_DIAG_NOCOOKIE
}

// A reply is what the kernel said of one socket, or why it said nothing.
type reply struct {
	seq   uint32
	errno unix.Errno // of an NLMSG_ERROR; the rest is then empty
	state uint8
	tuple tuple
	Facts
}

// parseReply reads one message of the kernel's.
func parseReply(b []byte) (reply, error) {
	native := binary.NativeEndian
	if len(b) < 16 {
		return reply{}, fmt.Errorf("%d bytes: want a header of 16", len(b))
	}
	size := native.Uint32(b[0:])
	if size < 16 || uint64(size) > uint64(len(b)) {
		return reply{}, fmt.Errorf("message of %d bytes says it has %d", len(b), size)
	}
	b = b[:size]
	r := reply{seq: native.Uint32(b[8:])}

	switch typ := native.Uint16(b[4:]); typ {
	case unix.NLMSG_ERROR:
		if len(b) < 20 {
			return reply{}, fmt.Errorf("error message of %d bytes", len(b))
		}
		code := int32(native.Uint32(b[16:]))
		if code >= 0 {
			return reply{}, fmt.Errorf("error message with code %d: want a negative errno", code)
		}
		r.errno = unix.Errno(-int64(code))
		return r, nil
	case unix.SOCK_DIAG_BY_FAMILY:
	default:
		return reply{}, fmt.Errorf("message type %d", typ)
	}

	if len(b) < replySize {
		return reply{}, fmt.Errorf("socket message of %d bytes: want at least %d", len(b), replySize)
	}
	body := b[16:]
	r.state = body[1]
	var err error
	if r.tuple, err = parseTuple(body[0], body[4:40]); err != nil {
		return reply{}, err
	}
	r.Cookie = native.Uint64(body[44:])
	r.UID = native.Uint32(body[64:])
	r.Inode = native.Uint32(body[68:])
	r.Cgroup, err = parseCgroup(b[replySize:])
	return r, err
}

// parseTuple reads ports and addresses of a struct inet_diag_sockid.
func parseTuple(family byte, id []byte) (tuple, error) {
	var from, to netip.Addr
	switch family {
	case unix.AF_INET:
		from, to = netip.AddrFrom4([4]byte(id[4:8])), netip.AddrFrom4([4]byte(id[20:24]))
	case unix.AF_INET6: // also the answer to a v4 question: Java and Node use v6 sockets
		from, to = netip.AddrFrom16([16]byte(id[4:20])).Unmap(), netip.AddrFrom16([16]byte(id[20:36])).Unmap()
	default:
		return tuple{}, fmt.Errorf("address family %d", family)
	}
	return tuple{
		client: netip.AddrPortFrom(from, binary.BigEndian.Uint16(id[0:])),
		server: netip.AddrPortFrom(to, binary.BigEndian.Uint16(id[2:])),
	}, nil
}

// parseCgroup finds the cgroup id among attributes; 0 means that there is none.
func parseCgroup(b []byte) (uint64, error) {
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b[0:]))
		typ := binary.NativeEndian.Uint16(b[2:])
		if size < 4 || size > len(b) {
			return 0, fmt.Errorf("attribute %d of %d bytes where %d are left", typ, size, len(b))
		}
		if typ == attributeCgroup {
			if size != 12 {
				return 0, fmt.Errorf("cgroup attribute of %d bytes: want 12", size)
			}
			return binary.NativeEndian.Uint64(b[4:]), nil
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return 0, nil
}
