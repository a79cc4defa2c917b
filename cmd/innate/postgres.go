package main

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
)

const typePostgres = "Microsoft.DBforPostgreSQL/flexibleServers"

func (s *session) postgresCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "postgres", Short: "PostgreSQL servers, and who may log in there"}
	administrators := &cobra.Command{Use: "admin", Short: "A server's administrators"}
	administrators.AddCommand(s.postgresAdminAdd(), s.postgresAdminRemove())
	cmd.AddCommand(s.postgresCreate(), s.postgresList(), s.showCommand(typePostgres),
		s.deleteCommand(typePostgres, "its audience and every mapping; the server's data is left alone"),
		s.postgresMap(), s.postgresUnmap(), administrators, s.postgresLogins())
	cmd.AddCommand(s.postgresHostCommands()...)
	return cmd
}

// postgresFlags are the properties of a server as flags.
type postgresFlags struct {
	host, authorities string
	port              int
	azure             bool
	certificate       bool
}

func (f *postgresFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.host, "host", "", "`name` or address at which clients reach it, as its TLS certificate says it (default: NAME.postgres.DOMAIN)")
	cmd.Flags().IntVar(&f.port, "port", 5432, "port at that host")
	cmd.Flags().StringVar(&f.authorities, "ca", "", "PEM `file` of the authorities that its TLS certificate is trusted by (default: the platform's)")
	cmd.Flags().BoolVar(&f.azure, "accept-azure-audiences", false, "take tokens for Azure's audiences too, which are good at every server that does")
	cmd.Flags().BoolVar(&f.certificate, "by-certificate", false, "clients log in by certificate, and not by token")
}

func (f *postgresFlags) properties() (map[string]any, error) {
	p := map[string]any{"port": f.port, "acceptAzureAudiences": f.azure}
	if f.host != "" {
		p["fullyQualifiedDomainName"] = f.host
	}
	if f.certificate {
		p["authentication"] = "certificate"
	}
	if f.authorities != "" {
		bundle, err := os.ReadFile(f.authorities)
		if err != nil {
			return nil, err
		}
		p["certificateAuthorities"] = string(bundle)
	}
	return p, nil
}

func (s *session) postgresCreate() *cobra.Command {
	var p placing
	var f postgresFlags
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Say that there is a server", Args: cobra.ExactArgs(1),
		Long:    "Say that there is a PostgreSQL server. It gets an audience of its own: a token for it is\nworthless at any other server. The server itself is yours, and nothing is changed there.",
		Example: "  innate postgres create orders --host db.example.org --ca /etc/ssl/db-ca.pem",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			properties, err := f.properties()
			if err != nil {
				return err
			}
			return s.create(cmd.Context(), c, p, typePostgres, args[0], map[string]any{"properties": properties})
		}),
	}
	p.flags(cmd, false)
	f.add(cmd)
	return cmd
}

func (s *session) postgresList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List them", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			all, err := c.List(cmd.Context(), typePostgres)
			if err != nil {
				return err
			}
			rows := make([][]string, 0, len(all))
			for _, l := range all {
				word := func(name string) string { return fmt.Sprint(l.Properties[name]) }
				rows = append(rows, []string{l.Name, word("fullyQualifiedDomainName") + ":" + word("port"), word("authentication"), word("audience")})
			}
			return s.print(all, "NAME HOST AUTHENTICATION AUDIENCE", rows)
		}),
	}
}

// A login is one way in, as the server lists it.
type login struct {
	Object       innate.ObjectID `json:"objectId"`
	Name         string          `json:"principalName"`
	Type         string          `json:"principalType"`
	Role         string          `json:"role"`
	Admin        bool            `json:"administrator"`
	Through      innate.ObjectID `json:"throughGroup,omitempty"`
	ThroughNamed string          `json:"throughGroupName,omitempty"`
}

func (s *session) postgresLogins() *cobra.Command {
	return &cobra.Command{
		Use: "logins NAME", Short: "List who may log in as what, and through which group", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			server, err := c.Resource(cmd.Context(), typePostgres, args[0])
			if err != nil {
				return err
			}
			all, err := admin.Pages[login](cmd.Context(), c, string(server)+"/logins")
			if err != nil {
				return err
			}
			rows := make([][]string, 0, len(all))
			for _, l := range all {
				as, through := "principal", "-"
				if l.Admin {
					as = "administrator"
				}
				if l.Through != "" {
					through = l.ThroughNamed
				}
				rows = append(rows, []string{l.Name, l.Role, as, through, string(l.Object)})
			}
			if all == nil {
				all = []login{}
			}
			return s.print(all, "WHO ROLE AS THROUGH-GROUP OBJECT-ID", rows)
		}),
	}
}

// A mappingShape is what is mapped, as the server shows it.
type mappingShape struct {
	ID         innate.ResourceID `json:"id"`
	Properties struct {
		Object innate.ObjectID `json:"objectId"`
		Name   string          `json:"principalName"`
		Type   string          `json:"principalType"`
		Roles  []string        `json:"roles,omitempty"`
	} `json:"properties"`
}

// mapping finds a server, who is meant, and the path of its mapping of a kind.
func mapping(cmd *cobra.Command, c *admin.Client, server, kind, to string) (path string, err error) {
	at, err := c.Resource(cmd.Context(), typePostgres, server)
	if err != nil {
		return "", err
	}
	who, err := c.Identity(cmd.Context(), to)
	return string(at) + "/" + kind + "/" + string(who), err
}

