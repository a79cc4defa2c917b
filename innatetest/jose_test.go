package innatetest_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"innate/innatetest"
)

// A joseVerifier is a service under node that knows an issuer's name alone and
// keeps its keys between tokens.
type joseVerifier struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
}

func startJose(t *testing.T, p *innatetest.Platform, issuer, audience string) *joseVerifier {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", "verify.mjs", issuer, audience)
	cmd.Dir, cmd.Stderr = "testdata/node", t.Output()
	cmd.Env = append(os.Environ(), append(fenced(t), "NODE_EXTRA_CA_CERTS="+p.Dir.CA())...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("verify.mjs: %v", err)
		}
	})
	return &joseVerifier{t, in, bufio.NewScanner(out)}
}

// verify asks about a token at a moment, and returns the verifier's answer.
func (v *joseVerifier) verify(at time.Time, token string) string {
	v.t.Helper()
	if _, err := fmt.Fprintf(v.in, "%d %s\n", at.Unix(), token); err != nil {
		v.t.Fatal(err)
	}
	if !v.out.Scan() {
		v.t.Fatalf("verify.mjs said nothing more: %v", v.out.Err())
	}
	return v.out.Text()
}

func needsNode(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed: make setup")
	}
	if _, err := os.Stat("testdata/node/node_modules"); err != nil {
		t.Skip("the node packages are not installed: make setup")
	}
}

func TestJoseVerifiesTokensOfBothVersionsFromDiscoveryAlone(t *testing.T) {
	needsNode(t)
	t.Parallel()
	p := innatetest.Start(t)
	api := p.App("api")
	base := p.Admin.Info.Login + "/" + string(p.Admin.Info.Tenant)
	orders := register(t, p, map[string]any{
		"displayName": "orders", "identifierUris": []string{"api://orders"},
		"api": map[string]any{"requestedAccessTokenVersion": 2, "signingAlgorithm": "ES256"},
	})
	v1 := startJose(t, p, base+"/", "https://vault.azure.net")
	v2 := startJose(t, p, base+"/v2.0", string(orders.Client))
	good := "good " + string(api.Principal())
	first, second := api.Token("https://vault.azure.net"), api.Token("api://orders")
	if got := v1.verify(time.Now(), first); got != good {
		t.Errorf("a v1 token: %s; want %s", got, good)
	}
	if got := v2.verify(time.Now(), second); got != good {
		t.Errorf("a v2 token by ES256: %s; want %s", got, good)
	}
	for what, got := range map[string]string{
		"a token of the other version": v1.verify(time.Now(), second),
		"a token that has ended":       v1.verify(time.Now().Add(2*time.Hour), first),
		"a changed signature":          v1.verify(time.Now(), first[:len(first)-8]+"AAAAAAAA"),
	} {
		if !strings.HasPrefix(got, "bad ") {
			t.Errorf("%s: %s; want it refused", what, got)
		}
	}
}
