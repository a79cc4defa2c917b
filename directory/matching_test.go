package directory_test

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"innate/directory"
)

// holds reports whether all clauses of expression hold for the claims.
func holds(e directory.Expression, claims map[string]json.RawMessage) bool {
	for _, c := range e {
		if !c.Holds(claims[c.Claim]) {
			return false
		}
	}
	return true
}

func TestAnExpressionAdmitsOnlyWhatAllItsClausesSay(t *testing.T) {
	const main = `claims['sub'] matches 'repo:contoso/*:ref:refs/heads/main'`
	for _, c := range []struct {
		expression, claims string
		want               bool
	}{
		{main, `{"sub":"repo:contoso/orders:ref:refs/heads/main"}`, true},
		{main, `{"sub":"repo:contoso/:ref:refs/heads/main"}`, true},                      // * stands for nothing too
		{main, `{"sub":"repo:contoso/orders/x:ref:refs/heads/main"}`, false},             // * never crosses /
		{main, `{"sub":"repo:contoso/x:ref:refs/heads/dev:ref:refs/heads/main"}`, false}, // nor :
		{main, `{"sub":"repo:contoso/orders:ref:refs/heads/main2"}`, false},              // a longer subject
		{main, `{"sub":"repo:contoso/orders:ref:refs/heads/mai"}`, false},                // a shorter one
		{main, `{"sub":"xrepo:contoso/orders:ref:refs/heads/main"}`, false},              // something before
		{main, `{"sub":" repo:contoso/orders:ref:refs/heads/main"}`, false},              // blanks are not trimmed
		{main, `{"sub":"repo:contoso/orders:ref:refs/heads/main\n"}`, false},
		{main, `{"sub":"repo:contoso-evil/orders:ref:refs/heads/main"}`, false}, // another organisation with the same beginning
		{main, `{"sub":"repo:Contoso/orders:ref:refs/heads/main"}`, false},      // case
		{main, `{"sub":""}`, false},
		{main, `{}`, false},
		{main, `{"sub":null}`, false},
		{main, `{"sub":["repo:contoso/orders:ref:refs/heads/main"]}`, false}, // a list is no subject
		{main, `{"sub":{"a":1}}`, false},

		{`claims['sub'] matches 'a?c'`, `{"sub":"abc"}`, true},
		{`claims['sub'] matches 'a?c'`, `{"sub":"aéc"}`, true}, // one character, however many bytes
		{`claims['sub'] matches 'a?c'`, `{"sub":"ac"}`, false},
		{`claims['sub'] matches 'a?c'`, `{"sub":"a:c"}`, false}, // ? never stands for a separator
		{`claims['sub'] matches 'a?c'`, `{"sub":"a/c"}`, false},
		{`claims['sub'] matches 'a*c'`, `{"sub":"a:c"}`, false},
		{`claims['sub'] matches 'a*c'`, `{"sub":"a：c"}`, true}, // a look-alike of the colon is a character like any other
		{`claims['sub'] matches 'a*b*c'`, `{"sub":"abxbc"}`, true},
		{`claims['sub'] matches '*a'`, `{"sub":"aaaa"}`, true},
		{`claims['sub'] matches 'a**c'`, `{"sub":"abc"}`, true},
		{`claims['sub'] matches '*:a:*b'`, `{"sub":"x:a:a:b"}`, false},
		{`claims['sub'] matches 'a.c'`, `{"sub":"abc"}`, false}, // a glob is no regular expression
		{`claims['sub'] matches 'a[b]c'`, `{"sub":"abc"}`, false},
		{`claims['sub'] matches 'a\*'`, `{"sub":"a\\b"}`, true},   // nothing escapes a star
		{`claims['sub'] matches 'é'`, `{"sub":"e\u0301"}`, false}, // composed and decomposed are different characters

		{`claims['sub'] matches 'é*'`, `{"sub":"` + strings.Repeat("é", 600) + `"}`, true},
		{`claims['sub'] matches 'é*'`, `{"sub":"` + strings.Repeat("é", 601) + `"}`, false}, // no credential could have it as its subject

		{`claims['sub'] eq 'a*'`, `{"sub":"a*"}`, true},
		{`claims['sub'] eq 'a*'`, `{"sub":"ab"}`, false}, // eq knows no wildcard
		{`claims['sub'] eq 'it''s'`, `{"sub":"it's"}`, true},
		{`claims['sub'] eq 'a' and claims['environment'] eq 'prod'`, `{"sub":"a","environment":"prod"}`, true},
		{`claims['sub'] eq 'a' and claims['environment'] eq 'prod'`, `{"sub":"a","environment":"dev"}`, false},
		{`claims['sub'] eq 'a' and claims['environment'] eq 'prod'`, `{"sub":"a"}`, false},
		{`claims['sub'] matches '*' and claims['environment'] eq 'prod'`, `{"sub":"any","environment":"prod"}`, true},
		{`  claims['sub']   eq   'a'  `, `{"sub":"a"}`, true},
		{`claims['sub'] eq 'a' and claims['it''s'] eq 'b'`, `{"sub":"a","it's":"b"}`, true},
		{`claims['sub'] eq 'a' and claims['run'] eq '12'`, `{"sub":"a","run":12}`, true},
		{`claims['sub'] eq 'a' and claims['run'] eq '12'`, `{"sub":"a","run":12.0}`, false}, // as JSON writes it
		{`claims['sub'] eq 'a' and claims['run'] eq '12345678901234567890'`, `{"sub":"a","run":12345678901234567890}`, true},
		{`claims['sub'] eq 'a' and claims['main'] eq 'true'`, `{"sub":"a","main":true}`, true},
		{`claims['sub'] eq 'a' and claims['main'] eq 'true'`, `{"sub":"a","main":false}`, false},
		{`claims['sub'] eq 'a' and claims['main'] eq 'null'`, `{"sub":"a","main":null}`, false},
		{`claims['sub'] eq 'a' and claims['sub'] matches 'b*'`, `{"sub":"a"}`, false}, // both, or nobody
	} {
		e, err := directory.ParseExpression(c.expression)
		if err != nil {
			t.Errorf("%s: %v", c.expression, err)
			continue
		}
		var claims map[string]json.RawMessage
		if err := json.Unmarshal([]byte(c.claims), &claims); err != nil {
			t.Fatal(err)
		}
		if got := holds(e, claims); got != c.want {
			t.Errorf("%s of %s: got %v, want %v", c.expression, c.claims, got, c.want)
		}
	}
}

