package opener

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"innate"
	"innate/agent/caller"
)

// An Order is what a worker wants done. What an op does not name is not looked at:
//
//	facts                                      → Facts
//	search                                     whether callers can be searched for
//	control                                    the agent's socket
//	alive                                      → Within, when the opener wants to hear that again
//	lends     User                             whether apps may run under the user
//	make      App, Number, Isolate, User       → Home; and the listener of its endpoint
//	make      App, Number, Service             → the same, of a unit
//	folder    Home, Folder                     → Path; it is made, and is empty
//	write     Home, Folder, Name, Content      → Changed
//	unlink    Home, Folder, Name
//	start     Home, Program; and its files     → PID
//	wait      Home, PID                        → Status, when it has ended
//	empty     Home                             when its last process has ended
//	environ   Home                             → Env, of the first process
//	signal    Home, Signal, To, PID
//	kill      Home                             every process of it
//	members   Home                             → Count
//	dial      Home, Port                       a connection to a program there
//	port      Home                             → Port, which nobody has there
//	diag      Home                             netlink sockets that see its callers
//	note      Home, Content; and files         kept with the home, in the place of the last
//	again     Home                             → Home, PID, Content, Folders; the listener, the note's files
//	keep      Name, Content; and files         a record beside
//	kept      Name                             → Content; and files
//	forget    Name
//	left                                       → Left
//	held      Home, Caller                     whether it is the caller (caller.HeldIn)
//	remove    Home                             when its processes are gone
//	find      Place, Content; its namespace    → Spot
//	listen    Spot                             → Bridge, Mark; and the listener
//	over      Spot                             why nobody can be met there any more
//	interfaces Spot                            → Interfaces
//	leave     Spot
type Order struct {
	Op      string            `json:"op"`
	App     innate.ResourceID `json:"app,omitempty"`
	Number  int               `json:"number,omitempty"`
	Isolate bool              `json:"isolate,omitempty"`
	User    string            `json:"user,omitempty"` // of the host; empty: the app's own uid
	Service *Service          `json:"service,omitempty"`
	Home    string            `json:"home,omitempty"`
	Folder  string            `json:"folder,omitempty"`
	Name    string            `json:"name,omitempty"`
	Content []byte            `json:"content,omitempty"`
	Program *Program          `json:"program,omitempty"`
	PID     int               `json:"pid,omitempty"`
	Signal  syscall.Signal    `json:"signal,omitempty"`
	To      string            `json:"to,omitempty"` // all of the home; group or process: the one of PID
	Port    int               `json:"port,omitempty"`
	Caller  *caller.Facts     `json:"caller,omitempty"`
	Place   *Place            `json:"place,omitempty"`
	Spot    string            `json:"spot,omitempty"`
}

// A Program is what to start in a home.
type Program struct {
	Args   []string `json:"args"`
	Dir    string   `json:"dir,omitempty"`    // empty: the opener's own
	Env    []string `json:"env,omitempty"`    // exactly what it sees
	Beside bool     `json:"beside,omitempty"` // the first: it has the environment and the directory of that one
	Files  [3]bool  `json:"files"`            // which of standard input, output and error come with the order; others are /dev/null
}

// A Service is a unit that is a generation.
type Service struct {
	Unit   string `json:"unit"`
	Cgroup string `json:"cgroup"` // path in the hierarchy of the one that its service manager made
	UID    uint32 `json:"uid"`    // of its processes
	GID    uint32 `json:"gid"`

	Delegated bool `json:"delegated,omitempty"` // it may make cgroups below its own
}

// An Answer is what came of an order.
type Answer struct {
	Facts      *Facts            `json:"facts,omitempty"`
	Home       *Told             `json:"home,omitempty"`
	Changed    bool              `json:"changed,omitempty"`
	Path       string            `json:"path,omitempty"` // where the app sees the folder
	PID        int               `json:"pid,omitempty"`
	Status     int               `json:"status,omitempty"` // as a shell counts it
	Content    []byte            `json:"content,omitempty"`
	Folders    map[string]string `json:"folders,omitempty"` // where the app sees them, by kind
	Left       *Left             `json:"left,omitempty"`
	Env        []string          `json:"env,omitempty"`
	Count      int               `json:"count,omitempty"`
	Port       int               `json:"port,omitempty"`
	Within     time.Duration     `json:"within,omitempty"`
	Spot       *Found            `json:"spot,omitempty"`
	Bridge     string            `json:"bridge,omitempty"` // whose listener it is, of several VMs
	Mark       uint32            `json:"mark,omitempty"`   // of connections that came in by the VM's port
	Interfaces []Interface       `json:"interfaces,omitempty"`
}

// duplicate is the same open file again, for somebody else to close. It never
// changes whether the file blocks, as os.File.Fd may: that is for all who share it.
func duplicate(f interface {
	SyscallConn() (syscall.RawConn, error)
}, name string) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	ctl := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(ctl, err); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
