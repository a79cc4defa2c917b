package rest

import "io"

// Repaired is what an HTTP/1.1 server behind Listener reads of r.
func Repaired(r io.Reader) io.Reader { return &lines{src: r} }
