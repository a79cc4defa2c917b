package rest_test

import (
	"errors"
	"strings"
	"testing"

	"innate/rest"
)

func TestFiltersChooseAsTheirSendersMeanThem(t *testing.T) {
	object := map[string][]string{
		"displayName":           {"O'Neil's app"},
		"appId":                 {"0000-A"},
		"servicePrincipalNames": {"one", "two"},
		"name":                  {"kv1"},
		"resourceType":          {"Microsoft.KeyVault/vaults"},
	}
	field := func(name string) []string { return object[name] }
	call := func(name string, args []string) (bool, error) {
		return name == "assignedTo" && len(args) == 1 && args[0] == "me" || name == "atScope" && len(args) == 0, nil
	}
	for _, c := range []struct {
		filter string
		want   bool
	}{
		{"", true},
		{"   ", true},
		{"appId eq '0000-a'", true}, // GUIDs and names compare without case
		{"appId eq 0000-a", true},   // and some senders leave the quotes away
		{"appId ne '0000-a'", false},
		{"missing eq 'x'", false},
		{"missing ne 'x'", true},
		{"displayName eq 'O''Neil''s app'", true},
		{"startswith(displayName,'o''n')", true},
		{"startswith(displayName, 'x')", false},
		{"servicePrincipalNames/any(c:c eq 'two')", true},
		{"servicePrincipalNames/any(c:c eq 'three')", false},
		{"servicePrincipalNames/any(c:startswith(c,'tw') and name eq 'kv1')", true},
		{"missing/any(c:c ne 'x')", false}, // of nothing, none fits
		{"resourceType eq 'microsoft.keyvault/vaults' and name eq 'kv1'", true},
		{"name eq 'a' or name eq 'kv1' and appId eq 'x'", false}, // and binds tighter
		{"(name eq 'kv1' or name eq 'a') and appId eq '0000-A'", true},
		{"not name eq 'kv1'", false},
		{"not (name eq 'a') and not name eq 'b'", true},
		{"atScope()", true},
		{"atScope() and assignedTo('me')", true},
		{"assignedTo('you')", false},
		{"name EQ 'kv1' AND NOT atBelow()", true},
	} {
		f, err := rest.ParseFilter(c.filter)
		if err != nil {
			t.Errorf("%s: %v", c.filter, err)
			continue
		}
		if got, err := f.Match(field, call); err != nil || got != c.want {
			t.Errorf("%s: got %t, %v; want %t", c.filter, got, err, c.want)
		}
	}
}

func TestBadFiltersAre400(t *testing.T) {
	for _, s := range []string{
		"name", "name eq", "name lt 'x'", "eq 'x'", "'x' eq name", "name eq 'x", "name eq 'x' 'y'", "name eq 'x' and",
		"(name eq 'x'", "name eq 'x')", "startswith(name)", "f(,)", "f('a' 'b')", "x/any(c eq 'v')", "/any(c:c eq 'v')",
		"name eq ()", strings.Repeat("(", 5000), strings.Repeat("not ", 1000), strings.Repeat("a", 5000),
		strings.Repeat("x/any(c:", 100),
	} {
		_, err := rest.ParseFilter(s)
		var e *rest.Error
		if !errors.As(err, &e) || e.Status != 400 {
			t.Errorf("%.40s: got %v, want a 400", s, err)
		}
	}
}

func TestAFunctionThatNobodyKnowsIs400(t *testing.T) {
	f, err := rest.ParseFilter("atScope()")
	if err != nil {
		t.Fatal(err)
	}
	var e *rest.Error
	if _, err := f.Match(func(string) []string { return nil }, nil); !errors.As(err, &e) || e.Status != 400 {
		t.Errorf("got %v, want a 400", err)
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{
		"appId eq 'x'", "startswith(displayName,'a''b')", "a/any(c:c eq 'd') and not (e ne f or atScope())", "((", "'", "not not",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		filter, err := rest.ParseFilter(s)
		if err != nil {
			var e *rest.Error
			if !errors.As(err, &e) || e.Status != 400 {
				t.Fatalf("%q: %v is no 400", s, err)
			}
			return
		}
		values := func(name string) []string { return []string{name, ""} }
		if _, err := filter.Match(values, func(string, []string) (bool, error) { return true, nil }); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
	})
}
