package opener

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"innate/agent/launch"
)

// What is held is written down as it changes (Config.Held), so that an opener
// that comes back knows what it may take up: by exec, or started by a service
// manager that kept the files (manager). Each file has a name, which says what it was.

// Kinds of records: each is a directory in Config.Held.
const (
	homeRecords = "homes"
	spotRecords = "spots"
	keptRecords = "kept"
)

// A homeRecord is a home as it is written down.
type homeRecord struct {
	Told
	Groups  []uint32 `json:"groups"`
	Dir     string   `json:"dir"`
	PID     int      `json:"pid"`
	Born    string   `json:"born"`
	Folders []string `json:"folders"`
	Note    []byte   `json:"note"`
	Files   int      `json:"files"`
}

// A spotRecord is a spot as it is written down.
type spotRecord struct {
	Place  Place  `json:"place"`
	Note   []byte `json:"note"`
	Device int    `json:"device"`
	Bridge int    `json:"bridge"`
}

// A keptRecord is a record of the worker's as it is written down.
type keptRecord struct {
	Content []byte `json:"content"`
	Files   int    `json:"files"`
}

// put writes a record down and has its files kept; where nothing is held for later, it does nothing.
func (l *Local) put(kind, name string, v any, files map[string]*os.File) error {
	if l.config.Held == "" {
		return nil
	}
	l.manager.keep(kind+"/"+name, files)
	b, err := json.Marshal(v)
	if err == nil {
		err = os.MkdirAll(filepath.Join(l.config.Held, kind), 0o700)
	}
	path := l.record(kind, name)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("writing down what is held: %w", err)
	}
	return nil
}

func (l *Local) record(kind, name string) string {
	return filepath.Join(l.config.Held, kind, strings.ReplaceAll(name, "/", "@")+".json")
}

