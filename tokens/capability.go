package tokens

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
)

// capability is what xms_cc says of a client that can handle a claims challenge:
// that a 401 may send it here again for a token with other claims.
const capability = "cp1"

// maxClaims is the most bytes of the claims parameter. It bounds the nesting
// too, and nothing here recurses on what it passes over.
const maxClaims = 8 << 10

// aheadOfUs is by how much the clock of a service that sends a claims challenge
// may be ahead of ours.
const aheadOfUs = time.Minute

// wanted is what the claims parameter asks of the token (OpenID Connect Core
// §5.5, managed-identity-endpoints §4.7). A service's claims challenge arrives
// by it: the client repeats what it was sent.
type wanted struct {
	challenges bool  // the client can handle one
	notBefore  int64 // the least nbf, epoch seconds; 0 where nothing is asked
}

// readClaims reads the claims parameter. What it asks for that we know nothing
// of is passed over, essential or not: the service that wants it looks by itself.
func (q *request) readClaims(form parameters) error {
	raw := form.value("claims")
	if raw == "" {
		return nil
	}
	if len(raw) > maxClaims {
		return invalid("The parameter claims is longer than %d bytes", maxClaims)
	}
	var asked struct {
		Token struct {
			Capabilities struct {
				Values []json.RawMessage `json:"values"`
			} `json:"xms_cc"`
			NotBefore struct {
				Value json.RawMessage `json:"value"`
			} `json:"nbf"`
		} `json:"access_token"`
	}
	err := json.Unmarshal([]byte(raw), &asked)
	// A member of another type than ours has been passed over, the rest read.
	if other := (*json.UnmarshalTypeError)(nil); err != nil && (!errors.As(err, &other) || other.Field == "") {
		return invalid("The parameter claims is not a JSON object. What a service sends in its challenge is base64: decode it once")
	}
	q.wanted.challenges = slices.ContainsFunc(asked.Token.Capabilities.Values, func(v json.RawMessage) bool {
		return strings.EqualFold(string(v), `"`+capability+`"`)
	})
	return q.readNotBefore(asked.Token.NotBefore.Value)
}

// readNotBefore reads the least nbf that a service accepts after it found a
// token too old: a number or, as challenges have it, a string.
func (q *request) readNotBefore(raw json.RawMessage) error {
	if raw == nil || string(raw) == "null" {
		return nil
	}
	from, err := date(raw)
	if err != nil {
		return invalid("The value of nbf in the parameter claims %v", err)
	}
	if from.After(q.now.Add(aheadOfUs)) {
		return invalid("The parameter claims asks for a token that begins at %s or later, and it is %s. Check the clock of the service that sent this challenge",
			from.UTC().Format(time.RFC3339), q.now.UTC().Format(time.RFC3339))
	}
	q.wanted.notBefore = from.Unix()
	return nil
}
