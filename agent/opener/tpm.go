package opener

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// openTPM opens the host's TPM: on most hosts only root may.
func (l *Local) openTPM(context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	f, err := openDevice(l.config.TPM)
	if err != nil {
		return Answer{}, nil, err
	}
	return Answer{}, []*os.File{f}, nil
}

func openDevice(path string) (*os.File, error) {
	if path == "" {
		return nil, errors.New("this agent was told of no TPM")
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: name the TPM that this host joined by with 'innate agent --tpm-device'", err)
	case info.Mode()&fs.ModeSocket != 0:
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.File()
	case info.Mode()&fs.ModeCharDevice == 0:
		return nil, fmt.Errorf("%s is no TPM: want its device or the socket of an emulator", path)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}