// unsave takes a record away.
func (l *Local) unsave(kind, name string) error {
	if l.config.Held == "" {
		return nil
	}
	l.manager.drop(kind + "/" + name)
	if err := os.Remove(l.record(kind, name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// save writes a home down; h.mu is held. One without a note is not taken up again.
func (h *home) save() error {
	if h.kept == nil || h.first == nil && h.unit == nil {
		return nil
	}
	r := homeRecord{Told: h.Told, Groups: h.groups, Dir: h.dir, Note: h.kept.content, Files: len(h.kept.files)}
	for kind := range h.folders {
		r.Folders = append(r.Folders, kind)
	}
	if h.first != nil {
		var err error
		r.PID = h.first.PID
		if r.Born, err = h.first.Born(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	files := map[string]*os.File{}
	h.name(files)
	return h.local.put(homeRecords, h.ID, r, files)
}

func (l *Local) saveKept(of string, k *kept) error {
	files := map[string]*os.File{}
	k.name(files, keptRecords, of)
	return l.put(keptRecords, of, keptRecord{k.content, len(k.files)}, files)
}

// save writes a spot down; local.taking is held, or nobody else knows the spot.
func (s *spot) save() error {
	files := map[string]*os.File{}
	s.name(files)
	return s.local.put(spotRecords, s.id, spotRecord{s.Place, s.note, s.device, s.bridge}, files)
}

// held are the files that are held, by the names under which restore finds them.
func (l *Local) held() map[string]*os.File {
	l.taking.Lock()
	defer l.taking.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]*os.File{}
	if l.control != nil {
		all[SocketFile] = l.control
	}
	for _, h := range l.homes {
		h.mu.Lock()
		h.name(all)
		h.mu.Unlock()
	}
	for n, k := range l.kept {
		k.name(all, keptRecords, n)
	}
	for _, s := range l.spots {
		s.name(all)
	}
	return all
}

// name adds the files of a home; h.mu is held.
func (h *home) name(all map[string]*os.File) {
	all[name(homeRecords, h.ID, "listener")] = h.listener
	if h.ns != nil {
		all[name(homeRecords, h.ID, "ns")] = h.ns
	}
	if h.kept != nil {
		h.kept.name(all, homeRecords, h.ID)
	}
}

// name adds the files of a spot.
func (s *spot) name(all map[string]*os.File) {
	all[name(spotRecords, s.id, "ns")] = s.ns
	if s.listener != nil {
		all[name(spotRecords, s.id, "listener")] = s.listener
	}
	if s.port != nil && s.port.bridge.listener != nil {
		all[name(spotRecords, s.id, "bridge")] = s.port.bridge.listener
	}
}

func name(kind, of, what string) string { return kind + "/" + of + "/" + what }

func (k *kept) name(all map[string]*os.File, kind, of string) {
	for i, f := range k.files {
		all[name(kind, of, fmt.Sprint(i))] = f
	}
}

// restore takes up what an earlier run wrote down, as far as its files came. The
// rest is ended: a home whose listener is lost is never given its port again, for
// somebody else may have had it meanwhile.
func (l *Local) restore(files map[string]*os.File) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.control = files[SocketFile]
	delete(files, SocketFile)
	err := errors.Join(
		each(l, keptRecords, func(n string, r keptRecord) error { return l.restoreKept(n, r, files) }),
		each(l, homeRecords, func(_ string, r homeRecord) error { return l.restoreHome(r, files) }),
		each(l, spotRecords, func(id string, r spotRecord) error { return l.restoreSpot(id, r, files) }),
		l.sweepHomes(),
		l.sweepFolders(),
	)
	for n, f := range files { // what nobody asked for
		f.Close()
		l.manager.drop(filepath.Dir(n))
	}
	return err
}

// sweepHomes ends what is in our cgroups and in no home.
func (l *Local) sweepHomes() error {
	if l.ground().cgroups == nil {
		return nil
	}
	return l.ground().cgroups.Prune(func(path string) bool { return l.homes[path] != nil })
}

// each reads the records of a kind; one that cannot be restored is dropped.
func each[T any](l *Local, kind string, do func(name string, r T) error) error {
	entries, err := os.ReadDir(filepath.Join(l.config.Held, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		n, is := strings.CutSuffix(e.Name(), ".json")
		if !is {
			continue
		}
		n = strings.ReplaceAll(n, "@", "/")
		var r T
		b, readErr := os.ReadFile(l.record(kind, n))
		if readErr == nil {
			readErr = json.Unmarshal(b, &r)
		}
		if readErr == nil {
			readErr = do(n, r)
		}
		if readErr != nil {
			l.config.Log.Warn("something that was held is lost", "what", kind+" "+n, "err", readErr)
			err = errors.Join(err, l.unsave(kind, n))
		}
	}
	return err
}

// restoreKept keeps a record; one that has lost its files has none from here on.
func (l *Local) restoreKept(n string, r keptRecord, files map[string]*os.File) error {
	k := &kept{content: r.Content}
	for i := range r.Files {
		f := files[name(keptRecords, n, fmt.Sprint(i))]
		if f == nil {
			closeAll(k.files)
			k.files = nil
			break
		}
		delete(files, name(keptRecords, n, fmt.Sprint(i)))
		k.files = append(k.files, f)
	}
	l.kept[n] = k
	return l.saveKept(n, k)
}

// restoreHome takes a home up if it is whole: its listener and its files came, its
// cgroup is the one that it was and somebody is in it.
func (l *Local) restoreHome(r homeRecord, files map[string]*os.File) error {
	take := func(what string) *os.File {
		f := files[name(homeRecords, r.ID, what)]
		delete(files, name(homeRecords, r.ID, what))
		return f
	}
	h := &home{
		Told: r.Told, local: l, groups: r.Groups, dir: r.Dir, processes: map[int]*launch.Process{}, folders: map[string]bool{},
		listener: take("listener"), ns: take("ns"), kept: &kept{content: r.Note},
	}
	whole := h.listener != nil && (h.ns != nil) == r.Isolated
	for i := range r.Files {
		f := take(fmt.Sprint(i))
		if f == nil {
			whole = false
			continue
		}
		h.kept.files = append(h.kept.files, f)
	}
	for _, kind := range r.Folders {
		h.folders[kind] = true
	}
	if r.Service != nil {
		return l.restoreUnit(h, whole)
	}
	if g := l.ground(); r.Cgroup != "" && g.cgroups != nil {
		var err error
		if h.cgroup, err = g.cgroups.Find(r.ID, r.CgroupID); err != nil {
			h.close()
			h.kept.close()
			return err
		}
	}
	h.first = launch.Adopt(r.PID, r.Born)
	h.processes[r.PID] = h.first
	if whole {
		l.homes[h.ID] = h
		return nil
	}
	h.kept.close()
	lost := errors.New("its files are lost, and with them its port: it is ended")
	if h.cgroup == nil {
		return errors.Join(lost, h.first.Signal(syscall.SIGKILL), h.close())
	}
	return errors.Join(lost, h.cgroup.Kill(), h.cgroup.Remove(), h.close())
}

// restoreSpot takes a spot up if its place is what it was.
func (l *Local) restoreSpot(id string, r spotRecord, files map[string]*os.File) error {
	ns := files[name(spotRecords, id, "ns")]
	if ns == nil {
		return errors.New("its network namespace is lost: attach the VM again")
	}
	delete(files, name(spotRecords, id, "ns"))
	place := r.Place
	s, err := place.find(ns)
	if err != nil {
		return err
	}
	if s.device != r.Device || s.bridge != r.Bridge || s.own && !l.config.TakeOver {
		return errors.Join(errors.New("its device is another by now"), s.close())
	}
	s.id, s.note, s.local, s.listener = id, r.Note, l, files[name(spotRecords, id, "listener")]
	delete(files, name(spotRecords, id, "listener"))
	l.spots[id] = s
	if s.Port == "" {
		return nil
	}
	s.port, err = l.bridges.add(s, files[name(spotRecords, id, "bridge")])
	delete(files, name(spotRecords, id, "bridge"))
	return err
}