func TestAnExpressionThatIsNotUnderstoodIsRefusedInWords(t *testing.T) {
	many := strings.Repeat(`claims['a'] eq 'b' and `, 16) + `claims['sub'] eq 'a'`
	for expression, says := range map[string]string{
		"":                         "claims['NAME']",
		"sub eq 'a'":               "claims['NAME']",
		"claims[sub] eq 'a'":       "single quotes",
		`claims["sub"] eq "a"`:     "single quotes",
		"claims['sub' eq 'a'":      "]",
		"claims['sub] eq 'a'":      "]", // the text ends at the quote before a
		"claims['sub'] eq 'a":      "closing quote",
		"claims['sub'] eq 'a''":    "closing quote",
		"claims['sub'] eq ''":      "not empty",
		"claims[''] eq 'a'":        "not empty",
		"claims['sub'] ne 'a'":     "eq or matches",
		"claims['sub'] EQ 'a'":     "eq or matches",
		"claims['sub'] equals 'a'": "eq or matches",
		"claims['sub'] eq'a'":      "eq or matches",
		"claims['sub'] eq 'a' or claims['b'] eq 'c'":              "'and' or the end",
		"claims['sub'] eq 'a' and":                                "claims['NAME']",
		"claims['sub'] eq 'a' x":                                  "'and' or the end",
		"(claims['sub'] eq 'a')":                                  "claims['NAME']",
		"\tclaims['sub'] eq 'a'":                                  "claims['NAME']",
		"claims['environment'] eq 'prod'":                         "no clause for claims['sub']",
		"claims['SUB'] eq 'a'":                                    "no clause for claims['sub']", // claims have their case
		"claims['sub'] eq 'a' and claims['ref'] matches 'refs/*'": "only claims['sub'] takes a pattern",
		"claims['sub'] matches '*'":                               "nothing but wildcards",
		"claims['sub'] matches '*:*/??:*'":                        "nothing but wildcards",
		many:                                                      "more than 16 clauses",
	} {
		e, err := directory.ParseExpression(expression)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v, %v, want a refusal that says %q", expression, e, err, says)
		}
	}
}

func FuzzParseExpression(f *testing.F) {
	for _, s := range []string{
		"", "claims['sub'] eq 'a'", "claims['sub'] matches 'repo:contoso/*:ref:refs/heads/main' and claims['environment'] eq 'production'",
		"claims['it''s'] eq ''''and claims['sub'] eq 'x'", "claims['sub'] eq 'and claims['", "claims['sub'] matches '*'",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := directory.ParseExpression(s)
		if err != nil {
			if !utf8.ValidString(err.Error()) && utf8.ValidString(s) {
				t.Errorf("%q: the refusal is no UTF-8: %q", s, err)
			}
			return
		}
		var written []string
		for _, c := range e {
			written = append(written, c.String())
		}
		again, err := directory.ParseExpression(strings.Join(written, " and "))
		if err != nil {
			t.Fatalf("%q is written as %q, which is refused: %v", s, written, err)
		}
		if diff := cmp.Diff(e, again); diff != "" {
			t.Errorf("%q is written as %q (-read +read again)\n%s", s, written, diff)
		}
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("repo:contoso/*:ref:refs/heads/main", "repo:contoso/orders:ref:refs/heads/main")
	f.Add("*:a:*b", "x:a:a:b")
	f.Add("a?*c", "abéc")
	f.Add("**a", "a:a")
	f.Add("x?:*", "xy:")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if !utf8.ValidString(pattern) || !utf8.ValidString(s) || len(pattern) > 100 || len(s) > 200 {
			t.Skip("no subject of a token looks like that")
		}
		claim, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		got := directory.Clause{Claim: "sub", Glob: true, Want: pattern}.Holds(claim)
		if want := naiveGlob(t, pattern).MatchString(s); got != want {
			t.Errorf("%s of %s: got %v, want %v", strconv.Quote(pattern), strconv.Quote(s), got, want)
		}
	})
}

// naiveGlob is the rule, said to somebody else's matcher.
func naiveGlob(t *testing.T, pattern string) *regexp.Regexp {
	t.Helper()
	p := regexp.QuoteMeta(pattern)
	p = strings.ReplaceAll(p, `\*`, `[^:/]*`)
	p = strings.ReplaceAll(p, `\?`, `[^:/]`)
	re, err := regexp.Compile(`(?s)\A` + p + `\z`)
	if err != nil {
		t.Fatal(err)
	}
	return re
}
