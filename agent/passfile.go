package agent

import "strings"

// A passLine is a line of a PostgreSQL password file: the password for one role at
// one server, whatever the database.
type passLine struct {
	host, port, role, password string
}

// appendTo appends the line, or nothing where the format has no way to say it: a
// field with an end of line. A colon or backslash has a backslash before it, and so
// has a field that is an asterisk, which alone means anything.
// See https://www.postgresql.org/docs/15/libpq-pgpass.html.
func (l passLine) appendTo(b []byte) []byte {
	whole := []string{l.host, l.port, "*", l.role, l.password}
	for i, field := range whole {
		if strings.ContainsAny(field, "\n\r\x00") {
			return b
		}
		if i != 2 {
			whole[i] = passField(field)
		}
	}
	return append(append(b, strings.Join(whole, ":")...), '\n')
}

var passEscapes = strings.NewReplacer(`\`, `\\`, `:`, `\:`)

func passField(s string) string {
	if s == "*" {
		return `\*`
	}
	return passEscapes.Replace(s)
}
