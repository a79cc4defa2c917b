package tokens_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"innate/directory"
	"innate/jwt"
	"innate/tokens"
)

// FuzzTokenForm sends any body and query: the answer is a refusal in Entra's
// shape, since none of them has a good credential.
func FuzzTokenForm(f *testing.F) {
	w := start(f)
	f.Add("", "grant_type=client_credentials&client_id=0f8fad5b-d9cb-469f-a165-70867728950e&client_secret=x&scope=https://vault.azure.net/.default")
	f.Add("client-request-id=x", "grant_type=client_credentials&client_id=%00&client_id=y")
	f.Add("client_secret=x;", "scope=%zz&resource=//")
	f.Add("", "client_assertion=a.b.c&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer")
	f.Fuzz(func(t *testing.T, query, body string) {
		r := raw(tokenPath, body)
		r.URL.RawQuery = query
		rec := httptest.NewRecorder()
		w.tokens.Handler().ServeHTTP(rec, r)
		var no struct {
			Error string `json:"error"`
			Trace string `json:"trace_id"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &no); err != nil || rec.Code < 400 || rec.Code >= 500 || no.Error == "" || no.Trace == "" {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
	})
}

// FuzzForm reads any body: what is taken says what url.ParseQuery says.
func FuzzForm(f *testing.F) {
	f.Add("a=b&c=d%20e+f&g")
	f.Add("&&=x&a=%zz;b&a=1&%61=2")
	f.Fuzz(func(t *testing.T, body string) {
		form, err := tokens.Form(body)
		values, bad := url.ParseQuery(body)
		twice := slices.ContainsFunc(slices.Collect(maps.Values(values)), func(all []string) bool { return len(all) > 1 })
		if bad != nil || twice || len(values) > 64 {
			if err == nil {
				t.Fatalf("%q is taken as %q", body, form)
			}
			return
		}
		if err != nil || len(form) != len(values) {
			t.Fatalf("%q is %q, %v: want %q", body, form, err, values)
		}
		for name, all := range values {
			if value, there := form[name]; !there || value != all[0] {
				t.Errorf("%q has %q as %q: want %q", body, name, value, all[0])
			}
		}
	})
}

// FuzzAssertion signs any claims with the registered key: only those that say
// who, for whom and until when get a token.
func FuzzAssertion(f *testing.F) {
	w := start(f)
	r, _ := w.register(directory.Registration{})
	key := newKey(f)
	der := w.certify(r.Client, key, w.now.AddDate(-1, 0, 0), w.now.AddDate(1, 0, 0))
	signer, err := jwt.NewSigner(key, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum(der))})
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(w.valid(r.Client))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"iss":"` + string(r.Client) + `","sub":["` + string(r.Client) + `"],"aud":"` + login + tokenPath + `","exp":"1772366400.5"}`))
	f.Add([]byte(`{"iss":null,"exp":1e400,"nbf":-1}`))
	f.Fuzz(func(t *testing.T, claims []byte) {
		compact, err := signer.Sign(json.RawMessage(claims))
		if err != nil {
			return // not JSON
		}
		rec := httptest.NewRecorder()
		w.tokens.Handler().ServeHTTP(rec, raw(tokenPath, url.Values{
			"grant_type": {"client_credentials"}, "client_id": {string(r.Client)}, "scope": {vault + "/.default"},
			"client_assertion": {compact}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		}.Encode()))
		if rec.Code >= http.StatusInternalServerError {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
		if rec.Code != http.StatusOK {
			return
		}
		var got map[string]any
		if err := json.Unmarshal(claims, &got); err != nil {
			t.Fatalf("a token for %s", claims)
		}
		for _, name := range []string{"iss", "sub", "aud", "exp"} {
			if got[name] == nil {
				t.Errorf("a token without %s: %s", name, claims)
			}
		}
	})
}

// FuzzClaims asks with any claims parameter: it changes nbf, forward and no
// further than the skew, and xms_cc, and is refused in Entra's shape or not at all.
func FuzzClaims(f *testing.F) {
	w := start(f)
	client, secret := w.application()
	f.Add(`{"access_token":{"nbf":{"essential":true,"value":"1772366390"},"xms_cc":{"values":["CP1"]}}}`)
	f.Add(`{"access_token":{"xms_cc":{"values":["cp1",{}]}},"id_token":{"signin_state":{"essential":true}}}`)
	f.Add(`{"access_token":{"nbf":{"value":1e9}},"access_token":[]}`)
	f.Add(`[[[[`)
	f.Fuzz(func(t *testing.T, claims string) {
		w.t = t
		a := w.ask(client, secret, vault, "claims="+claims)
		if a.status == http.StatusBadRequest {
			a.refused(http.StatusBadRequest, "invalid_request", "9002313")
			return
		}
		got := w.claims(a)
		nbf, exp := int64(got["nbf"].(float64)), int64(got["exp"].(float64))
		if nbf < noon.Unix()-300 || nbf > noon.Unix()+60 || exp != noon.Unix()+3600 {
			t.Errorf("%s: nbf %d, exp %d", claims, nbf, exp)
		}
		if cc := stringsOf(got["xms_cc"]); cc != nil && (len(cc) != 1 || cc[0] != "cp1") {
			t.Errorf("%s: xms_cc %q", claims, cc)
		}
	})
}

// FuzzFederatedAssertion has an issuer that is trusted sign any claims: only
// those of the one who is trusted, for us, and not over, get a token.
func FuzzFederatedAssertion(f *testing.F) {
	s := startStranger(f)
	signer, err := jwt.NewSigner(s.key, jwt.ES256, map[string]any{"kid": "k1"})
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(s.token(nil).claims)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"iss":"x","sub":"repo:contoso/orders:ref:refs/heads/main","aud":["a","api://AzureADTokenExchange"],"exp":"1772366400.5"}`))
	f.Add([]byte(`{"iss":{},"sub":null,"aud":[[]],"exp":-0}`))
	f.Fuzz(func(t *testing.T, claims []byte) {
		compact, err := signer.Sign(json.RawMessage(bytes.ReplaceAll(claims, []byte("ISSUER"), []byte(s.url))))
		if err != nil {
			return // not JSON
		}
		rec := httptest.NewRecorder()
		s.tokens.Handler().ServeHTTP(rec, raw(tokenPath, url.Values{
			"grant_type": {"client_credentials"}, "client_id": {string(s.client)}, "scope": {vault + "/.default"},
			"client_assertion": {compact}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		}.Encode()))
		if rec.Code >= http.StatusInternalServerError {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
		x, err := s.tokens.Explain(t.Context(), s.client, compact)
		if err != nil || (rec.Code == http.StatusOK) != (x.Verdict == tokens.Admitted) {
			t.Fatalf("%d %s, and the explanation is %+v, %v", rec.Code, rec.Body, x, err)
		}
		if rec.Code != http.StatusOK {
			return
		}
		var got map[string]any
		if err := json.Unmarshal(claims, &got); err != nil {
			t.Fatalf("a token for %s", claims)
		}
		aud, _ := json.Marshal(got["aud"])
		if got["sub"] != subject || !bytes.Contains(aud, []byte(`"`+directory.FederatedAudience+`"`)) || got["exp"] == nil {
			t.Errorf("a token for %s", claims)
		}
	})
}
