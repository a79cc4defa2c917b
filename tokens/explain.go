package tokens

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
