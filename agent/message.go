package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"innate/agent/appservice"
	"innate/agent/opener"
)

// The agent's socket speaks JSON, one message a line. A client sends one
// request, with open files beside it where the op needs them:
//
//	{"op":"run","app":NAME,"endpoint":SHAPE,"args":[…],"dir":DIR,"env":[…],
//	 "restart":WHEN,"isolate":BOOL,"check":[…],"user":NAME} + stdin, stdout, stderr
//	  → {"started":{…},"instance":ID}, then {"exit":STATUS}; meanwhile the client
//	  may send {"signal":N} lines. The app ends when the client hangs up.
//	{"op":"rejoin","instance":ID}, when the agent hung up
//	  → as above
//	the same with "detach":true and no files
//	  → {"started":{…}}. The app goes on; what it writes is in its log.
//	{"op":"exec","app":NAME,"generation":N,"args":[…]} + stdin, stdout, stderr
//	  → {"exit":STATUS}, with signals as in a run
//	{"op":"logs","app":NAME,"follow":BOOL}             → {"text":TEXT}…, {"done":true}
//	{"op":"end","app":NAME,"generation":N,"now":BOOL}  → {"done":true} when it is over
//	{"op":"rotate","app":NAME,"generation":N,"now":BOOL} → {"done":true} when the old one is over
//	{"op":"env","app":NAME,"generation":N}             → {"env":[…]}, secrets masked
//	{"op":"ps"}                                        → {"running":[…]}, what the caller may run
//	{"op":"attach-unit","app":NAME,"unit":UNIT}        → {"attachment":{…}}
//	{"op":"start-unit","app":NAME,"service":{…},"invocation":ID,"env":[…]}
//	                                                   → {"env":[…]}, what the unit is to have more
//	{"op":"detach-unit","app":NAME,"unit":UNIT}        → {"done":true} when its endpoint is closed
//	{"op":"attach","vm":NAME,"place":{…}}              → {"done":true}
//	  + the network namespace, if the place names one
//	{"op":"detach","vm":NAME}                          → {"done":true}
//	{"op":"status"}                                    → {"status":{…}}
//
// Generation 0 means all of the app that run; of exec and env, the oldest. Any
// answer may be {"error":TEXT} instead. Who is asking is the kernel's to say
// (SO_PEERCRED): run, end, rotate, attach-unit and detach-unit are for root and
// whoever may run as the app, exec and env for root and whoever may look into it,
// logs for either, start-unit for root, the rest for root and the agent's own uid.

const (
	maxMessage = 1 << 20 // of a line: an environment and arguments
	maxFiles   = 3
)

// A request is what a client asks for.
type request struct {
	Op         string           `json:"op"`
	App        string           `json:"app,omitempty"`
	Endpoint   appservice.Shape `json:"endpoint,omitempty"`
	Generation int              `json:"generation,omitempty"`
	Args       []string         `json:"args,omitempty"`
	Dir        string           `json:"dir,omitempty"`
	Env        []string         `json:"env,omitempty"`
	Restart    Restart          `json:"restart,omitempty"`
	Detach     bool             `json:"detach,omitempty"`
	Isolate    bool             `json:"isolate,omitempty"`
	Check      []string         `json:"check,omitempty"`
	User       string           `json:"user,omitempty"`
	Follow     bool             `json:"follow,omitempty"`
	Now        bool             `json:"now,omitempty"`
	Instance   string           `json:"instance,omitempty"`
	Unit       string           `json:"unit,omitempty"`
	Service    *opener.Service  `json:"service,omitempty"`
	Invocation string           `json:"invocation,omitempty"`
	VM         string           `json:"vm,omitempty"`
	Place      *Place           `json:"place,omitempty"`
}

// A note is what the client of a run or exec may send while it lasts.
type note struct {
	Signal int `json:"signal"`
}

// A report is what the agent answers.
type report struct {
	Error      string      `json:"error,omitempty"`
	Started    *Started    `json:"started,omitempty"`
	Instance   string      `json:"instance,omitempty"` // what to rejoin when the line is cut
	Exit       *int        `json:"exit,omitempty"`
	Status     *Status     `json:"status,omitempty"`
	Running    []Running   `json:"running,omitempty"`
	Env        []string    `json:"env,omitempty"`
	Attachment *Attachment `json:"attachment,omitempty"`
	Text       []byte      `json:"text,omitempty"`
	Done       bool        `json:"done,omitempty"`
}

// A line is a connection that carries messages and the files sent with them.
type line struct {
	conn  *net.UnixConn
	read  []byte     // received, not yet returned
	files []*os.File // received, not yet taken
}

var errTooLong = fmt.Errorf("a message of more than %d bytes", maxMessage)

// receive reads the next message into v.
func (l *line) receive(v any) error {
	for {
		if i := bytes.IndexByte(l.read, '\n'); i >= 0 {
			err := json.Unmarshal(l.read[:i], v)
			l.read = l.read[i+1:]
			if err != nil {
				return fmt.Errorf("reading a message: %w", err)
			}
			return nil
		}
		if len(l.read) > maxMessage {
			return errTooLong
		}
		if err := l.fill(); err != nil {
			return err
		}
	}
}

// fill receives more bytes and whatever files come with them.
func (l *line) fill() error {
	buf := make([]byte, 32<<10)
	oob := make([]byte, unix.CmsgSpace(4*(maxFiles+1)))
	n, oobn, flags, _, err := l.conn.ReadMsgUnix(buf, oob)
	if n > 0 {
		l.read = append(l.read, buf[:n]...)
	}
	if taken := l.take(oob[:oobn]); taken != nil {
		return taken
	}
	switch {
	case err != nil:
		return err
	case n == 0 && oobn == 0:
		return io.EOF
	case flags&unix.MSG_CTRUNC != 0 || len(l.files) > maxFiles:
		return fmt.Errorf("more than %d open files came with a message", maxFiles)
	}
	return nil
}

// take keeps the files of a control message; ReadMsgUnix has set close-on-exec.
func (l *line) take(oob []byte) error {
	if len(oob) == 0 {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("reading what came with a message: %w", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return errors.New("something other than open files came with a message")
		}
		for _, fd := range fds {
			l.files = append(l.files, os.NewFile(uintptr(fd), fmt.Sprintf("file %d of the message", len(l.files)+1)))
		}
	}
	return nil
}

// send writes a message, and files with its first bytes.
func (l *line) send(v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if b = append(b, '\n'); len(b) > maxMessage {
		return errTooLong
	}
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		n, _, err := l.conn.WriteMsgUnix(b, syscall.UnixRights(fds...), nil)
		if err != nil {
			return err
		}
		if b = b[n:]; len(b) == 0 {
			return nil // whoever has it all may have answered and hung up: even an empty write fails then
		}
	}
	_, err = l.conn.Write(b)
	return err
}

// close closes the connection and the files that nobody took.
func (l *line) close() {
	l.conn.Close()
	for _, f := range l.files {
		f.Close()
	}
}
