package tokens_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
)

// Every number that stands as an argument of a refusal in the source is looked
// for, so that none is forgotten.
func TestEveryRefusalsNumberIsExplainedWhereItsURILeads(t *testing.T) {
	w := start(t)
	for _, code := range refusalNumbers(t) {
		a := w.send(w.tokens.Handler(), httptest.NewRequest(http.MethodGet, login+"/error?code="+code, nil))
		if a.status != http.StatusOK || !strings.Contains(a.body, "AADSTS"+code+": ") || !strings.Contains(a.body, "What to do: ") {
			t.Errorf("%s: %d %q", code, a.status, a.body)
		}
	}
	for _, code := range []string{"", "x", "1", "-700016", "<script>"} {
		a := w.send(w.tokens.Handler(), httptest.NewRequest(http.MethodGet, login+"/error?code="+code, nil))
		if a.status != http.StatusNotFound || strings.Contains(a.body, "script") {
			t.Errorf("%q: %d %q", code, a.status, a.body)
		}
	}
}

func refusalNumbers(t *testing.T) (codes []string) {
	t.Helper()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if name, ok := call.Fun.(*ast.Ident); !ok || name.Name != "refusal" && name.Name != "unproved" {
				return true
			}
			for _, arg := range call.Args {
				if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.INT && lit.Value != "0" {
					codes = append(codes, lit.Value)
				}
			}
			return true
		})
	}
	slices.Sort(codes)
	if codes = slices.Compact(codes); len(codes) < 15 {
		t.Fatalf("only %q were found: were the functions renamed?", codes)
	}
	return codes
}
