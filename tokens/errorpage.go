package tokens

import (
	"fmt"
	"net/http"
	"strconv"
)

// meanings says of each number that a refusal may have what is wrong and what to
// do, for whoever follows its error_uri. It says nothing about any one request.
var meanings = map[int][2]string{
	900144:  {"a form parameter is missing", "the refusal names it"},
	9002313: {"the request is not well formed", "the refusal says what is wrong with it"},
	900561:  {"another method than POST was used", "POST a form"},
	90002:   {"there is no such tenant", "'innate platform' shows the tenant"},
	700016:  {"there is no such client id", "'innate registration list' and 'innate identity list' show those there are"},
	7000112: {"the application or identity is disabled", "whoever administers it may enable it again"},
	7000215: {"the client secret is wrong", "send the secret's value, which was shown once, and not its id"},
	7000222: {"the secret or certificate has expired", "make a new one"},
	7000218: {"no proof was sent, or one that this client cannot have", "send a secret or an assertion; a system-assigned identity is proved by its host"},
	50027:   {"the assertion is no JWT", "look into the token file"},
	700021:  {"the assertion's iss and sub are not both the client id", "sign it for this client"},
	700023:  {"the assertion is for another audience", "use the token endpoint's address, as discovery has it"},
	700024:  {"the assertion is not good now", "see whether the clock is right where it was made"},
	700027:  {"the assertion is not signed by a registered certificate, or a key of its issuer", "the refusal says which was looked for"},
	70021:   {"issuer, subject and audience fit a federated credential, another claim does not", "'innate federation test' compares clause by clause"},
	700211:  {"no federated credential is for that issuer", "compare letter by letter: 'innate federation test'"},
	700212:  {"no federated credential is for that audience", "ask the issuer for api://AzureADTokenExchange, or what the credential names"},
	700213:  {"no federated credential is for that subject", "compare letter by letter: 'innate federation test'"},
	70011:   {"the scope cannot be read", "RESOURCE/.default, one resource"},
	1002012: {"the scope has no /.default", "RESOURCE/.default, one resource"},
	500011:  {"nobody has that audience", "'innate services' lists what takes our tokens"},
	501051:  {"the audience wants an app role, and the caller has none", "'innate registration role assign' gives one"},
	50013:   {"the subject token of an exchange is not good, or not for the asker", "the refusal says which"},
	65001:   {"the asker may not act for that subject", "the refusal has the command that grants it"},
	70003:   {"the grant is not served", "client_credentials, or a token exchange"},
	90055:   {"too many requests", "wait as long as Retry-After says"},
	90033:   {"the service cannot answer at this moment", "wait as long as Retry-After says; the server's log says why"},
	50049:   {"the authority is not this one", "check the address that the client was given"},
}

// serveError answers GET /error?code=N, where every refusal's error_uri leads.
func serveError(w http.ResponseWriter, r *http.Request) {
	code, _ := strconv.Atoi(r.URL.Query().Get("code"))
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", cacheable)
	meaning, ok := meanings[code]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintln(w, "This is not a number of a refusal of this service.")
		return
	}
	fmt.Fprintf(w, "AADSTS%d: %s.\nWhat to do: %s.\n", code, meaning[0], meaning[1])
}
