package main

import (
	"errors"
	"net/http"
	"net/url"
	"os"
)

// tokenRequest is the request that an SDK would make from this process's place
// (managed-identity-endpoints §6): the app's endpoint when the environment names
// one, the metadata service only when asked.
func tokenRequest(resource, client string, imds bool) (*http.Request, error) {
	q := url.Values{"resource": {resource}}
	if client != "" {
		q.Set("client_id", client)
	}
	endpoint, header := os.Getenv("IDENTITY_ENDPOINT"), os.Getenv("IDENTITY_HEADER")
	switch {
	case imds:
		return imdsRequest(q)
	case endpoint != "" && header != "":
		q.Set("api-version", "2019-08-01")
		req, err := http.NewRequest(http.MethodGet, endpoint+"?"+q.Encode(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("X-IDENTITY-HEADER", header)
		return req, nil
	}
	return nil, errors.New("this process has no identity endpoint: run it under 'innate run --app NAME --', or say --imds inside a VM")
}

// imdsRequest asks the metadata service for a token.
func imdsRequest(q url.Values) (*http.Request, error) {
	q.Set("api-version", "2018-02-01")
	req, err := http.NewRequest(http.MethodGet, "http://169.254.169.254/metadata/identity/oauth2/token?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Metadata", "true")
	return req, nil
}
