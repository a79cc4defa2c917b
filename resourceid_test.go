package innate_test

import (
	"slices"
	"strings"
	"testing"

	"innate"
)

const guid = "00000000-0000-0000-0000-00000000000a"

func TestResourceIDsAreReadInOneForm(t *testing.T) {
	const (
		sub = "/subscriptions/" + guid
		rg  = sub + "/resourceGroups/rg"
	)
	for _, c := range []struct{ in, want string }{
		{sub, sub},
		{"/SUBSCRIPTIONS/" + strings.ToUpper(guid) + "/", sub},
		{sub + "/resourcegroups/rg", rg},
		{rg + "/Providers/NS/Type/Name", rg + "/providers/NS/Type/Name"}, // these keep the case of whoever wrote them
		{"//" + rg[1:] + "//providers/NS/t/n//", rg + "/providers/NS/t/n"},
		{rg + "/providers/NS/t/n/t2/n2", rg + "/providers/NS/t/n/t2/n2"},
		{"", ""},
		{"subscriptions/" + guid, ""},
		{"/", ""},
		{"/subscriptions", ""},
		{"/subscriptions/x", ""},
		{sub + "/resourceGroups", ""},
		{sub + "/groups/rg", ""},
		{rg + "/providers", ""},
		{rg + "/providers/NS/t", ""},
		{rg + "/providers/NS/t/n/t2", ""},
		{rg + "/x/NS/t/n", ""},
		{rg + "/providers/NS/t/..", ""},
		{rg + "/providers/NS/t/a b", ""},
		{rg + "/providers/NS/t/a%2Fb", ""},
		{rg + "/providers/NS/t/a?b", ""},
		{rg + "/providers/NS/t/a\x00", ""},
		{rg + "/providers/NS/t/\xff", ""},
		{rg + "/providers/NS/t/\u212a", ""}, // the Kelvin sign folds to k
		{rg + "/providers/NS/t/" + strings.Repeat("n", 3000), ""},
	} {
		got, err := innate.ParseResourceID(c.in)
		if string(got) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%.80q: got %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestTheWordsOfAResourceID(t *testing.T) {
	for _, c := range []struct{ id, typ, group, name string }{
		{"/subscriptions/" + guid, "Microsoft.Resources/subscriptions", "", guid},
		{"/subscriptions/" + guid + "/resourceGroups/rg", "Microsoft.Resources/resourceGroups", "rg", "rg"},
		{"/subscriptions/" + guid + "/resourceGroups/rg/providers/N.S/t/n", "N.S/t", "rg", "n"},
		{"/subscriptions/" + guid + "/resourceGroups/rg/providers/N.S/t/n/t2/n2", "N.S/t/t2", "rg", "n2"},
	} {
		id, err := innate.ParseResourceID(c.id)
		if err != nil {
			t.Fatal(err)
		}
		if id.Type() != c.typ || id.Group() != c.group || id.Name() != c.name || id.Subscription() != guid || !id.Is(strings.ToUpper(c.typ)) {
			t.Errorf("%s: type %s, group %s, name %s, subscription %s", id, id.Type(), id.Group(), id.Name(), id.Subscription())
		}
	}
	var none innate.ResourceID
	if none.Type() != "" || none.Group() != "" || none.Name() != "" || none.Subscription() != "" || none.Key() != "" {
		t.Error("the empty id has words")
	}
}

func TestAScopeContainsItselfAndWhatIsBelow(t *testing.T) {
	for _, c := range []struct {
		scope, in string
		want      bool
	}{
		{"/", "/subscriptions/s", true},
		{"/subscriptions/s", "/subscriptions/s", true},
		{"/subscriptions/S", "/SUBSCRIPTIONS/s/resourceGroups/rg", true},
		{"/subscriptions/s/resourceGroups/rg", "/subscriptions/s/resourceGroups/rg2", false}, // a shared prefix is no ancestor
		{"/subscriptions/s/resourceGroups/rg", "/subscriptions/s", false},
		{"/subscriptions/s", "/", false},
	} {
		if got := innate.Scope(c.scope).Contains(innate.Scope(c.in)); got != c.want {
			t.Errorf("%s contains %s: %t", c.scope, c.in, got)
		}
	}
}

func TestUpwardEndsAtTheRoot(t *testing.T) {
	for scope, want := range map[innate.Scope][]string{
		"/":                   {"/"},
		"/Subscriptions/S":    {"/subscriptions/s", "/subscriptions", "/"},
		"/subscriptions/s/rg": {"/subscriptions/s/rg", "/subscriptions/s", "/subscriptions", "/"},
	} {
		if got := slices.Collect(scope.Upward()); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", scope, got, want)
		}
	}
}

func TestScopesAreReadInOneForm(t *testing.T) {
	for in, want := range map[string]innate.Scope{
		"": "/", "/": "/",
		"/SUBSCRIPTIONS/" + guid + "/":                       "/subscriptions/" + guid,
		"/Providers/microsoft.management/ManagementGroups/M": "/providers/Microsoft.Management/managementGroups/M",
	} {
		if got, err := innate.ParseScope(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"x", "/providers/Microsoft.Management/managementGroups", "/subscriptions/" + guid + "/x"} {
		if got, err := innate.ParseScope(in); err == nil {
			t.Errorf("%q was read as %q", in, got)
		}
	}
}

func FuzzParseResourceID(f *testing.F) {
	f.Add("/subscriptions/" + guid + "/resourceGroups/rg/providers/NS/t/n")
	f.Add("//SUBSCRIPTIONS//" + guid + "/resourcegroups/rg/")
	f.Add("/subscriptions/" + guid + "/resourceGroups/\u212a/providers/a/b/\u0130")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := innate.ParseResourceID(s)
		if err != nil {
			if id != "" {
				t.Fatalf("%q: an id with an error: %q", s, id)
			}
			return
		}
		again, err := innate.ParseResourceID(string(id))
		if err != nil || again != id {
			t.Fatalf("%q is %q, which is %q (%v)", s, id, again, err)
		}
		if strings.Contains(string(id), "//") || strings.HasSuffix(string(id), "/") || id.Type() == "" || id.Name() == "" {
			t.Fatalf("%q is %q of type %q", s, id, id.Type())
		}
		lower, err := innate.ParseResourceID(id.Key())
		if err != nil || lower.Key() != id.Key() {
			t.Fatalf("%q: key %q is %q (%v)", s, id.Key(), lower, err)
		}
		if !innate.Root.Contains(id.Scope()) || !id.Scope().Contains(id.Scope()) {
			t.Fatalf("%q is not within itself", id)
		}
		above := slices.Collect(id.Scope().Upward())
		for _, level := range above {
			if !innate.Scope(level).Contains(id.Scope()) || level != id.Key() && id.Scope().Contains(innate.Scope(level)) {
				t.Fatalf("%q and its ancestor %q: the wrong one contains the other", id, level)
			}
		}
		for n := range len(id) { // no other beginning of it is an ancestor
			if begin := innate.Scope(id[:n]); begin.Contains(id.Scope()) != slices.Contains(above, begin.Key()) {
				t.Fatalf("%q contains %q: %t", begin, id, begin.Contains(id.Scope()))
			}
		}
		if id.Equal(lower) != (id.Key() == lower.Key()) {
			t.Fatalf("%q: Equal and Key disagree on %q", id, lower)
		}
	})
}
