package opener

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Worker and opener speak JSON over a pair of SOCK_SEQPACKET sockets, one message
// a packet, with open files beside it (SCM_RIGHTS). A message that is too long for
// a packet is in a sealed memfd, the first of the files; the packet is then empty
// but for one byte.
//
//	worker → opener   {"id":N,"order":{…}}, or {"id":N,"cancel":true} for one that waits
//	opener → worker   {"id":N,"answer":{…}} or {"id":N,"error":TEXT,"over":BOOL}
//	opener → worker   {"end":true}: all apps are to end, and the worker with them
type message struct {
	ID     uint64  `json:"id,omitempty"`
	Order  *Order  `json:"order,omitempty"`
	Cancel bool    `json:"cancel,omitempty"`
	Answer *Answer `json:"answer,omitempty"`
	Error  string  `json:"error,omitempty"`
	Over   bool    `json:"over,omitempty"` // the error is os.ErrProcessDone
	End    bool    `json:"end,omitempty"`
}

const (
	mostPacket  = 64 << 10 // bytes
	mostMessage = 8 << 20  // bytes
	mostPassed  = 9        // files of a message, the memfd among them
)

// A wire carries messages and the files sent with them.
type wire struct {
	conn *net.UnixConn

	writing sync.Mutex
}

// newPair makes the two ends.
func newPair() (here, there *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "opener"), nil
}

// openWire takes one of the ends over.
func openWire(f *os.File) (*wire, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("it is no unix socket")
	}
	return &wire{conn: u}, nil
}

// send sends a message and copies of the files.
func (w *wire) send(m message, files ...*os.File) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > mostMessage {
		return fmt.Errorf("a message of %d bytes: want at most %d", len(b), mostMessage)
	}
	if len(b) > mostPacket {
		fd, err := sealed(b)
		if err != nil {
			return fmt.Errorf("a message of %d bytes: %w", len(b), err)
		}
		long := os.NewFile(uintptr(fd), "long")
		defer long.Close()
		files, b = append([]*os.File{long}, files...), []byte{0}
	}
	w.writing.Lock()
	defer w.writing.Unlock()
	return withRights(files, func(rights []byte) error {
		_, _, err := w.conn.WriteMsgUnix(b, rights, nil)
		return err
	})
}

// withRights calls send with what has copies of open files travel beside a packet.
func withRights(files []*os.File, send func(rights []byte) error) error {
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		var fd int
		ctl := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
		if err := errors.Join(ctl, err); err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	if len(fds) == 0 {
		return send(nil)
	}
	return send(unix.UnixRights(fds...))
}

// sealed is a memfd with b in it, which nobody can change any more.
func sealed(b []byte) (fd int, err error) {
	if fd, err = unix.MemfdCreate("message", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING); err != nil {
		return -1, err
	}
	for at := 0; at < len(b) && err == nil; {
		var n int
		n, err = unix.Pwrite(fd, b[at:], int64(at))
		at += n
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// receive reads the next message. The files are the caller's.
func (w *wire) receive() (m message, files []*os.File, err error) {
	buf := make([]byte, mostPacket)
	oob := make([]byte, unix.CmsgSpace(4*(mostPassed+1)))
	n, oobn, flags, _, err := w.conn.ReadMsgUnix(buf, oob)
	files, bad := takeFiles(oob[:oobn])
	if err = errors.Join(err, bad); err == nil {
		m, files, err = parse(buf[:n], files, flags)
	}
	if err != nil {
		closeAll(files)
		return message{}, nil, err
	}
	return m, files, nil
}

// parse reads what came in one packet. Whatever the error, the files are the caller's.
func parse(b []byte, files []*os.File, flags int) (m message, _ []*os.File, err error) {
	switch {
	case len(b) == 0 && len(files) == 0:
		return m, files, io.EOF
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || len(files) > mostPassed:
		return m, files, fmt.Errorf("a packet of more than %d bytes or %d files", mostPacket, mostPassed)
	case len(b) == 1 && b[0] == 0:
		if len(files) == 0 {
			return m, files, errors.New("a long message came without its memfd")
		}
		long := files[0]
		files = files[1:]
		defer long.Close()
		if b, err = readSealed(long); err != nil {
			return m, files, fmt.Errorf("reading a long message: %w", err)
		}
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, files, fmt.Errorf("reading a message: %w", err)
	}
	return m, files, nil
}

// readSealed reads a sealed memfd. Of another kind of file a read could wait for ever.
func readSealed(f *os.File) ([]byte, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var b []byte
	ctl := raw.Control(func(fd uintptr) {
		var has int
		if has, err = unix.FcntlInt(fd, unix.F_GET_SEALS, 0); err != nil || has&seals != seals {
			err = errors.Join(err, errors.New("it is no sealed memfd"))
			return
		}
		var st unix.Stat_t
		if err = unix.Fstat(int(fd), &st); err != nil {
			return
		}
		if st.Size > mostMessage {
			err = fmt.Errorf("%d bytes: want at most %d", st.Size, mostMessage)
			return
		}
		b = make([]byte, st.Size)
		for at := 0; at < len(b) && err == nil; {
			var n int
			if n, err = unix.Pread(int(fd), b[at:], int64(at)); n == 0 && err == nil {
				err = io.ErrUnexpectedEOF
			}
			at += max(n, 0)
		}
	})
	return b, errors.Join(ctl, err)
}

// takeFiles makes files of a control message; ReadMsgUnix has set close-on-exec.
func takeFiles(oob []byte) (files []*os.File, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("reading what came with a message: %w", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, errors.New("something other than open files came with a message")
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}
