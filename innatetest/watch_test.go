package innatetest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"innate/innatetest"
)

// heard asks a vault for what changed after a revision, with a token, as a
// program does without an SDK; since 0 asks where the vault is.
func heard(p *innatetest.Platform, kv *innatetest.Vault, token string, since uint64) (status int, revision uint64, names []string, err error) {
	url := kv.URL() + "/changes?api-version=7.4"
	if since > 0 {
		url += fmt.Sprint("&since=", since)
	}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := p.Client().Do(req)
	if err != nil {
		return 0, 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp.StatusCode, 0, nil, errors.Join(err, errors.New(string(body)))
	}
	var answer struct {
		Revision uint64
		Changes  []struct{ Name string }
	}
	err = json.Unmarshal(body, &answer)
	for _, c := range answer.Changes {
		names = append(names, c.Name)
	}
	return resp.StatusCode, answer.Revision, names, err
}

func TestManyProgramsHearOfAChangeInWellUnderASecond(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	api, kv := p.App("api"), p.Vault("kv1")
	p.Grant(api, "Key Vault Secrets User", kv)
	token := api.Token("https://vault.azure.net")
	_, from, _, err := heard(p, kv, token, 0)
	if err != nil {
		t.Fatal(err)
	}
	const programs = 200
	type hearing struct {
		names []string
		at    time.Time
		err   error
	}
	hearings := make(chan hearing, programs)
	for range programs {
		go func() {
			_, _, names, err := heard(p, kv, token, from)
			hearings <- hearing{names, time.Now(), err}
		}()
	}
	kv.Put("db-password", "hunter2")
	changed := time.Now()
	var last time.Time
	for range programs {
		h := <-hearings
		if h.err != nil || !slices.Equal(h.names, []string{"db-password"}) {
			t.Fatalf("heard %q, %v", h.names, h.err)
		}
		if h.at.After(last) {
			last = h.at
		}
	}
	if late := last.Sub(changed); late > time.Second {
		t.Errorf("the last of %d programs heard of it after %s", programs, late)
	}
}

func TestAnIdentityThatIsDisabledWhileItWaitsHearsNothing(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	api, kv := p.App("api"), p.Vault("kv1")
	p.Grant(api, "Key Vault Secrets User", kv)
	enable := func(yes bool) {
		if err := p.Admin.Graph(t.Context(), http.MethodPatch, "/v1.0/servicePrincipals/"+string(api.Principal()), map[string]bool{"accountEnabled": yes}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		token := api.Token("https://vault.azure.net")
		_, from, _, err := heard(p, kv, token, 0)
		if err != nil {
			t.Fatal(err)
		}
		type answer struct {
			status int
			names  []string
			err    error
		}
		waiting := make(chan answer, 1)
		go func() {
			status, _, names, err := heard(p, kv, token, from)
			waiting <- answer{status, names, err}
		}()
		if _, _, _, err := heard(p, kv, token, 0); err != nil { // the other is likely to wait by now
			t.Fatal(err)
		}
		enable(false)
		kv.Put("db-password", "hunter2")
		a := <-waiting
		if a.status == http.StatusUnauthorized { // it came too late to wait
			enable(true)
			continue
		}
		if a.status != http.StatusForbidden || !strings.Contains(a.err.Error(), "revoked while this request waited") {
			t.Errorf("answered %d %q, %v", a.status, a.names, a.err)
		}
		return
	}
	t.Error("no request has ever waited")
}
