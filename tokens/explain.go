package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"innate"
)

// The verdicts of an Explanation.
const (
	Admitted = "admitted"
	Refused  = "refused"
)

// An Explanation says, clause by clause, why a federated assertion is admitted
// or refused. It is for those who may read the directory: it shows what
// credentials want, which the one who presents an assertion is never told.
type Explanation struct {
	Verdict     string      `json:"verdict"`              // Admitted or Refused
	Credential  string      `json:"credential,omitempty"` // name of the one that admits it
	Why         string      `json:"why"`                  // what the token endpoint would say
	Keys        string      `json:"keys,omitempty"`       // whether the issuer's keys could be had; empty when they were not asked for
	Credentials []Candidate `json:"credentials"`          // those that come closest, the closest first
	More        int         `json:"more,omitempty"`       // how many others there are
}

// A Candidate is a federated credential held against an assertion. It admits
// the assertion when all its clauses hold.
type Candidate struct {
	Name    string   `json:"name"`
	Clauses []Clause `json:"clauses"`
}

// A Clause is one condition of a candidate.
type Clause struct {
	Claim     string   `json:"claim"`     // a claim's name; "signature"; "time"
	Wanted    string   `json:"wanted"`    // by the credential
	Presented string   `json:"presented"` // by the assertion; empty when it has no such claim
	Operator  Operator `json:"operator"`
	Holds     bool     `json:"holds"`
}

// An Operator is how a clause compares.
type Operator string

// The operators: how what is wanted must stand to what is presented.
const (
	Equals   Operator = "eq"        // the same, byte for byte
	Matches  Operator = "matches"   // of the pattern
	In       Operator = "in"        // one of them
	SignedBy Operator = "signed-by" // a key that the issuer publishes
	Within   Operator = "within"    // between them, give or take five minutes
)

func (c Clause) fails() bool { return !c.Holds }

// mostExplained bounds the credentials of an Explanation.
const mostExplained = 50

// Explain holds an assertion of another issuer against every federated
// credential of client, and says what the token endpoint would decide. It issues
// nothing. Its error is that we could not tell.
func (s *Service) Explain(ctx context.Context, client innate.ClientID, compact string) (Explanation, error) {
	q := &request{now: s.config.Now(), client: client, assertion: compact}
	err := s.twice(ctx, func() error {
		if a, err := q.read(); err == nil && strings.EqualFold(a.issuer, string(client)) {
			return settled{invalid("The issuer of the assertion is the client id: the app has signed it itself, with a certificate of its own, and federated credentials do not matter")}
		}
		_, err := s.known(ctx, q)
		return err
	})
	x := Explanation{Verdict: Admitted, Credential: q.key, Why: "proved by its " + q.credential, Credentials: []Candidate{}}
	if err != nil {
		var no *innate.Refusal
		if !errors.As(err, &no) {
			return Explanation{}, err
		}
		x.Verdict, x.Credential, x.Why = Refused, "", no.Error()
	}
	object, ok := s.config.Directory.ByClient(client)
	if a := q.presented; a != nil && ok {
		x.Keys = a.keys
		all := a.compare(s.config.Directory.FederatedOf(object.ID))
		x.More = max(0, len(all)-mostExplained)
		for _, c := range all[:len(all)-x.More] {
			x.Credentials = append(x.Credentials, a.explain(c, q.now))
		}
	}
	return x, nil
}

// explain is c as people read it, with what does not depend on the credential:
// the signature and the time.
func (a *assertion) explain(c comparison, now time.Time) Candidate {
	signed := Clause{
		Claim: "signature", Wanted: "a key of " + c.Issuer, Presented: fmt.Sprintf("%s by the key '%s'", a.token.Alg, a.token.KeyID),
		Operator: SignedBy, Holds: a.signed && a.issuer == c.Issuer,
	}
	timely := Clause{
		Claim: "time", Wanted: now.UTC().Format(time.RFC3339), Operator: Within, Holds: a.checkTimes(now) == nil,
		Presented: a.begins(now).UTC().Format(time.RFC3339) + " to " + a.expires.UTC().Format(time.RFC3339),
	}
	clauses := slices.Insert(c.clauses, 1, signed)
	for i := range clauses {
		clauses[i].Presented = clipped(clauses[i].Presented)
	}
	return Candidate{c.Name, append(clauses, timely)}
}

// plain is a claim as a text: a string without its quotes, all else as JSON has it.
func plain(raw json.RawMessage) string {
	if s := ""; json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// clipped is s, or its beginning: as much as a credential can want.
func clipped(s string) string {
	const most = 600
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}
