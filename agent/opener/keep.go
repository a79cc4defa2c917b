package opener

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
)

// What a worker wants to find again when it comes back: of each home a note, and
// records of its own beside, each with a few open files. What is in them is not
// the opener's to read.

const (
	mostKept = 4096
	mostNote = 4 << 20 // bytes of one
	mostHeld = 3       // files of one
)

// A kept is a record of the worker's.
type kept struct {
	content []byte
	files   []*os.File
}

// newKept copies what came.
func newKept(o Order, files []*os.File) (k *kept, err error) {
	if len(o.Content) > mostNote || len(files) > mostHeld {
		return nil, fmt.Errorf("a record of %d bytes and %d files: want at most %d and %d", len(o.Content), len(files), mostNote, mostHeld)
	}
	k = &kept{content: bytes.Clone(o.Content)}
	k.files, err = duplicateAll(files)
	return k, err
}

func (k *kept) close() {
	if k != nil {
		closeAll(k.files)
	}
}

func duplicateAll(files []*os.File) ([]*os.File, error) {
	var all []*os.File
	for _, f := range files {
		d, err := duplicate(f, f.Name())
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// note keeps the worker's note of a home, and what it reads of its output by.
func (h *home) note(_ context.Context, o Order, files []*os.File) (Answer, []*os.File, error) {
	k, err := newKept(o, files)
	if err != nil {
		return Answer{}, nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		k.close()
		return Answer{}, nil, errOver
	}
	h.kept.close()
	h.kept = k
	return Answer{}, nil, h.save()
}

// again tells of a home as it is: also its first process, the note, the listener
// and the note's files.
func (h *home) again(context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return Answer{}, nil, errOver
	}
	a, held := Answer{Home: &h.Told, Folders: map[string]string{}}, []*os.File{h.listener}
	for kind := range h.folders {
		a.Folders[kind] = h.seenAt(kind)
	}
	if h.first != nil {
		a.PID = h.first.PID
	}
	if h.kept != nil {
		a.Content, held = h.kept.content, append(held, h.kept.files...)
	}
	files, err := duplicateAll(held)
	return a, files, err
}

// keep keeps a record of the worker's in the place of an earlier one of that name.
// Its files stay where none come.
func (l *Local) keep(_ context.Context, o Order, files []*os.File) (Answer, []*os.File, error) {
	if !fileName.MatchString(o.Name) {
		return Answer{}, nil, fmt.Errorf("a record called %.80q: want letters, digits, dots, hyphens and underscores", o.Name)
	}
	k, err := newKept(o, files)
	if err != nil {
		return Answer{}, nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.kept[o.Name]
	switch {
	case old == nil && len(l.kept) >= mostKept:
		k.close()
		return Answer{}, nil, fmt.Errorf("%d records are kept already", mostKept)
	case old != nil && len(files) == 0:
		k.files = old.files
	default:
		old.close()
	}
	l.kept[o.Name] = k
	return Answer{}, nil, l.saveKept(o.Name, k)
}

// tellKept tells a record, with its files.
func (l *Local) tellKept(_ context.Context, o Order, _ []*os.File) (Answer, []*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kept[o.Name]
	if k == nil {
		return Answer{}, nil, fmt.Errorf("there is no record %.80q", o.Name)
	}
	files, err := duplicateAll(k.files)
	return Answer{Content: k.content}, files, err
}

// forget throws a record away; it may be gone.
func (l *Local) forget(_ context.Context, o Order, _ []*os.File) (Answer, []*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kept[o.Name]
	if k == nil {
		return Answer{}, nil, nil
	}
	k.close()
	delete(l.kept, o.Name)
	return Answer{}, nil, l.unsave(keptRecords, o.Name)
}

// left lists what there is.
func (l *Local) left(context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := &Left{Homes: slices.Sorted(maps.Keys(l.homes)), Kept: slices.Sorted(maps.Keys(l.kept))}
	for _, id := range slices.Sorted(maps.Keys(l.spots)) {
		found.Spots = append(found.Spots, *l.spots[id].found())
	}
	return Answer{Left: found}, nil, nil
}

// Left is what an earlier worker left.
type Left struct {
	Homes []string `json:"homes"` // by id
	Spots []Found  `json:"spots"`
	Kept  []string `json:"kept"` // by name
}

// orphan ends what a worker that has ended ran beside first processes: consoles
// and checks, which are of no use without it.
func (l *Local) orphan() {
	l.mu.Lock()
	homes := slices.Collect(maps.Values(l.homes))
	l.mu.Unlock()
	var errs []error
	for _, h := range homes {
		errs = append(errs, h.hangUp())
	}
	if err := errors.Join(errs...); err != nil {
		l.config.Log.Warn("ending what ran beside apps", "err", err)
	}
}
