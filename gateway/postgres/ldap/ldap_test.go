package ldap_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate/gateway/postgres/ldap"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(b []byte) (ldap.Request, error) { return ldap.Read(bufio.NewReader(bytes.NewReader(b))) }

func TestRequestsAsClientsWriteThem(t *testing.T) {
	for name, c := range map[string]struct {
		hex  string
		want ldap.Request
	}{
		"libldap's bind, each length in five bytes": {
			"30 84 00000019 020101 60 84 00000010 020103 04 84 00000004 636e3d61 80 01 78",
			ldap.Request{ID: 1, Op: ldap.Bind, Version: 3, Simple: true, Name: []byte("cn=a"), Password: []byte("x")},
		},
		"the shortest bind": {
			"30 0c 020101 60 07 020103 0400 8000",
			ldap.Request{ID: 1, Op: ldap.Bind, Version: 3, Simple: true, Name: []byte{}, Password: []byte{}},
		},
		"a bind by SASL":               {"30 14 020107 60 0f 020103 0400 a308 0406 504c41494e21", ldap.Request{ID: 7, Op: ldap.Bind, Version: 3, Name: []byte{}}},
		"LDAP version 2":               {"30 0c 020101 60 07 020102 0400 8000", ldap.Request{ID: 1, Op: ldap.Bind, Version: 2, Simple: true, Name: []byte{}, Password: []byte{}}},
		"StartTLS":                     {"30 1d 020101 77 18 8016 312e332e362e312e342e312e313436362e3230303337", ldap.Request{ID: 1, Op: ldap.Extended, OID: ldap.StartTLS}},
		"unbind":                       {"30 05 020102 4200", ldap.Request{ID: 2, Op: ldap.Unbind}},
		"abandon":                      {"30 06 020102 500101", ldap.Request{ID: 2, Op: ldap.Abandon}},
		"the largest message id":       {"30 08 02047fffffff 4200", ldap.Request{ID: 1<<31 - 1, Op: ldap.Unbind}},
		"a search":                     {"30 07 020103 6302 0400", ldap.Request{ID: 3, Op: 3}},
		"a control that may be passed": {"30 15 020101 60 07 020103 0400 8000 a007 3005 0403 312e32", ldap.Request{ID: 1, Op: ldap.Bind, Version: 3, Simple: true, Name: []byte{}, Password: []byte{}}},
		"a critical control": {
			"30 18 020101 60 07 020103 0400 8000 a00a 3008 0403 312e32 0101ff",
			ldap.Request{ID: 1, Op: ldap.Bind, Version: 3, Simple: true, Critical: true, Name: []byte{}, Password: []byte{}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(unhex(t, c.hex))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatIsNoRequestIsRefusedAndNothingIsAllocatedForIt(t *testing.T) {
	for name, s := range map[string]string{
		"another tag":                          "60 05 020102 4200",
		"an indefinite length":                 "30 80 020102 4200 0000",
		"2 GiB":                                "30 84 7fffffff 020101",
		"4 GiB":                                "30 84 ffffffff 020101",
		"a length of five bytes":               "30 85 0000000005 020102 4200",
		"a byte more than the most":            "30 82 4001 020101",
		"an element longer than its envelope":  "30 05 020102 4207",
		"an indefinite length inside":          "30 09 020101 60 80 0000 0000",
		"a message id of 0":                    "30 05 020100 4200",
		"a negative message id":                "30 05 0201ff 4200",
		"a message id of five bytes":           "30 09 02050100000000 4200",
		"an empty message id":                  "30 04 0200 4200",
		"a response":                           "30 0c 020101 61 07 0a0100 0400 0400",
		"an operation of no class":             "30 05 020101 0200",
		"a tag of two bytes":                   "30 06 020101 7f2200",
		"a bind without a version":             "30 09 020101 60 04 0400 8000",
		"a bind without a name":                "30 0a 020101 60 05 020103 8000",
		"a bind without authentication":        "30 0a 020101 60 05 020103 0400",
		"a bind with more behind":              "30 0e 020101 60 09 020103 0400 8000 0400",
		"something behind that is no control":  "30 0e 020101 60 07 020103 0400 8000 0400",
		"a control that is none":               "30 10 020101 60 07 020103 0400 8000 a002 0400",
		"an extended request without its name": "30 05 020101 7700",
		"an empty envelope":                    "30 00",
	} {
		t.Run(name, func(t *testing.T) {
			b := unhex(t, s)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, err := read(b)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ldap.ErrMalformed) {
				t.Errorf("got %+v, %v; want ErrMalformed", got, err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("%d bytes were allocated for it", n)
			}
		})
	}
	if _, err := read(nil); err != io.EOF {
		t.Errorf("nothing: %v, want io.EOF", err)
	}
	if _, err := read(unhex(t, "30 05 0201")); err != io.ErrUnexpectedEOF {
		t.Errorf("half a message: %v, want io.ErrUnexpectedEOF", err)
	}
}

func TestEveryRequestIsAnsweredUnderItsOwnTag(t *testing.T) {
	for name, c := range map[string]struct{ request, want string }{
		"bind":     {"30 0c 020101 60 07 020103 0400 8000", "30 0e 020101 61 09 0a0135 0400 0402 6e6f"},
		"search":   {"30 07 020103 6302 0400", "30 0e 020103 65 09 0a0135 0400 0402 6e6f"},
		"modify":   {"30 07 020103 6602 0400", "30 0e 020103 67 09 0a0135 0400 0402 6e6f"},
		"add":      {"30 07 020103 6802 0400", "30 0e 020103 69 09 0a0135 0400 0402 6e6f"},
		"delete":   {"30 06 020103 4a01 61", "30 0e 020103 6b 09 0a0135 0400 0402 6e6f"},
		"rename":   {"30 07 020103 6c02 0400", "30 0e 020103 6d 09 0a0135 0400 0402 6e6f"},
		"compare":  {"30 07 020103 6e02 0400", "30 0e 020103 6f 09 0a0135 0400 0402 6e6f"},
		"who am I": {"30 0a 0202 0100 7704 8002 312e", "30 0f 0202 0100 78 09 0a0135 0400 0402 6e6f"},
		"StartTLS": {
			"30 1d 020101 77 18 8016 312e332e362e312e342e312e313436362e3230303337",
			"30 26 020101 78 21 0a0135 0400 0402 6e6f 8a16 312e332e362e312e342e312e313436362e3230303337",
		},
		"unbind":  {"30 05 020102 4200", ""},
		"abandon": {"30 06 020102 500101", ""},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := read(unhex(t, c.request))
			if err != nil {
				t.Fatal(err)
			}
			if got := q.Answer(ldap.UnwillingToPerform, "no"); !bytes.Equal(got, unhex(t, c.want)) {
				t.Errorf("answer %x, want %s", got, c.want)
			}
		})
	}
}

// A request that was read says the same when it is read again, whatever came.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"30 84 00000019 020101 60 84 00000010 020103 04 84 00000004 636e3d61 80 01 78",
		"30 1d 020101 77 18 8016 312e332e362e312e342e312e313436362e3230303337",
		"30 18 020101 60 07 020103 0400 8000 a00a 3008 0403 312e32 0101ff",
		"30 84 7fffffff 020101", "30 80 020102 4200 0000", "30 05 020102 4200", "16 03 01 02 00 01",
	} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			q, err := ldap.Read(r)
			if err != nil {
				if strings.ContainsFunc(err.Error(), func(c rune) bool { return c < ' ' || c > '~' }) {
					t.Errorf("the error quotes what came: %q", err)
				}
				return
			}
			if len(q.Name)+len(q.Password)+len(q.OID) > ldap.MaxMessage || q.ID <= 0 {
				t.Fatalf("%+v", q)
			}
			answer := q.Answer(ldap.InvalidCredentials, "no")
			if len(answer) > 0 && (answer[0] != 0x30 || int(answer[1]) != len(answer)-2) {
				t.Errorf("the answer to %+v is malformed: %x", q, answer)
			}
		}
	})
}
