// Package ldap is as much of LDAP v3 (RFC 4511) as PostgreSQL's `ldap` method
// speaks in its simple form: BIND, StartTLS and UNBIND, on the server's side.
//
// It owns the wire: a message is read within bounds, and whatever else a client
// may ask has its refusal in the right shape. It leaves to its caller the
// connection, its deadlines, TLS, and whether a password is good. It is no
// directory and will not become one: nothing can be searched.
package ldap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// MaxMessage is the length in bytes of the longest message that is read. A
// password is an access token, a few KB.
const MaxMessage = 16 << 10

// StartTLS is the name of the extended request that begins TLS (RFC 4511 §4.14).
const StartTLS = "1.3.6.1.4.1.1466.20037"

// An Operation is the number of a request's tag (RFC 4511 §4.2 and after it).
type Operation byte

// The operations that are told apart.
const (
	Bind     Operation = 0
	Unbind   Operation = 2
	search   Operation = 3
	modify   Operation = 6
	add      Operation = 8
	del      Operation = 10
	modifyDN Operation = 12
	compare  Operation = 14
	Abandon  Operation = 16
	Extended Operation = 23
)

// A Result is a resultCode (RFC 4511 appendix A).
type Result byte

// The results that are given.
const (
	Success                 Result = 0
	ProtocolError           Result = 2
	AuthMethodNotSupported  Result = 7
	UnavailableCritical     Result = 12
	ConfidentialityRequired Result = 13
	InvalidCredentials      Result = 49
	UnwillingToPerform      Result = 53
)

// A Request is what a client asks. Name and Password are set in a Bind only, and
// alias what was read; OID in an Extended only.
type Request struct {
	ID       int32
	Op       Operation
	Critical bool // it has a control that must not be passed over, and none is known here
	Version  int  // of the protocol, in a Bind
	Simple   bool // the Bind is by password, not by SASL
	Name     []byte
	Password []byte
	OID      string
}

// ErrMalformed means that what came is no request of LDAP v3, or too long. There
// is no answer: the connection is to be closed.
var ErrMalformed = errors.New("not an LDAP request")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Read reads one request. Its error is ErrMalformed, or that of r; io.EOF where
// a message would begin. Nothing of what came is in it.
func Read(r *bufio.Reader) (Request, error) {
	body, err := readMessage(r)
	if err != nil {
		return Request{}, err
	}
	return Parse(body)
}

// readMessage reads the envelope: a SEQUENCE of a definite length, and no byte
// of memory is taken before that length was seen to be a fair one.
func readMessage(r *bufio.Reader) ([]byte, error) {
	tag, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	if tag != tagSequence {
		return nil, malformed("it begins with tag %#02x", tag)
	}
	size, err := readLength(r)
	if err != nil {
		return nil, whole(err)
	}
	if size > MaxMessage {
		return nil, malformed("it says that it has %d bytes, the most is %d", size, MaxMessage)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, whole(err)
	}
	return body, nil
}

// whole is the error of a message that ended in the middle.
func whole(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Parse reads a request from the content of its envelope.
func Parse(body []byte) (Request, error) {
	id, rest, err := integer(body, tagInteger)
	if err != nil || id == 0 { // 0 is for what a server says unasked
		return Request{}, malformed("its message id")
	}
	op, content, rest, err := element(rest)
	if err != nil {
		return Request{}, err
	}
	q := Request{ID: id, Op: Operation(op & numberMask)}
	if op&classMask != classApplication {
		return Request{}, malformed("its operation has tag %#02x", op)
	}
	switch q.Op {
	case Bind:
		err = q.readBind(content)
	case Extended:
		err = q.readExtended(content)
	case Unbind, Abandon, search, modify, add, del, modifyDN, compare:
	default:
		err = malformed("there is no operation %d", q.Op)
	}
	if err == nil {
		q.Critical, err = controls(rest)
	}
	if err != nil {
		return Request{}, err
	}
	return q, nil
}

// readBind reads a BindRequest (RFC 4511 §4.2).
func (q *Request) readBind(b []byte) error {
	version, b, err := integer(b, tagInteger)
	if err != nil {
		return malformed("the version in a bind")
	}
	q.Version = int(version)
	tag, name, b, err := element(b)
	if err != nil || tag != tagOctets {
		return malformed("the name in a bind")
	}
	q.Name = name
	tag, secret, b, err := element(b)
	if err != nil || len(b) != 0 || tag&classMask != classContext {
		return malformed("the authentication in a bind")
	}
	if tag == tagSimple {
		q.Simple, q.Password = true, secret
	}
	return nil
}

// readExtended reads an ExtendedRequest (RFC 4511 §4.12).
func (q *Request) readExtended(b []byte) error {
	tag, name, _, err := element(b)
	if err != nil || tag != tagContext0 || len(name) > 128 {
		return malformed("the name of an extended request")
	}
	q.OID = string(name)
	return nil
}

// controls reports whether any is critical (RFC 4511 §4.1.11). b is what comes
// after the operation: nothing, or the controls.
func controls(b []byte) (critical bool, err error) {
	if len(b) == 0 {
		return false, nil
	}
	tag, list, rest, err := element(b)
	if err != nil || len(rest) != 0 || tag != tagControls {
		return false, malformed("what follows its operation")
	}
	for len(list) > 0 {
		var control []byte
		if tag, control, list, err = element(list); err != nil || tag != tagSequence {
			return false, malformed("a control")
		}
		if tag, _, control, err = element(control); err != nil || tag != tagOctets {
			return false, malformed("the type of a control")
		}
		if len(control) == 0 {
			continue
		}
		if tag, value, _, err := element(control); err != nil || tag == tagBoolean && len(value) != 1 {
			return false, malformed("the criticality of a control")
		} else if tag == tagBoolean && value[0] != 0 {
			critical = true
		}
	}
	return critical, nil
}

// Answer is a response to q. diagnostic is for the log of whoever asked. An
// Unbind and an Abandon have none: the answer is then empty.
func (q Request) Answer(result Result, diagnostic string) []byte {
	if q.Op == Unbind || q.Op == Abandon {
		return nil
	}
	body := appendElement(nil, tagEnumerated, []byte{byte(result)})
	body = appendElement(body, tagOctets, nil) // matchedDN
	body = appendElement(body, tagOctets, []byte(diagnostic))
	if q.Op == Extended && q.OID == StartTLS {
		body = appendElement(body, tagResponseName, []byte(StartTLS))
	}
	response := classApplication | constructed | byte(q.Op) + 1
	if q.Op == search {
		response++ // 4 is an entry, 5 the end of the search
	}
	message := appendElement(nil, tagInteger, appendInteger(nil, q.ID))
	message = appendElement(message, response, body)
	return appendElement(nil, tagSequence, message)
}
