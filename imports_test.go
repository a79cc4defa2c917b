package innate_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// may lists, for each package, which of ours it may import. The root package is
// free to all. A new edge is decided here, with a reason.
var may = map[string]string{
	"store":                       "", // knows no rules
	"store/file":                  "store",
	"store/storetest":             "store",
	"jwt":                         "", // a signature has no state
	"seal":                        "",
	"seal/pkcs11":                 "", // an HSM; seal declares what it wants of one
	"jsonobject":                  "", // a shape has no meaning
	"audit":                       "jsonobject",
	"audit/ship":                  "audit", // both ends of the wire, as feed/client has both
	"rest":                        "",
	"ca":                          "store seal", // signs what its caller has decided
	"feed/client":                 "",           // also holds the records that travel: written once, read at both ends
	"feed":                        "store feed/client",
	"discovery":                   "jwt",                            // asks an outside issuer as anybody would
	"bearer":                      "jwt feed/client rest discovery", // verifies as a stranger would
	"directory":                   "store audit bearer rest",
	"access":                      "store audit bearer rest directory", // a scope is a path, not an object
	"resources":                   "store audit bearer rest directory access",
	"tokens":                      "store audit jwt seal ca rest directory discovery jsonobject", // says who, never what is allowed; an issuer's keys by discovery
	"hosts":                       "store audit audit/ship bearer rest ca feed feed/client directory resources hosts/attest",
	"hosts/attest":                "", // checks what a TPM says, and decides nothing
	"vault":                       "store audit bearer rest seal access",
	"databases":                   "store audit audit/ship bearer rest feed feed/client directory access",
	"agent/caller":                "",             // states facts, has no policy
	"agent/launch":                "",             // starts what it is told where it is told
	"agent/systemdtest":           "agent/launch", // where cgroups are
	"agent/tpm":                   "",             // asks the chip, and knows nobody else
	"agent/tpm/tpmtest":           "",
	"agent/endpoint":              "audit jsonobject", // what both local endpoints refuse, and how they record it
	"agent/endpoint/endpointtest": "",
	"agent/imds":                  "agent/caller agent/endpoint audit",
	"agent/appservice":            "agent/caller agent/endpoint audit jsonobject",
	"agent/unit":                  "",                          // what systemd says, and what it is told
	"agent/opener":                "agent/caller agent/launch", // does what takes root, and decides nothing: no tokens, no HTTP
	"agent":                       "audit audit/ship feed/client agent/endpoint agent/imds agent/appservice agent/caller agent/launch agent/opener agent/tpm agent/unit",
	"admin":                       "rest", // asks as any client would
	// Stands beside a database, far from ours. From the agent it has what the kernel says of a peer, and the
	// ledger that counts repeated refusals.
	"gateway/postgres":              "bearer audit audit/ship feed/client agent/caller agent/endpoint gateway/postgres/ldap gateway/postgres/block",
	"gateway/postgres/block":        "",                                        // lines of ours in a file that is somebody else's
	"gateway/postgres/ldap":         "",                                        // the wire alone
	"gateway/postgres/setup":        "gateway/postgres gateway/postgres/block", // tells a server what the gateway needs
	"gateway/postgres/cluster":      "",                                        // a PostgreSQL of one's own; knows nothing of identity
	"gateway/postgres/postgrestest": "gateway/postgres/cluster",
	// The control plane: every noun wired on one listener. cmd and innatetest start the same one.
	"server":            "access admin audit bearer ca databases directory discovery feed feed/client hosts jwt resources rest seal store store/file tokens vault",
	"platform":          "server agent admin discovery",                                    // the whole in one process: laptop, CI, tests
	"platform/database": "platform access agent gateway/postgres gateway/postgres/cluster", // a PostgreSQL server of a platform's own, for tour, benchmark and tests
	"cmd/innate":        "*",
	"innatetest":        "*",
}

func TestPackagesImportOnlyWhatTheTableAllows(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := map[string]bool{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name, ours := strings.CutPrefix(p.ImportPath, "innate/")
		if !ours {
			continue // the root package
		}
		seen[name] = true
		allowed, listed := may[name]
		if !listed {
			t.Errorf("package %s is not in the table: say what it may import", name)
			continue
		}
		if allowed == "*" {
			continue
		}
		for _, imp := range p.Imports {
			imp, ours := strings.CutPrefix(imp, "innate/")
			if ours && !slices.Contains(strings.Fields(allowed), imp) {
				t.Errorf("%s imports %s; the table allows it %q", name, imp, allowed)
			}
		}
	}
	for name := range may {
		if !seen[name] {
			t.Errorf("the table lists %s, which does not exist", name)
		}
	}
}

func TestTheRootPackageImportsNoneOfOurs(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	if i := bytes.Index(out, []byte("innate/")); i >= 0 {
		t.Errorf("the root package imports one of ours: %s", out[i:])
	}
}
