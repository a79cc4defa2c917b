package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/spf13/cobra"
)

// A sampleOrder is one line that 'sample serve' reads, a sampleReport what it
// answers. The pipe between is quickstart's own: a token may travel on it, to be
// decoded there, and is never printed.
type sampleOrder struct {
	Do       string `json:"do"` // secret: with the SDKs; ask: the token endpoint, by plain HTTP; env; connect, sql: with pgx
	Vault    string `json:"vault,omitempty"`
	Name     string `json:"name,omitempty"`
	Resource string `json:"resource,omitempty"`
	SQL      string `json:"sql,omitempty"`
	IMDS     bool   `json:"imds,omitempty"`
}

type sampleReport struct {
	Value    string            `json:"value,omitempty"`
	Status   int               `json:"status,omitempty"`
	SQLState string            `json:"sqlState,omitempty"`
	Token    string            `json:"token,omitempty"`
	Env      map[string]string `json:"env,omitempty"`
	Error    string            `json:"error,omitempty"`
	Took     time.Duration     `json:"took,omitempty"`
}

// sampleServe is a program that lives as long as its standard input and does
// what it is told there, as a service would at a request.
func (s *session) sampleServe() *cobra.Command {
	return &cobra.Command{
		Use: "serve", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := json.NewEncoder(s.out)
			var db sampleDatabase
			context.AfterFunc(cmd.Context(), func() { os.Exit(0) }) // told to end while it waits for an order
			for in := bufio.NewScanner(s.in); in.Scan(); {
				var o sampleOrder
				if err := json.Unmarshal(in.Bytes(), &o); err != nil {
					return err
				}
				begin := time.Now()
				r, err := o.carryOut(cmd.Context(), &db)
				if err != nil {
					r.Error = err.Error()
				}
				r.Took = time.Since(begin)
				if err := out.Encode(r); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (o sampleOrder) carryOut(ctx context.Context, db *sampleDatabase) (r sampleReport, err error) {
	switch o.Do {
	case "connect":
		return db.connect(ctx)
	case "sql":
		return db.ask(ctx, o.SQL)
	case "secret":
		cred, err := azidentity.NewManagedIdentityCredential(nil)
		if err != nil {
			return r, err
		}
		r.Value, err = readSecret(ctx, cred, o.Vault, o.Name)
		var refused *sampleRefused
		if errors.As(err, &refused) {
			r.Status = refused.StatusCode
		}
		return r, err
	case "ask":
		return o.ask(ctx)
	case "env":
		r.Env = map[string]string{}
		for _, name := range append(strings.Fields("IDENTITY_ENDPOINT IDENTITY_HEADER MSI_ENDPOINT MSI_SECRET"), databaseVariables...) {
			r.Env[name] = os.Getenv(name)
		}
		return r, nil
	}
	return r, errors.New("unknown order " + o.Do)
}

// ask is the article's own request: the endpoint with its query typed as it is, colons and slashes raw.
func (o sampleOrder) ask(ctx context.Context) (r sampleReport, err error) {
	var req *http.Request
	if o.IMDS {
		req, err = imdsRequest(url.Values{"resource": {o.Resource}})
	} else if req, err = http.NewRequest(http.MethodGet, os.Getenv("IDENTITY_ENDPOINT")+"?resource="+o.Resource+"&api-version=2019-08-01", nil); err == nil {
		req.Header.Set("X-IDENTITY-HEADER", os.Getenv("IDENTITY_HEADER"))
	}
	if err != nil {
		return r, err
	}
	r.Token, r.Status, err = answerOf(req.WithContext(ctx))
	return r, err
}

// answerOf sends a request to a token endpoint and reads what came back; the
// text of a refusal is the error.
func answerOf(req *http.Request) (token string, status int, err error) {
	resp, err := (&http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, mostValue))
	if err != nil {
		return "", resp.StatusCode, err
	}
	if resp.StatusCode != http.StatusOK {
		return "", resp.StatusCode, errors.New(refusalText(b))
	}
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(b, &answer); err != nil || answer.Token == "" {
		return "", resp.StatusCode, errors.New("the answer holds no token")
	}
	return answer.Token, resp.StatusCode, nil
}

// refusalText finds the sentence in either endpoint's error body.
func refusalText(b []byte) string {
	var e struct {
		Message     string `json:"message"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(b, &e) == nil && e.Message+e.Description != "" {
		return e.Message + e.Description
	}
	return strings.TrimSpace(string(b))
}
