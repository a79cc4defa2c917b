package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/spf13/cobra"

	"innate"
	"innate/agent/caller"
	"innate/gateway/postgres"
	"innate/jwt"
	"innate/resources"
)

func (s *session) gatewayCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "gateway", Short: "Run a gateway beside a service that takes identities"}
	cmd.AddCommand(s.gatewayPostgresCommand())
	return cmd
}

// A postgresGateway is the flags of 'innate gateway postgres'.
type postgresGateway struct {
	server, management, dir, listen, connection string
}

func (s *session) gatewayPostgresCommand() *cobra.Command {
	var f postgresGateway
	cmd := &cobra.Command{
		Use: "postgres --server RESOURCE-ID --management URL", Short: "Answer a PostgreSQL server whether a token is good for a role", Args: cobra.NoArgs,
		Long: `Runs the gateway of a PostgreSQL server, on that server's host and as its user.
PostgreSQL's own ldap method asks it whether the password of a log-in is a good
token for that role; nothing is between client and server after that. It ends the
sessions of whoever loses the right.

It is a workload like any other, with an identity of its own: start it by 'innate
run' or as a unit that 'innate attach' knows. The identity needs the role
"PostgreSQL Gateway" at the server.

'innate postgres prepare' tells the server of it, 'innate postgres check' says
what is missing.`,
		Example: `  innate run --app pg-gateway --user postgres -- innate gateway postgres \
    --server /subscriptions/.../flexibleServers/orders --management https://management.id.example.org`,
		RunE: func(cmd *cobra.Command, args []string) error { return s.runPostgresGateway(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.server, "server", "", "resource `id` or name of the server")
	flags.StringVar(&f.management, "management", "", "`URL` of the resource manager, such as https://management.id.example.org")
	flags.StringVar(&f.dir, "dir", "/var/lib/innate-postgres", "`folder` of the gateway's authority, its record of sessions and its audit log")
	flags.StringVar(&f.listen, "listen", "127.0.0.1:389", "`address` at which PostgreSQL asks")
	flags.StringVar(&f.connection, "connection", "host=/var/run/postgresql user="+postgres.Management+" dbname=postgres", "`string` to connect to the server by, over its socket")
	cmd.MarkFlagRequired("server")
	cmd.MarkFlagRequired("management")
	return cmd
}

func (s *session) runPostgresGateway(ctx context.Context, f postgresGateway) error {
	l, err := postgres.Inherited()
	if err != nil {
		return err
	}
	if l == nil {
		if l, err = caller.Listen(f.listen); err != nil {
			return fmt.Errorf("listening for PostgreSQL: %w: a port below 1024 needs CAP_NET_BIND_SERVICE, and one that is taken may be a directory's: --listen", err)
		}
		s.warnOfPort(l.Addr().(*net.TCPAddr))
		if !postgres.Watched() {
			return postgres.Supervise(ctx, l, s.log(), os.Args[1:]...)
		}
	}
	config, err := s.postgresGatewayConfig(ctx, f)
	if err != nil {
		return err
	}
	config.Listener = l
	g, err := postgres.New(config)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.diagnostics, "innate gateway postgres: for %s on %s; PostgreSQL's LDAPTLS_CACERT is %s\n", config.Server.Name(), l.Addr(), g.CA())
	go func() {
		select {
		case <-g.Ready():
			fmt.Fprintln(s.diagnostics, "innate gateway postgres: ready")
		case <-ctx.Done():
		}
	}()
	return g.Run(ctx)
}

// warnOfPort says when somebody else could take the port while the gateway is
// not there. TLS keeps them from being believed, and log-ins would fail.
func (s *session) warnOfPort(at *net.TCPAddr) {
	from := 1024
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			from = n
		}
	}
	if at.Port >= from {
		fmt.Fprintf(s.diagnostics, "innate gateway postgres: any user of this machine may listen on port %d (they begin at %d, net.ipv4.ip_unprivileged_port_start): one who does while the gateway is away makes log-ins fail\n", at.Port, from)
	}
	if !at.IP.IsLoopback() {
		fmt.Fprintf(s.diagnostics, "innate gateway postgres: %s is reached from elsewhere; the gateway belongs on the server's host, on 127.0.0.1\n", at)
	}
}

// managementAudience is accepted by every platform, whatever its domain.
const managementAudience = "https://management.azure.com"

