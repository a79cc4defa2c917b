package directory

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"
)

// An Expression says which tokens of an issuer a federated credential admits,
// in the words of Entra's flexible credentials (languageVersion 1):
//
//	claims['sub'] matches 'repo:contoso/*:ref:refs/heads/main' and claims['environment'] eq 'production'
//
// All clauses must hold. eq compares whole strings, case-sensitively; matches
// takes a glob, for sub alone, where * stands for any characters and ? for one,
// neither for ':' or '/': a pattern for one repository never admits another. No
// pattern admits a subject of more than 600 characters.
type Expression []Clause

// A Clause is one condition on one claim.
type Clause struct {
	Claim string
	Glob  bool // matches; else eq
	Want  string
}

const maxClauses = 16

// ParseExpression reads an expression; its error is Graph's 400.
func ParseExpression(s string) (Expression, error) {
	p := parser{rest: s}
	var e Expression
	sub := false
	for {
		c, err := p.clause()
		if err != nil {
			return nil, err
		}
		e = append(e, c)
		sub = sub || c.Claim == "sub"
		if p.skip(); p.rest == "" {
			break
		}
		if !p.word("and") {
			return nil, p.wrong("'and' or the end")
		}
		if len(e) == maxClauses {
			return nil, bad("The claimsMatchingExpression has more than %d clauses.", maxClauses)
		}
	}
	switch {
	case !sub:
		return nil, bad("The claimsMatchingExpression has no clause for claims['sub']: without one, every workload of the issuer might be admitted.")
	case !slices.ContainsFunc(e, Clause.fixed):
		return nil, bad("The claimsMatchingExpression has nothing but wildcards: every workload of the issuer might be admitted. Say more of claims['sub'], or add a clause for another claim.")
	}
	return e, nil
}

// fixed reports whether c has a text that a token must have.
func (c Clause) fixed() bool { return !c.Glob || strings.Trim(c.Want, "*?:/") != "" }

// A parser reads an expression from its front.
type parser struct{ rest string }

func (p *parser) skip() { p.rest = strings.TrimLeft(p.rest, " ") }

// word takes s, which must end there.
func (p *parser) word(s string) bool {
	p.skip()
	after, ok := strings.CutPrefix(p.rest, s)
	if !ok || after != "" && after[0] != ' ' {
		return false
	}
	p.rest = after
	return true
}

func (p *parser) wrong(want string) error {
	return bad("The claimsMatchingExpression is not understood at \"%.40s\": want %s. It looks like claims['sub'] matches 'repo:org/*:ref:refs/heads/main' and claims['environment'] eq 'production'.", p.rest, want)
}

func (p *parser) clause() (c Clause, err error) {
	p.skip()
	after, ok := strings.CutPrefix(p.rest, "claims[")
	if !ok {
		return c, p.wrong("claims['NAME']")
	}
	p.rest = after
	if c.Claim, err = p.quoted(); err != nil {
		return c, err
	}
	if p.rest, ok = strings.CutPrefix(p.rest, "]"); !ok {
		return c, p.wrong("]")
	}
	switch {
	case p.word("eq"):
	case p.word("matches"):
		if c.Glob = true; c.Claim != "sub" {
			return c, bad("The claimsMatchingExpression has 'matches' for claims['%s']: only claims['sub'] takes a pattern; use eq.", c.Claim)
		}
	default:
		return c, p.wrong("eq or matches")
	}
	p.skip()
	c.Want, err = p.quoted()
	return c, err
}

// quoted takes a text in single quotes, in which two stand for one.
func (p *parser) quoted() (string, error) {
	after, ok := strings.CutPrefix(p.rest, "'")
	if !ok {
		return "", p.wrong("a text in single quotes")
	}
	var text strings.Builder
	for {
		part, more, ok := strings.Cut(after, "'")
		if !ok {
			return "", p.wrong("a closing quote")
		}
		text.WriteString(part)
		if after, ok = strings.CutPrefix(more, "'"); !ok {
			p.rest = more
			break
		}
		text.WriteByte('\'')
	}
	if text.Len() == 0 {
		return "", p.wrong("a text that is not empty")
	}
	return text.String(), nil
}

// Holds reports whether the claim, as it stands in a token, satisfies c. Only a
// string, a number and a boolean can; the latter two as JSON writes them.
func (c Clause) Holds(claim json.RawMessage) bool {
	value, ok := scalar(claim)
	if !ok {
		return false
	}
	if c.Glob { // what is too long for the subject of a credential is so for a pattern: the time that matching takes is bounded
		return utf8.RuneCountInString(value) <= maxFederatedField && globMatches(c.Want, value)
	}
	return value == c.Want
}

func scalar(raw json.RawMessage) (string, bool) {
	if !json.Valid(raw) {
		return "", false
	}
	text := strings.TrimSpace(string(raw))
	switch text[0] {
	case '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err == nil
	case '{', '[', 'n': // null
		return "", false
	}
	return text, true
}

// String writes c as ParseExpression reads it.
func (c Clause) String() string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	operator := "eq"
	if c.Glob {
		operator = "matches"
	}
	return "claims[" + quote(c.Claim) + "] " + operator + " " + quote(c.Want)
}

// globMatches reports whether s as a whole is of the pattern. It takes time in
// proportion to the product of their lengths at worst: only the last star is
// ever tried again.
func globMatches(pattern, s string) bool {
	p, i := []rune(pattern), 0
	star, from := -1, 0 // the last star, and where what it stands for ends
	text := []rune(s)
	for j := 0; j < len(text); {
		switch {
		case i < len(p) && p[i] == '*':
			star, from = i, j
			i++
		case i < len(p) && (p[i] == text[j] || p[i] == '?' && !separates(text[j])):
			i++
			j++
		case star >= 0 && !separates(text[from]):
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// separates reports whether c ends a part of a subject.
func separates(c rune) bool { return c == ':' || c == '/' }
