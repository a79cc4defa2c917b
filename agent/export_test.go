package agent

import "net"

// Tick is a look at the clock for tokens that want their next.
func (a *Agent) Tick() { a.tokens.refreshDue() }

// ParseTicket reads a join string and returns where it leads.
func ParseTicket(s string) (address, name string, err error) {
	t, err := parseTicket(s)
	return t.address, t.name, err
}

// Receive reads messages from c until one is bad or c ends, and returns how
// many files it was left with.
func Receive(c *net.UnixConn) (messages, files int, err error) {
	l := &line{conn: c}
	defer l.close()
	for {
		var q request
		if err := l.receive(&q); err != nil {
			return messages, len(l.files), err
		}
		messages++
	}
}

// Masked is what is shown of an environment.
func Masked(env []string) []string { return masked(env, nil) }

// ParseReference reads a setting's value on a platform of domain innate.test;
// words is what it refers to.
func ParseReference(value string) (words string, is bool, err error) {
	r, is, err := parseReference(value, "innate.test")
	if !is || err != nil {
		return "", is, err
	}
	return r.String(), true, nil
}
