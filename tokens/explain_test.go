package tokens_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/directory"
	"innate/store"
	"innate/tokens"
)

func (s *stranger) explain(client innate.ClientID, compact string) tokens.Explanation {
	s.world.t.Helper()
	x, err := s.world.tokens.Explain(s.world.t.Context(), client, compact)
	if err != nil {
		s.world.t.Fatal(err)
	}
	return x
}

func TestAnExplanationGoesClauseByClause(t *testing.T) {
	s := startStranger(t)
	s.federate(s.object.ID, directory.FederatedCredential{Name: "pattern", Issuer: s.url,
		Matching: "claims['sub'] matches 'repo:contoso/*:environment:prod' and claims['ref'] eq 'refs/heads/main'"})
	s.federate(s.object.ID, directory.FederatedCredential{Name: "elsewhere", Issuer: "https://example.org", Subject: "x", Audience: "y"})

	x := s.explain(s.client, s.token(nil).compact(t))
	if x.Verdict != tokens.Admitted || x.Credential != "main" || x.Why != "proved by its federated assertion" {
		t.Errorf("%+v", x)
	}
	x = s.explain(s.client, s.token(map[string]any{"sub": "repo:contoso/web:environment:prod"}).compact(t))
	const iss, signature, aud = 0, 1, 2
	common := []tokens.Clause{
		iss:       {Claim: "iss", Wanted: s.url, Presented: s.url, Operator: tokens.Equals, Holds: true},
		signature: {Claim: "signature", Wanted: "a key of " + s.url, Presented: "ES256 by the key 'k1'", Operator: tokens.SignedBy, Holds: true},
		aud:       {Claim: "aud", Wanted: directory.FederatedAudience, Presented: directory.FederatedAudience, Operator: tokens.In, Holds: true},
		3:         {Claim: "time", Wanted: "2026-03-01T12:00:00Z", Presented: "2026-03-01T12:00:00Z to 2026-03-01T12:10:00Z", Operator: tokens.Within, Holds: true},
	}
	with := func(clauses ...tokens.Clause) []tokens.Clause {
		all := append([]tokens.Clause{common[iss], common[signature]}, clauses...)
		return append(all, common[aud], common[3])
	}
	presented := "repo:contoso/web:environment:prod"
	elsewhere := with(tokens.Clause{Claim: "sub", Wanted: "x", Presented: presented, Operator: tokens.Equals})
	elsewhere[0].Wanted, elsewhere[0].Holds = "https://example.org", false
	elsewhere[1].Wanted, elsewhere[1].Holds = "a key of https://example.org", false
	elsewhere[3].Wanted, elsewhere[3].Holds = "y", false
	want := tokens.Explanation{
		Verdict: tokens.Refused, Keys: "the keys of " + s.url,
		Why: "AADSTS70021: No federated credential of " + string(s.client) + " admits the client assertion: its issuer, subject and audience would do, another of its claims does not",
		Credentials: []tokens.Candidate{
			{Name: "main", Clauses: with(tokens.Clause{Claim: "sub", Wanted: subject, Presented: presented, Operator: tokens.Equals})},
			{Name: "pattern", Clauses: with(
				tokens.Clause{Claim: "sub", Wanted: "repo:contoso/*:environment:prod", Presented: presented, Operator: tokens.Matches, Holds: true},
				tokens.Clause{Claim: "ref", Wanted: "refs/heads/main", Operator: tokens.Equals})},
			{Name: "elsewhere", Clauses: elsewhere},
		},
	}
	if diff := cmp.Diff(want, x); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestAnExplanationIsWhatTheTokenEndpointDecides(t *testing.T) {
	s := startStranger(t)
	twin := s.token(nil)
	twin.key = newKey(t)
	own := s.identity(app, false)
	good := s.token(nil).compact(t)
	for name, c := range map[string]struct {
		client innate.ClientID
		token  string
	}{
		"good": {s.client, good}, "another key": {s.client, twin.compact(t)}, "not a JWT": {s.client, "x"},
		"subject":           {s.client, s.token(map[string]any{"sub": "x"}).compact(t)},
		"audience":          {s.client, s.token(map[string]any{"aud": "x"}).compact(t)},
		"issuer":            {s.client, s.token(map[string]any{"iss": "https://example.org"}).compact(t)},
		"ended":             {s.client, s.token(map[string]any{"exp": noon.Unix() - 600}).compact(t)},
		"nobody":            {"0f8fad5b-d9cb-469f-a165-70867728950e", good},
		"system-assigned":   {own.Client, good},
		"a long-lived one":  {s.client, s.token(map[string]any{"exp": noon.AddDate(1, 0, 0).Unix()}).compact(t)},
		"an enormous claim": {s.client, s.token(map[string]any{"sub": strings.Repeat("x", 8000)}).compact(t)},
	} {
		a, x := s.assert(c.client, c.token), s.explain(c.client, c.token)
		said, _, _ := strings.Cut(a.member("error_description"), ". Trace ID")
		if (a.status == 200) != (x.Verdict == tokens.Admitted) || a.status != 200 && said != x.Why {
			t.Errorf("%s: the endpoint says %d %s, the explanation %s %s", name, a.status, said, x.Verdict, x.Why)
		}
		for _, candidate := range x.Credentials {
			holds := true
			for _, clause := range candidate.Clauses {
				holds = holds && clause.Holds
				if len(clause.Presented) > 1000 {
					t.Errorf("%s: %d characters of %s", name, len(clause.Presented), clause.Claim)
				}
			}
			if holds != (x.Verdict == tokens.Admitted) {
				t.Errorf("%s: %s, and the clauses say otherwise: %+v", name, x.Verdict, candidate)
			}
		}
	}
	s.enable(s.object.ID, false)
	if x := s.explain(s.client, good); x.Verdict != tokens.Refused || !strings.Contains(x.Why, "disabled") {
		t.Errorf("a disabled client: %+v", x)
	}
}

func TestAnExplanationSaysWhyKeysCannotBeHad(t *testing.T) {
	s := startStranger(t)
	s.set(true)
	x := s.explain(s.client, s.token(nil).compact(t))
	if x.Verdict != tokens.Refused || !strings.Contains(x.Keys, "502") || len(x.Credentials) != 1 || x.Credentials[0].Clauses[1].Holds {
		t.Errorf("%+v", x)
	}
}

func TestAnExplanationLeavesAnAppsOwnAssertionsAlone(t *testing.T) {
	s := startStranger(t)
	client, _, sign := oneTime(s.world)
	compact := sign("1")
	if x := s.explain(client, compact); x.Verdict != tokens.Refused || !strings.Contains(x.Why, "federated credentials do not matter") {
		t.Errorf("%+v", x)
	}
	s.claims(s.assert(client, compact)) // and it is not spent
}

func TestAnExplanationHasTheClosestOfMany(t *testing.T) {
	s := startStranger(t)
	s.many(s.object.ID, 300)
	x := s.explain(s.client, s.token(map[string]any{"sub": "repo:contoso/r00123:ref:refs/heads/dev"}).compact(t))
	if len(x.Credentials) != 50 || x.More != 251 || x.Credentials[0].Name != "c00123" {
		t.Errorf("%d credentials and %d more, first %s", len(x.Credentials), x.More, x.Credentials[0].Name)
	}
}

// many gives a principal n credentials more.
func (s *stranger) many(id innate.ObjectID, n int) {
	s.world.t.Helper()
	s.update(func(tx store.Tx) error {
		for i := range n {
			c := directory.FederatedCredential{
				Principal: id, Name: fmt.Sprintf("c%05d", i), Issuer: s.url,
				Subject: fmt.Sprintf("repo:contoso/r%05d:ref:refs/heads/main", i), Audience: directory.FederatedAudience,
			}
			if _, _, err := directory.PutFederated(tx, c, noon); err != nil {
				return err
			}
		}
		return nil
	})
}