// mapped reads a mapping; of one that is not there it is empty.
func mapped(cmd *cobra.Command, c *admin.Client, path string) (now mappingShape, err error) {
	if err = c.ARM(cmd.Context(), http.MethodGet, path, nil, &now); admin.IsNotFound(err) {
		err = nil
	}
	return now, err
}

const whoFlag = "`who`: the name of an app, VM, identity, app registration, group or user, or an object id"

func (s *session) postgresMap() *cobra.Command {
	var to string
	var roles []string
	cmd := &cobra.Command{
		Use: "map SERVER", Short: "Let someone, or all who are in a group, log in as a role", Args: cobra.ExactArgs(1),
		Long: "Let someone, or all who are in a group, log in as a role, beside those that they may already.\nThe role has to be there in PostgreSQL, with what it is granted: 'innate postgres prepare' makes it.",
		Example: "  innate postgres map orders --to api --role app-orders\n" +
			"  innate postgres map orders --to readers --role reports",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			path, err := mapping(cmd, c, args[0], "principals", to)
			if err != nil {
				return err
			}
			now, err := mapped(cmd, c, path)
			if err != nil {
				return err
			}
			all := append(now.Properties.Roles, roles...)
			if err := c.ARM(cmd.Context(), http.MethodPut, path, map[string]any{"properties": map[string]any{"roles": all}}, &now); err != nil {
				return err
			}
			return s.say(now, "%s may log in at %s as %s.", to, args[0], spoken(now.Properties.Roles))
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", whoFlag)
	cmd.Flags().StringArrayVar(&roles, "role", nil, "PostgreSQL `role`, byte for byte; may be given several times")
	cmd.MarkFlagRequired("to")
	cmd.MarkFlagRequired("role")
	return cmd
}

func (s *session) postgresUnmap() *cobra.Command {
	var to string
	var roles []string
	cmd := &cobra.Command{
		Use: "unmap SERVER", Short: "Take that back: what is open as that role ends at once", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			path, err := mapping(cmd, c, args[0], "principals", to)
			if err != nil {
				return err
			}
			now, err := mapped(cmd, c, path)
			if err != nil {
				return err
			}
			have := now.Properties.Roles
			if len(have) == 0 {
				return fmt.Errorf("%s is not mapped to a role at %s itself: 'innate postgres logins %s' shows who may log in, and through which group", to, args[0], args[0])
			}
			for _, role := range roles {
				if !slices.Contains(have, role) {
					return fmt.Errorf("%s is not mapped to the role %q at %s, but to %s", to, role, args[0], spoken(have))
				}
			}
			left := slices.DeleteFunc(slices.Clone(have), func(role string) bool { return slices.Contains(roles, role) })
			if len(roles) == 0 || len(left) == 0 {
				if err := c.ARM(cmd.Context(), http.MethodDelete, path, nil, nil); err != nil {
					return err
				}
				return s.say(now, "%s is mapped to no role at %s any more.", to, args[0])
			}
			if err := c.ARM(cmd.Context(), http.MethodPut, path, map[string]any{"properties": map[string]any{"roles": left}}, &now); err != nil {
				return err
			}
			return s.say(now, "%s may log in at %s as %s, and no more as %s.", to, args[0], spoken(now.Properties.Roles), spoken(roles))
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", whoFlag)
	cmd.Flags().StringArrayVar(&roles, "role", nil, "PostgreSQL `role`; none means all of them")
	cmd.MarkFlagRequired("to")
	return cmd
}

func (s *session) postgresAdminAdd() *cobra.Command {
	var to, role string
	cmd := &cobra.Command{
		Use: "add SERVER", Short: "Make someone, or all who are in a group, an administrator", Args: cobra.ExactArgs(1),
		Example: "  innate postgres admin add orders --to dba --role dba",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			path, err := mapping(cmd, c, args[0], "administrators", to)
			if err != nil {
				return err
			}
			var now mappingShape
			if err := c.ARM(cmd.Context(), http.MethodPut, path, map[string]any{"properties": map[string]any{"principalName": role, "principalType": "Unknown"}}, &now); err != nil {
				return err
			}
			return s.say(now, "%s administers %s as %s.", to, args[0], strconv.Quote(now.Properties.Name))
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", whoFlag)
	cmd.Flags().StringVar(&role, "role", "", "PostgreSQL `role` of the administrator (Azure's principalName); it can be no superuser")
	cmd.MarkFlagRequired("to")
	cmd.MarkFlagRequired("role")
	return cmd
}

func (s *session) postgresAdminRemove() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "remove SERVER", Short: "Make someone an administrator no longer", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			path, err := mapping(cmd, c, args[0], "administrators", to)
			if err != nil {
				return err
			}
			now, err := mapped(cmd, c, path)
			if err != nil {
				return err
			}
			if now.ID == "" {
				return fmt.Errorf("%s is no administrator of %s itself: 'innate postgres logins %s' shows who is, and through which group", to, args[0], args[0])
			}
			if err := c.ARM(cmd.Context(), http.MethodDelete, path, nil, nil); err != nil {
				return err
			}
			return s.say(now, "%s administers %s no more.", to, args[0])
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", whoFlag)
	cmd.MarkFlagRequired("to")
	return cmd
}

// spoken lists roles as people read them.
func spoken(roles []string) string {
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = strconv.Quote(r)
	}
	return strings.Join(words, ", ")
}
