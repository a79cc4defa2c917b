package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// header is the first line of a master key's file; the second is the key in
// standard base64.
const header = "innate master key v1, AES-256-GCM: whoever reads this file reads every secret\n"

// fileSize is that of a master key's file, in bytes: 44 are the base64 of 32.
const fileSize = len(header) + 44 + len("\n")

// CreateMaster makes a master key in a new file of mode 0600; it refuses a path
// that exists. When it returns, the file survives a power cut.
func CreateMaster(path string) (*Key, error) {
	raw := randomKey()
	key, err := newKey(raw)
	if err != nil {
		return nil, err
	}
	content := header + base64.StdEncoding.EncodeToString(raw) + "\n"
	if err := writeNew(path, content); err != nil {
		return nil, fmt.Errorf("creating the master key: %w", err)
	}
	return key, nil
}

// writeNew writes a file that did not exist, and leaves none when it cannot.
func writeNew(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync() // the name is durable too
}

// OpenMaster reads a master key; it refuses a file that others may read.
func OpenMaster(path string) (*Key, error) {
	raw, err := readMaster(path)
	if err != nil {
		return nil, fmt.Errorf("opening the master key: %w", err)
	}
	return newKey(raw)
}

func readMaster(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, so others may use the key: chmod 600 it, and think about who has read it", path, mode)
	}
	content, err := io.ReadAll(io.LimitReader(f, int64(fileSize)+1))
	if err != nil {
		return nil, err
	}
	line, found := bytes.CutPrefix(content, []byte(header))
	if !found || len(content) != fileSize {
		return nil, fmt.Errorf("%s is not a master key of this program: want its header line and %d bytes in all", path, fileSize)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(string(line[:len(line)-1]))
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: its second line is not base64", path)
	}
	return raw, nil
}
