package jsonobject_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"innate/jsonobject"
)

// encoded is what encoding/json makes of v.
func encoded(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

func TestAnObjectIsWhatItsStructWouldBe(t *testing.T) {
	type object struct {
		First  string `json:"first"`
		Empty  string `json:"empty"`
		Gone   string `json:"gone,omitempty"`
		There  string `json:"there,omitempty"`
		Number int64  `json:"number"`
		Digits int64  `json:"digits,string"`
	}
	for _, o := range []object{{}, {First: "a", Gone: "b", There: "c", Number: -5, Digits: 1 << 60}, {First: `<"&\>`, There: "Zoë\n"}} {
		b := jsonobject.String([]byte("{"), "first", o.First)
		b = jsonobject.String(b, "empty", o.Empty)
		b = jsonobject.Present(b, "gone", o.Gone)
		b = jsonobject.Present(b, "there", o.There)
		b = jsonobject.Number(b, "number", o.Number)
		b = append(jsonobject.Digits(b, "digits", o.Digits), '}')
		if got, want := string(b), encoded(t, o); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// FuzzQuote compares with encoding/json, of any string: one that is no UTF-8 too.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "plain ~", `"\`, "<a&b>", "\x00\b\f\n\r\t\x1f\x7f", "Zoë", "\u2028\u2029", "\xff\xc0", "\U0001f600"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := string(jsonobject.Quote(nil, s)), encoded(t, s); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	})
}
