package seal

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Keeper keeps master keys where a copy of the disk does not have them: a TPM,
// an HSM. It is asked when a master key is made and when it is opened, never for
// a secret.
type Keeper interface {
	// Name is the word for it in the file, such as tpm.
	Name() string
	// Keep makes of a key something that is of use with this keeper alone.
	Keep(key []byte) (kept []byte, err error)
	// Key is the inverse of Keep.
	Key(kept []byte) (key []byte, err error)
}

// InFile is the name of no keeper: the file has the key itself.
const InFile = "file"

// ErrSealed is in every error that says that a keeper does not give a master key
// out, now: it may later.
var ErrSealed = errors.New("the master key is sealed")

// The first line of a master key's file says who keeps the key; the second is the
// key, or what the keeper made of it, in standard base64.
const (
	bareHeader = "innate master key v1, AES-256-GCM: whoever reads this file reads every secret"
	keptHeader = "innate master key v2, AES-256-GCM, kept by: "
)

// maxFile is the length of the longest file that is read, in bytes.
const maxFile = 16 << 10

// suffixNext makes the path of a master key that of the one that is replacing it.
const suffixNext = ".next"

// CreateMaster makes a master key in a new file of mode 0600; it refuses a path
// that exists. When it returns, the file survives a power cut.
func CreateMaster(path string) (*Key, error) { return CreateMasterIn(path, nil) }

// CreateMasterIn is CreateMaster for a key of which the file has only what its
// keeper made of it. A nil keeper means that the file has the key itself.
func CreateMasterIn(path string, in Keeper) (*Key, error) {
	raw := randomKey()
	key, err := newKey(raw)
	if err != nil {
		return nil, err
	}
	header, kept := bareHeader, raw
	if in != nil {
		header = keptHeader + in.Name()
		if kept, err = in.Keep(raw); err != nil {
			return nil, fmt.Errorf("creating the master key, to be kept by %s: %w", in.Name(), err)
		}
		// What cannot be had back must not seal anything.
		again, err := in.Key(kept)
		if err == nil && !bytes.Equal(again, raw) {
			err = errors.New("it is another key")
		}
		if err != nil {
			return nil, fmt.Errorf("creating the master key: %s does not give it back: %w", in.Name(), err)
		}
	}
	if err := writeNew(path, header+"\n"+base64.StdEncoding.EncodeToString(kept)+"\n"); err != nil {
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
	return syncDir(filepath.Dir(path)) // the name is durable too
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// OpenMaster reads a master key; it refuses a file that others may read. The
// error is ErrSealed when the keeper of the key does not give it out. What a
// replacement that did not finish has sealed opens too: see Unfinished.
func OpenMaster(path string, keepers ...Keeper) (*Key, error) {
	key, err := openOne(path, keepers)
	if err != nil {
		return nil, fmt.Errorf("opening the master key: %w", err)
	}
	if !Unfinished(path) {
		return key, nil
	}
	next, err := openOne(path+suffixNext, keepers)
	if err != nil {
		return nil, fmt.Errorf("opening the master key that is replacing another: %w", err)
	}
	key.succeed(next)
	return key, nil
}

func openOne(path string, keepers []Keeper) (*Key, error) {
	by, kept, err := readMaster(path)
	if err != nil {
		return nil, err
	}
	if by == InFile {
		return newKey(kept)
	}
	for _, k := range keepers {
		if k.Name() != by {
			continue
		}
		raw, err := k.Key(kept)
		if err != nil {
			return nil, fmt.Errorf("%w: asking %s for it: %w", ErrSealed, by, err)
		}
		return newKey(raw)
	}
	return nil, fmt.Errorf("%w: it is kept by %q, which this program was not told how to reach, or was built without", ErrSealed, by)
}

// readMaster reads who keeps the key of a file, and what the file has of it.
func readMaster(path string) (by string, kept []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	if !info.Mode().IsRegular() {
		return "", nil, fmt.Errorf("%s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", nil, fmt.Errorf("%s has mode %04o, so others may use the key: chmod 600 it, and think about who has read it", path, mode)
	}
	by, kept, err = parseMaster(io.LimitReader(f, maxFile))
	if err != nil {
		return "", nil, fmt.Errorf("%s %w", path, err)
	}
	return by, kept, nil
}

// parseMaster reads the two lines of a file, and no third.
func parseMaster(r io.Reader) (by string, kept []byte, err error) {
	notOurs := errors.New("is not a master key of this program: want its header line, a line of base64 and no more")
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxFile)
	var all []string
	for lines.Scan() {
		all = append(all, lines.Text())
	}
	if lines.Err() != nil || len(all) != 2 {
		return "", nil, notOurs
	}
	if by = InFile; all[0] != bareHeader {
		var named bool
		if by, named = strings.CutPrefix(all[0], keptHeader); !named || by == "" {
			return "", nil, notOurs
		}
	}
	if kept, err = base64.StdEncoding.Strict().DecodeString(all[1]); err != nil {
		return "", nil, errors.New("is damaged: its second line is not base64")
	}
	if by == InFile && len(kept) != keySize {
		return "", nil, fmt.Errorf("is damaged: its key has %d bytes, want %d", len(kept), keySize)
	}
	return by, kept, nil
}

// Unfinished reports whether the master key at path is being replaced: Reseal
// began and was not heard of again.
func Unfinished(path string) bool {
	_, err := os.Lstat(path + suffixNext)
	return !errors.Is(err, fs.ErrNotExist)
}

// Reseal replaces the master key at path, which k is, by a new one in a keeper,
// while it is in use. again must seal all that the old key sealed again, by
// k.Reseal, and return when that is durable; then the file of the old key goes.
// Whatever stops it, nothing is lost: the next Reseal, of which an unfinished
// one's key is the new one, or another process that opens the file, goes on.
func Reseal(path string, k *Key, in Keeper, again func() error) error {
	if !Unfinished(path) {
		next, err := CreateMasterIn(path+suffixNext, in)
		if err != nil {
			return err
		}
		k.succeed(next)
	}
	if err := again(); err != nil {
		return fmt.Errorf("sealing again under the new master key: %w", err)
	}
	if err := os.Rename(path+suffixNext, path); err != nil {
		return fmt.Errorf("putting the new master key in the place of the old: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("putting the new master key in the place of the old: %w", err)
	}
	return nil
}

// KeptBy is the name of the keeper of the master key at path: InFile, or that of a Keeper.
func KeptBy(path string) (string, error) {
	by, _, err := readMaster(path)
	return by, err
}
