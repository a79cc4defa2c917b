package innatetest_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"innate"
	"innate/agent"
	"innate/agent/appservice"
	"innate/innatetest"
)

// shaped runs a program as an app, or as the machine, that looks for its
// identity in one of the hosting shapes, and returns what it printed.
func shaped(t *testing.T, p *innatetest.Platform, app innate.ResourceID, shape appservice.Shape, args ...string) (string, error) {
	t.Helper()
	return runShaped(t, p, agent.RunRequest{App: string(app), Endpoint: shape, Args: args, Env: os.Environ()})
}

func runShaped(t *testing.T, p *innatetest.Platform, r agent.RunRequest) (string, error) {
	t.Helper()
	out, said := empty(t), empty(t)
	r.Dir, r.Stdout, r.Stderr = "/", out, said
	status, err := agent.Run(p.Dir.AgentSocket(), r)
	if err == nil && status != 0 {
		err = errors.New(content(t, said))
	}
	return content(t, out), err
}

func empty(t *testing.T) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func content(t *testing.T, f *os.File) string {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// mountable skips a test of Arc's shape where apps cannot have a mount namespace.
func mountable(t *testing.T, shape appservice.Shape) {
	t.Helper()
	if shape == appservice.Arc && os.Getuid() != 0 {
		t.Skip("needs root, for a mount namespace that the app's files are shown in")
	}
}

var shapes = []appservice.Shape{appservice.AppService, appservice.ServiceFabric, appservice.AzureML, appservice.Arc}

func TestAzidentityFindsItsIdentityInEveryHostingShape(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	shared := p.Identity("shared")
	api, only := p.App("api", shared), p.App("only", shared)
	p.ARM("PATCH", string(only.ID()), map[string]any{"identity": map[string]any{"type": "UserAssigned"}}, nil)
	best := p.Agent.Status().Assurance.String()
	for _, shape := range shapes {
		t.Run(string(shape), func(t *testing.T) {
			mountable(t, shape)
			check := func(app *innatetest.App, which string, want innate.ObjectID) {
				t.Helper()
				out, err := shaped(t, p, app.ID(), shape, innatetest.Program(t), "sample", "token", "--identity", which)
				var claims map[string]any
				if err == nil {
					err = json.Unmarshal([]byte(out), &claims)
				}
				if err != nil || claims["oid"] != string(want) || claims["innate_assurance"] != best {
					t.Errorf("%s, identity %q: oid %v by %v, %v; want %s by %s", app.ID().Name(), which, claims["oid"], claims["innate_assurance"], err, want, best)
				}
			}
			check(api, "", api.Principal())
			if shape != appservice.ServiceFabric { // there, the SDK refuses to select
				check(api, "client:"+string(shared.Client()), shared.Principal())
			}
			if shape != appservice.AppService { // there, no selector means the app's own identity
				check(only, "", shared.Principal())
			}
		})
	}
}

func TestAProgramHasTheVariablesOfOneShapeAndNoOther(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api := p.App("api")
	inherited := append(os.Environ(), "IDENTITY_ENDPOINT=theirs", "IMDS_ENDPOINT=theirs", "MSI_ENDPOINT=theirs", "DEFAULT_IDENTITY_CLIENT_ID=theirs", "COLOUR=green")
	for shape, want := range map[appservice.Shape]string{
		"":                       "IDENTITY_ENDPOINT IDENTITY_HEADER MSI_ENDPOINT MSI_SECRET",
		appservice.AppService:    "IDENTITY_ENDPOINT IDENTITY_HEADER MSI_ENDPOINT MSI_SECRET",
		appservice.ServiceFabric: "IDENTITY_API_VERSION IDENTITY_ENDPOINT IDENTITY_HEADER IDENTITY_SERVER_THUMBPRINT",
		appservice.AzureML:       "DEFAULT_IDENTITY_CLIENT_ID MSI_ENDPOINT MSI_SECRET",
		appservice.Arc:           "IDENTITY_ENDPOINT IMDS_ENDPOINT",
	} {
		t.Run(string(shape), func(t *testing.T) {
			mountable(t, shape)
			out, err := runShaped(t, p, agent.RunRequest{App: string(api.ID()), Endpoint: shape, Args: []string{"env"}, Env: inherited})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for line := range strings.Lines(out) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				if strings.HasPrefix(name, "IDENTITY_") || strings.HasPrefix(name, "MSI_") || name == "IMDS_ENDPOINT" || name == "DEFAULT_IDENTITY_CLIENT_ID" {
					names = append(names, name)
					if value == "theirs" {
						t.Errorf("%s is inherited", name)
					}
				}
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != want || !strings.Contains(out, "COLOUR=green") {
				t.Errorf("got %s, want %s, and what else was inherited\n%s", got, want, out)
			}
		})
	}
	if out, err := shaped(t, p, api.ID(), "cloudshell", "env"); err == nil || !strings.Contains(err.Error(), "appservice, servicefabric, azureml or arc") {
		t.Errorf("a shape that there is not: %s, %v; want an error that names those there are", out, err)
	}
}

func TestAProgramHasTheIdentityOfTheMachineItself(t *testing.T) {
	t.Parallel()
	mountable(t, appservice.Arc)
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	machine := p.Agent.Machine()
	var r struct {
		Identity struct {
			Principal string `json:"principalId"`
		} `json:"identity"`
	}
	p.ARM("GET", string(machine), nil, &r)
	out, err := shaped(t, p, machine, "", innatetest.Program(t), "sample", "token")
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal([]byte(out), &claims); err != nil {
		t.Fatal(err)
	}
	if mirid, _ := claims["xms_mirid"].(string); r.Identity.Principal == "" || claims["oid"] != r.Identity.Principal || !machine.Equal(innate.ResourceID(mirid)) {
		t.Errorf("oid %v of %v, want %s of %s", claims["oid"], claims["xms_mirid"], r.Identity.Principal, machine)
	}
}

// Two programs of one machine see the same path, and each its own files in it.
func TestAnAppOfArcsShapeLeavesNothingOnTheHostAndSeesNobodyElses(t *testing.T) {
	t.Parallel()
	mountable(t, appservice.Arc)
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api := p.App("api")
	before, _ := os.ReadDir("/var/opt")
	const look = `t=/var/opt/azcmagent/tokens
	f=$(bash -c 'exec 3<>/dev/tcp/127.0.0.1/'${IMDS_ENDPOINT##*:}'; printf "GET /metadata/identity/oauth2/token?api-version=2020-06-01&resource=x HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n" >&3; cat <&3' | tr -d '\r' | sed -n 's/^Www-Authenticate: Basic realm=//p')
	case $f in $t/*.key) echo named;; *) echo "realm is $f";; esac
	stat -c '%a %s' $f
	[ $(stat -c %u $f) = $(id -u) ] && echo mine
	ls $t 2>/dev/null || echo unlisted
	touch $t/x 2>/dev/null || echo read-only`
	out, err := shaped(t, p, api.ID(), appservice.Arc, "sh", "-c", look)
	if want := "named\n400 52\nmine\nunlisted\nread-only"; err != nil || out != want {
		t.Errorf("inside: got\n%s\n%v\nwant\n%s", out, err, want)
	}
	after, _ := os.ReadDir("/var/opt")
	if len(after) != len(before) {
		t.Errorf("/var/opt has %v, before it had %v", after, before)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(p.Dir.AgentSocket()), "challenges", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
}

// A program of any shape, and the machine's, is tended as an app of App Service's is.
func TestAProgramOfEveryShapeIsRotatedAndLookedInto(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api := p.App("api")
	socket := p.Dir.AgentSocket()
	tended := func(name string, app innate.ResourceID, shape appservice.Shape) {
		t.Run(name, func(t *testing.T) {
			mountable(t, shape)
			run := agent.RunRequest{
				App: string(app), Endpoint: shape, Args: []string{"sleep", "600"}, Dir: "/", Env: os.Environ(),
				Detach: true, Check: []string{innatetest.Program(t), "sample", "token"},
			}
			if _, err := agent.Run(socket, run); err != nil {
				t.Fatal(err)
			}
			if err := agent.Rotate(socket, string(app), 0, false); err != nil {
				t.Errorf("rotating it: %v", err)
			}
			look := func(args ...string) string {
				said := empty(t)
				status, err := agent.Exec(socket, agent.ConsoleRequest{App: string(app), Args: args, Stdout: said, Stderr: said})
				if status != 0 || err != nil {
					t.Errorf("%s inside: %d %v\n%s", args[0], status, err, content(t, said))
				}
				return content(t, said)
			}
			if token := look(innatetest.Program(t), "sample", "token"); !strings.Contains(token, `"oid"`) {
				t.Errorf("a console in it got the token %q", token)
			}
			env, err := agent.ReadVariables(socket, string(app), 0)
			shown := strings.Join(env, "\n")
			if err != nil || !strings.Contains(shown, "_ENDPOINT=http") {
				t.Errorf("its variables are %q, %v", env, err)
			}
			for secret := range strings.FieldsSeq(look("sh", "-c", "echo $IDENTITY_HEADER $MSI_SECRET")) {
				if strings.Contains(shown, secret) {
					t.Errorf("%q is among its variables: %q", secret, env)
				}
			}
			if err := agent.Logs(t.Context(), socket, string(app), false, io.Discard); err != nil {
				t.Errorf("its log: %v", err)
			}
			if err := agent.End(socket, string(app), 0, false); err != nil {
				t.Errorf("ending it: %v", err)
			}
		})
	}
	for _, shape := range shapes {
		tended(string(shape), api.ID(), shape)
	}
	tended("the machine", p.Agent.Machine(), appservice.Arc)
}

// checkShapes lets a program print a token in each of these shapes.
func checkShapes(t *testing.T, shapes []appservice.Shape, command ...string) {
	t.Helper()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api := p.App("api")
	command = slices.Concat([]string{"env"}, fenced(t), command)
	for _, shape := range shapes {
		t.Run(string(shape), func(t *testing.T) {
			mountable(t, shape)
			out, err := shaped(t, p, api.ID(), shape, command...)
			if err != nil {
				t.Fatal(err)
			}
			var claims map[string]any
			part, err := base64.RawURLEncoding.DecodeString(strings.Split(out+"..", ".")[1])
			if err == nil {
				err = json.Unmarshal(part, &claims)
			}
			if err != nil || claims["oid"] != string(api.Principal()) {
				t.Errorf("oid %v, want %s: %v in %q", claims["oid"], api.Principal(), err, out)
			}
		})
	}
}

func TestANodeProgramFindsItsIdentityInOtherHostingShapes(t *testing.T) {
	needsNode(t)
	t.Parallel()
	program := filepath.Join(public(t, "testdata/node"), "identity.mjs")
	checkShapes(t, []appservice.Shape{appservice.AzureML, appservice.Arc}, "node", program)
	// It looks at no thumbprint, and wants to trust the certificate.
	checkShapes(t, []appservice.Shape{appservice.ServiceFabric}, "node", filepath.Join(filepath.Dir(program), "trusting.mjs"), program)
}

func TestInteropAPythonProgramFindsItsIdentityInOtherHostingShapes(t *testing.T) {
	installed(t, "python3-azure")
	t.Parallel()
	checkShapes(t, shapes, "/usr/bin/python3", filepath.Join(public(t, "testdata/python"), "identity.py"))
}
