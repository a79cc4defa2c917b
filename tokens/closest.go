package tokens

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"innate"
	"innate/directory"
)

// mostCompared bounds the credentials among which a refusal's closest is sought.
const mostCompared = 1000

// noteClosest puts into the record of a refusal which credential came closest
// and where the assertion differs from it: whoever may read the log finds it by
// the trace id of the answer, which says neither. Before the signature of an
// assertion is known to be good, it is not worth more than a look at issuers.
func (s *Service) noteClosest(q *request, principal innate.ObjectID, a *assertion) {
	some := s.config.Directory.FederatedSome(principal, mostCompared)
	if !a.signed && len(some) > 0 {
		some = []*directory.FederatedCredential{slices.MinFunc(some, a.closerAtSight)}
	}
	all := a.compare(some)
	if len(all) == 0 {
		return
	}
	closest := all[0]
	var differs []string
	for _, c := range closest.clauses {
		if !c.Holds {
			differs = append(differs, fmt.Sprintf("%s: has %s, credential '%s' wants %s",
				printable(c.Claim), printable(c.Presented), closest.Name, printable(c.Wanted)))
		}
	}
	q.federated["closest"], q.federated["differs"] = closest.Name, strings.Join(differs, "; ")
}

// closerAtSight orders credentials by what their issuers, then their subjects,
// have in common with those of a.
func (a *assertion) closerAtSight(x, y *directory.FederatedCredential) int {
	return cmp.Or(
		cmp.Compare(commonBytes(y.Issuer, a.issuer), commonBytes(x.Issuer, a.issuer)),
		cmp.Compare(commonBytes(y.Subject, a.subject), commonBytes(x.Subject, a.subject)),
		cmp.Compare(x.Name, y.Name),
	)
}

// A comparison is a credential with how an assertion stands to it.
type comparison struct {
	*directory.FederatedCredential
	clauses []Clause
	failing int // how many of them do not hold
	common  int // how many bytes those have in common with what is wanted, from their beginnings
}

// compare holds a against each of credentials; the closest is the first.
func (a *assertion) compare(credentials []*directory.FederatedCredential) []comparison {
	all := make([]comparison, 0, len(credentials))
	for _, credential := range credentials {
		p, ok := credential.Pattern()
		if !ok {
			continue
		}
		c := comparison{FederatedCredential: credential, clauses: a.heldTo(p)}
		for _, clause := range c.clauses {
			if !clause.Holds {
				c.failing++
				c.common += commonBytes(clause.Wanted, clause.Presented)
			}
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(x, y comparison) int {
		return cmp.Or(cmp.Compare(x.failing, y.failing), cmp.Compare(y.common, x.common), cmp.Compare(x.Name, y.Name))
	})
	return all
}

func commonBytes(a, b string) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
