package vault_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

// A named credential answers with a name, where a real one has a token.
type named struct {
	name  string
	asked *[]policy.TokenRequestOptions
}

func (c named) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	*c.asked = append(*c.asked, o)
	return azcore.AccessToken{Token: c.name, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// Do lets an SDK's client talk to the world's handler.
func (w *world) Do(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.Host, in.RequestURI = r.URL.Host, r.URL.RequestURI()
	if in.Body == nil {
		in.Body = io.NopCloser(bytes.NewReader(nil))
	}
	rec := httptest.NewRecorder()
	w.front.ServeHTTP(rec, in)
	resp := rec.Result()
	resp.Request = r
	return resp, nil
}

func (w *world) azsecrets(who string) (*azsecrets.Client, *[]policy.TokenRequestOptions) {
	w.t.Helper()
	asked := new([]policy.TokenRequestOptions)
	options := &azsecrets.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: w}}
	options.Retry.MaxRetries = -1
	client, err := azsecrets.NewClient("https://"+host, named{who, asked}, options) // its challenge check is on
	check(w.t, err)
	return client, asked
}

func TestTheVendorsGoClientWorks(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	c, asked := w.azsecrets("officer")
	value, contentType, tag := "hunter2", "text/plain", "blue"
	set, err := c.SetSecret(ctx, "a", azsecrets.SetSecretParameters{
		Value: &value, ContentType: &contentType, Tags: map[string]*string{"colour": &tag},
	}, nil)
	check(t, err)
	if len(*asked) != 1 || (*asked)[0].TenantID != tenant || !slices.Equal((*asked)[0].Scopes, []string{"https://vault.innate.test:8443/.default"}) {
		t.Errorf("asked for tokens %+v", *asked)
	}
	got, err := c.GetSecret(ctx, "a", "", nil)
	check(t, err)
	if *got.Value != value || *got.ID != *set.ID || *got.Tags["colour"] != tag || got.Attributes.Created == nil {
		t.Errorf("got %+v", got.Secret)
	}
	if _, err = c.GetSecret(ctx, "a", set.ID.Version(), nil); err != nil {
		t.Error(err)
	}
	off := false
	if _, err = c.UpdateSecretProperties(ctx, "a", set.ID.Version(), azsecrets.UpdateSecretPropertiesParameters{
		SecretAttributes: &azsecrets.SecretAttributes{Enabled: &off},
	}, nil); err != nil {
		t.Error(err)
	}
	_, err = c.GetSecret(ctx, "a", "", nil)
	if answered(err) != (refused{403, "Forbidden"}) {
		t.Errorf("a disabled secret: %v", err)
	}

	items := 0
	for pager := c.NewListSecretPropertiesPager(nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		check(t, err)
		items += len(page.Value)
	}
	for pager := c.NewListSecretPropertiesVersionsPager("a", nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		check(t, err)
		items += len(page.Value)
	}
	deleted, err := c.DeleteSecret(ctx, "a", nil)
	check(t, err)
	if deleted.RecoveryID == nil || deleted.ScheduledPurgeDate == nil {
		t.Errorf("deleted %+v", deleted.DeletedSecret)
	}
	for pager := c.NewListDeletedSecretPropertiesPager(nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		check(t, err)
		items += len(page.Value)
	}
	if items != 3 {
		t.Errorf("the three lists have %d items, want one each", items)
	}
	_, err = c.GetDeletedSecret(ctx, "a", nil)
	check(t, err)
	_, err = c.RecoverDeletedSecret(ctx, "a", nil)
	check(t, err)
	_, err = c.DeleteSecret(ctx, "a", nil)
	check(t, err)
	_, err = c.PurgeDeletedSecret(ctx, "a", nil)
	check(t, err)
	_, err = c.GetSecret(ctx, "a", "", nil)
	if answered(err) != (refused{404, "SecretNotFound"}) {
		t.Errorf("a purged secret: %v", err)
	}
}

// A refused request, as the SDK tells it.
type refused struct {
	status int
	code   string
}

func answered(err error) refused {
	var e *azcore.ResponseError
	if !errors.As(err, &e) {
		return refused{}
	}
	return refused{e.StatusCode, e.ErrorCode}
}
