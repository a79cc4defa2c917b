package tokens_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"innate/directory"
	"innate/tokens"
)

// fullClaims are claims of every name that there is.
const fullClaims = `{"aud":"a\"<>&é","iss":"https://login/","iat":1,"innate_iat":1001,"nbf":-299,"exp":3601,"appid":"b","appidacr":"2",
	"azp":"c","azpacr":"1","idp":"d","idtyp":"app","oid":"e","sub":"f","tid":"g","uti":"h","jti":"i","ver":"1.0","xms_mirid":"/j",
	"xms_az_rid":"/k","innate_host":"/l","innate_assurance":"uid","act":{"sub":"m","appid":"n","act":{"sub":"o","appid":"p"}},
	"roles":["q","r"],"groups":["s"],"_claim_names":{"groups":"src1"},"_claim_sources":{"src1":{"endpoint":"t"}},"xms_cc":["cp1"]}`

func TestClaimsAreWrittenAsTheyAreRead(t *testing.T) {
	var full tokens.Claims
	if err := json.Unmarshal([]byte(fullClaims), &full); err != nil {
		t.Fatal(err)
	}
	for v, i := reflect.ValueOf(full), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Fatalf("fullClaims has nothing for %s", v.Type().Field(i).Name)
		}
	}
	for _, c := range []tokens.Claims{full, {}} {
		got, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if want := asJSON(t, c); string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// asJSON is v by encoding/json, the characters of HTML as they are.
func asJSON(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// answerV2 is the answer of the v2 endpoint: numbers (managed-identity-endpoints §4.3).
type answerV2 struct {
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	ExtExpiresIn int64  `json:"ext_expires_in"`
	RefreshIn    int64  `json:"refresh_in,omitempty"`
	IssuedType   string `json:"issued_token_type,omitempty"` // RFC 8693 §2.2.1
	AccessToken  string `json:"access_token"`
}

// answerV1 is the answer of the v1 endpoint: the same as strings, and more.
type answerV1 struct {
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in,string"`
	ExtExpiresIn int64  `json:"ext_expires_in,string"`
	ExpiresOn    int64  `json:"expires_on,string"`
	NotBefore    int64  `json:"not_before,string"`
	Resource     string `json:"resource"`                    // as it was asked for: some clients keep the token under it
	IssuedType   string `json:"issued_token_type,omitempty"` // RFC 8693 §2.2.1
	AccessToken  string `json:"access_token"`
}

func TestAnAnswerIsJSONWithNothingMoreInIt(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	w.register(directory.Registration{IdentifierURIs: []string{"api://é"}})
	for _, resource := range []string{vault, "api://é"} {
		for path, into := range map[string]any{tokenPath: new(answerV2), "/" + tenant + "/oauth2/token": new(answerV1)} {
			a := w.post(path, "grant_type=client_credentials", "client_id="+string(client), "client_secret="+secret, "resource="+resource)
			if a.status != 200 {
				t.Fatal(a.body)
			}
			if err := json.Unmarshal([]byte(a.body), into); err != nil {
				t.Fatal(err)
			}
			if want := asJSON(t, into) + "\n"; a.body != want {
				t.Errorf("%s: got  %s\nwant %s", path, a.body, want)
			}
		}
	}
}
