package opener

import (
	"context"
	"os"
	"strings"
)

// CheckRange is the rule for the uids of apps; subuid is the text of /etc/subuid.
func CheckRange(base uint32, subuid string) error { return checkRange(base, strings.NewReader(subuid)) }

// Serve carries out what is sent at the other end of a pair, until that ends.
func (l *Local) Serve(ctx context.Context) (there *os.File, served <-chan error, err error) {
	here, there, err := newPair()
	if err != nil {
		return nil, nil, err
	}
	w, err := openWire(here)
	if err != nil {
		return nil, nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- l.serve(ctx, w) }()
	return there, ended, nil
}

// Parse reads a message from a packet, or from a memfd that came beside it.
func Parse(b []byte, long bool) error {
	var files []*os.File
	if long {
		fd, err := sealed(b)
		if err != nil {
			return err
		}
		files, b = []*os.File{os.NewFile(uintptr(fd), "long")}, []byte{0}
	}
	_, files, err := parse(b, files, 0)
	closeAll(files)
	return err
}