// postgresGatewayConfig asks for what the gateway must know first: who issues
// its own token issues those that it verifies.
func (s *session) postgresGatewayConfig(ctx context.Context, f postgresGateway) (postgres.Config, error) {
	management, err := url.Parse(strings.TrimSuffix(f.management, "/"))
	if err != nil || management.Scheme != "https" || management.Host == "" || management.Path != "" {
		return postgres.Config{}, fmt.Errorf("--management %q: want an https URL without a path", f.management)
	}
	credential, err := azidentity.NewManagedIdentityCredential(nil)
	if err != nil {
		return postgres.Config{}, err
	}
	identity := &asIdentity{credential, http.DefaultTransport.(*http.Transport).Clone()}
	token, err := identity.token(ctx)
	if err != nil {
		return postgres.Config{}, fmt.Errorf("the gateway has no identity: start it by 'innate run --app NAME', or as a unit that 'innate attach' knows: %w", err)
	}
	authority, tenant, err := issuerOf(token)
	if err != nil {
		return postgres.Config{}, err
	}
	client := &http.Client{Transport: identity}
	server, err := findServer(ctx, client, management.String(), f.server)
	if err != nil {
		return postgres.Config{}, err
	}
	const version = "?api-version=2024-08-01"
	return postgres.Config{
		Server: server, Dir: f.dir, Connection: f.connection, PlaneHTTP: client,
		Feed: management.String() + string(server) + "/gateway/feed" + version, Records: management.String() + string(server) + "/gateway/audit" + version,
		Clients: management.String() + "/authorities/databases", Authority: authority, Tenant: tenant, Log: s.log(),
	}, nil
}

// asIdentity is a transport on which requests carry this process's token.
type asIdentity struct {
	credential azcore.TokenCredential // keeps the token until it is due
	base       http.RoundTripper
}

func (a *asIdentity) token(ctx context.Context) (string, error) {
	t, err := a.credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{managementAudience + "/.default"}})
	return t.Token, err
}

func (a *asIdentity) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := a.token(r.Context())
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return a.base.RoundTrip(r)
}

// issuerOf reads the token service's origin and the tenant in a v1 token. It is
// not verified: it comes from our own endpoint, and says whom to believe.
func issuerOf(token string) (authority string, tenant innate.TenantID, err error) {
	t, err := jwt.Parse(token, jwt.RS256, jwt.ES256)
	if err != nil {
		return "", "", fmt.Errorf("the gateway's own token: %w", err)
	}
	var claims struct {
		Issuer string          `json:"iss"`
		Tenant innate.TenantID `json:"tid"`
	}
	if err := json.Unmarshal(t.Unverified(), &claims); err != nil {
		return "", "", fmt.Errorf("the gateway's own token: %w", err)
	}
	authority, ok := strings.CutSuffix(strings.TrimSuffix(claims.Issuer, "/"), "/"+string(claims.Tenant))
	if !ok {
		return "", "", fmt.Errorf("the gateway's own token is of issuer %q and tenant %q: want an issuer that ends with its tenant", claims.Issuer, claims.Tenant)
	}
	return authority, claims.Tenant, nil
}

// findServer is the server's resource id; a name is looked up among those that
// the gateway's identity may see.
func findServer(ctx context.Context, client *http.Client, management, name string) (innate.ResourceID, error) {
	if strings.HasPrefix(name, "/") {
		id, err := innate.ParseResourceID(name)
		if err == nil && !id.Is(resources.TypePostgres) {
			err = fmt.Errorf("%s is no %s", id, resources.TypePostgres)
		}
		return id, err
	}
	subscriptions, err := listARM(ctx, client, management+"/subscriptions?api-version=2022-12-01")
	if err != nil {
		return "", err
	}
	for _, subscription := range subscriptions {
		servers, err := listARM(ctx, client, management+string(subscription)+"/providers/"+resources.TypePostgres+"?api-version=2024-08-01")
		if err != nil {
			return "", err
		}
		for _, server := range servers {
			if strings.EqualFold(server.Name(), name) {
				return server, nil
			}
		}
	}
	return "", fmt.Errorf("the gateway's identity sees no PostgreSQL server called %q: give it the role \"PostgreSQL Gateway\" there, or give the server's resource id", name)
}

// listARM are the ids in a list, through all its pages.
func listARM(ctx context.Context, client *http.Client, at string) (all []innate.ResourceID, err error) {
	for at != "" {
		var page struct {
			Value []struct {
				ID innate.ResourceID `json:"id"`
			} `json:"value"`
			Next string `json:"nextLink"`
		}
		if err := getJSON(ctx, client, at, &page); err != nil {
			return nil, err
		}
		for _, one := range page.Value {
			all = append(all, one.ID)
		}
		at = page.Next
	}
	return all, nil
}

func getJSON(ctx context.Context, client *http.Client, at string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", at, resp.Status)
	}
	return json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(v)
}
