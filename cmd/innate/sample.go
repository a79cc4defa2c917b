package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/spf13/cobra"
)

// sampleCommand is the program that quickstart and the tests run as a workload:
// what a user's own would be, with the vendor's packages, unmodified.
func (s *session) sampleCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "sample", Hidden: true, Short: "A program with an identity and no password"}
	var which, kind, resource string
	credential := func() (azcore.TokenCredential, error) { return sampleCredential(kind, which) }
	secret := &cobra.Command{
		Use: "secret VAULT-URL NAME", Short: "Read a secret with azidentity and azsecrets", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cred, err := credential()
			if err != nil {
				return err
			}
			value, err := readSecret(cmd.Context(), cred, args[0], args[1])
			if err != nil {
				return err
			}
			fmt.Fprintln(s.out, value)
			return nil
		},
	}
	token := &cobra.Command{
		Use: "token", Short: "Get a token with azidentity and print its claims", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			cred, err := credential()
			if err != nil {
				return err
			}
			t, err := cred.GetToken(cmd.Context(), policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
			if err != nil {
				return err
			}
			claims, err := decodeClaims(t.Token)
			if err != nil {
				return err
			}
			s.output = "json"
			return s.print(claims, "", nil)
		},
	}
	cmd.PersistentFlags().StringVar(&which, "identity", "", "client:ID, object:ID or resource:ID; empty: the system-assigned one")
	cmd.PersistentFlags().StringVar(&kind, "credential", "managed-identity", "managed-identity; or client-secret, client-certificate, client-certificate-chain, workload-identity, as the AZURE_… variables say")
	token.Flags().StringVar(&resource, "resource", "https://vault.azure.net", "what the token is for")
	cmd.AddCommand(secret, token, s.sampleServe(), s.sampleWork(credential), s.samplePostgres(credential), s.sampleRenew())
	return cmd
}

// readSecret is all that a program needs to write: no password, and the
// vendor's check that the challenge comes from the vault's own domain left on.
func readSecret(ctx context.Context, cred azcore.TokenCredential, vault, name string) (string, error) {
	client, err := azsecrets.NewClient(vault, cred, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.GetSecret(ctx, name, "", nil)
	var refused *azcore.ResponseError
	if errors.As(err, &refused) {
		return "", &sampleRefused{refused}
	}
	if err != nil {
		return "", err
	}
	return *resp.Value, nil
}

// A sampleRefused prints the service's answer and not the SDK's picture of it.
type sampleRefused struct{ *azcore.ResponseError }

func (r *sampleRefused) Error() string {
	return fmt.Sprintf("%d %s: %s", r.StatusCode, http.StatusText(r.StatusCode), body(r.RawResponse))
}

// body reads the refusal's message; the SDK has kept the body for us.
func body(resp *http.Response) string {
	b, err := runtime.Payload(resp)
	if err != nil {
		return err.Error()
	}
	var e struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(b, &e) != nil {
		return string(b)
	}
	return e.Error.Message
}
