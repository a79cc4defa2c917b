package ldap

import (
	"encoding/binary"
	"io"
)

// Tags (X.690 §8.1.2): two bits of class, one that says constructed, five of number.
const (
	classMask        = 0xc0
	classApplication = 0x40
	classContext     = 0x80
	constructed      = 0x20
	numberMask       = 0x1f // as a number: it goes on in the next byte, which LDAP never needs

	tagBoolean      = 0x01
	tagInteger      = 0x02
	tagOctets       = 0x04
	tagEnumerated   = 0x0a
	tagSequence     = 0x30
	tagSimple       = classContext | 0
	tagContext0     = classContext | 0
	tagControls     = classContext | constructed | 0
	tagResponseName = classContext | 10
)

// readLength reads a length in the definite form of at most four bytes (RFC 4511
// §5.1). It need not be the shortest form: libldap always writes five bytes.
func readLength(r io.ByteReader) (uint32, error) {
	first, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	if first < 0x80 {
		return uint32(first), nil
	}
	n := int(first & 0x7f)
	if n == 0 || n > 4 {
		return 0, malformed("a length of %d bytes: want 1 to 4", n)
	}
	var size uint32
	for range n {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		size = size<<8 | uint32(b)
	}
	return size, nil
}

// A cursor is a ByteReader over bytes at hand.
type cursor struct{ rest []byte }

func (c *cursor) ReadByte() (byte, error) {
	if len(c.rest) == 0 {
		return 0, malformed("it ends in the middle")
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return b, nil
}

// element takes the first element off b.
func element(b []byte) (tag byte, content, rest []byte, err error) {
	c := &cursor{b}
	if tag, err = c.ReadByte(); err != nil {
		return 0, nil, nil, err
	}
	if tag&numberMask == numberMask {
		return 0, nil, nil, malformed("a tag of more than one byte")
	}
	size, err := readLength(c)
	if err != nil {
		return 0, nil, nil, err
	}
	if uint64(size) > uint64(len(c.rest)) {
		return 0, nil, nil, malformed("an element says that it has %d bytes where %d are left", size, len(c.rest))
	}
	return tag, c.rest[:size], c.rest[size:], nil
}

// integer takes an INTEGER of 0 to 2^31-1 off b.
func integer(b []byte, want byte) (n int32, rest []byte, err error) {
	tag, content, rest, err := element(b)
	if err != nil {
		return 0, nil, err
	}
	if tag != want || len(content) == 0 || len(content) > 4 || content[0] >= 0x80 {
		return 0, nil, malformed("an integer")
	}
	for _, digit := range content {
		n = n<<8 | int32(digit)
	}
	return n, rest, nil
}

// appendInteger appends the content of an INTEGER that is not negative.
func appendInteger(b []byte, n int32) []byte {
	all := binary.BigEndian.AppendUint32(nil, uint32(n))
	for len(all) > 1 && all[0] == 0 && all[1] < 0x80 {
		all = all[1:]
	}
	return append(b, all...)
}

// appendElement appends an element with the shortest length.
func appendElement(b []byte, tag byte, content []byte) []byte {
	b = append(b, tag)
	switch n := len(content); {
	case n < 0x80:
		b = append(b, byte(n))
	case n < 0x100:
		b = append(b, 0x81, byte(n))
	default:
		b = append(b, 0x82, byte(n>>8), byte(n)) // answers are far below 64 KB
	}
	return append(b, content...)
}
