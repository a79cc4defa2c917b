package innatetest_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"innate/innatetest"
)

const azsecrets = "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

// The vendor tests its Go client for secrets against the real service with tests
// that ship in the module. Here they are, not a word changed, run live against
// this platform by a program that is an app, the challenge check on.
func TestInteropTheVendorsOwnLiveTestsOfItsGoClientPass(t *testing.T) {
	t.Parallel()
	program, tests := vendorsTests(t, azsecrets)
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api, kv := p.App("api"), p.Vault("kv1")
	p.Grant(api, "Key Vault Secrets Officer", kv)
	out, err := api.Run(slices.Concat([]string{"env"}, fenced(t), []string{
		"AZURE_RECORD_MODE=live", "AZURE_KEYVAULT_URL=" + kv.URL(),
		"AZURE_TOKEN_CREDENTIALS=ManagedIdentityCredential", // of all that its default credential would try
		program, "-test.v", "-test.timeout=2m",
	})...)
	if err != nil {
		t.Errorf("the vendor's tests: %v\n%s", err, out)
	}
	passed := 0
	for _, name := range tests {
		if strings.Contains(out, "\n--- PASS: "+name+" ") {
			passed++
		} else {
			t.Errorf("%s did not pass", name)
		}
	}
	if t.Logf("%d of %d passed", passed, len(tests)); len(tests) < 13 {
		t.Errorf("the vendor has %d tests, of which 13 are known: %q", len(tests), tests)
	}
}

// vendorsTests builds the tests of a module from a copy of it, by its own go.mod,
// and returns the program, which every uid may start, and the tests' names.
func vendorsTests(t *testing.T, module string) (program string, names []string) {
	t.Helper()
	from := strings.TrimSpace(goTool(t, ".", "list", "-m", "-f", "{{.Dir}}", module))
	dir := filepath.Join(t.TempDir(), "module")
	for _, cmd := range [][]string{{"cp", "-r", from, dir}, {"chmod", "-R", "u+w", dir}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd[0], err, out)
		}
	}
	download := exec.Command("go", "mod", "download")
	download.Dir = dir
	if out, err := download.CombinedOutput(); err != nil {
		t.Skipf("the modules that the vendor's tests need cannot be had: %v\n%s", err, out)
	}
	program = filepath.Join(folder(t, 0o755), "vendor.test")
	goTool(t, dir, "test", "-c", "-o", program, ".")
	list := exec.Command(program, "-test.list", ".")
	list.Env = []string{"AZURE_RECORD_MODE=live"} // the other modes want a proxy first
	out, err := list.CombinedOutput()
	if err != nil {
		t.Fatalf("listing the vendor's tests: %v\n%s", err, out)
	}
	return program, regexp.MustCompile(`(?m)^Test\w+$`).FindAllString(string(out), -1)
}

func goTool(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", args[0], err, out)
	}
	return string(out)
}
