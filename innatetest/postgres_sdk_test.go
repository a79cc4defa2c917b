package innatetest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/postgresql/armpostgresqlflexibleservers/v5"

	"innate"
	"innate/innatetest"
)

// A holding is a credential that has its token already.
type holding string

func (h holding) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(h), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestInteropAzuresClientOfPostgreSQLServersManagesAdministrators(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	ops, api := p.App("ops"), p.App("api")
	p.Grant(ops, "Contributor", scope(p.Admin.Group(innatetest.Group)))
	factory, err := armpostgresqlflexibleservers.NewClientFactory(p.Admin.Info.Subscription, holding(ops.Token(p.Admin.Info.Management)), &arm.ClientOptions{
		ClientOptions: policy.ClientOptions{
			Transport: p.Client(),
			Cloud: cloud.Configuration{
				ActiveDirectoryAuthorityHost: p.Admin.Info.Login,
				Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
					cloud.ResourceManager: {Endpoint: p.Admin.Info.Management, Audience: p.Admin.Info.Management},
				},
			},
		},
		DisableRPRegistration: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, group, name := t.Context(), innatetest.Group, "orders"
	making, err := factory.NewServersClient().BeginCreateOrUpdate(ctx, group, name, armpostgresqlflexibleservers.Server{Location: ptr("local")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, err := making.PollUntilDone(ctx, nil)
	if err != nil || made.Properties == nil || made.Properties.FullyQualifiedDomainName == nil ||
		!strings.HasPrefix(*made.Properties.FullyQualifiedDomainName, "orders.postgres.") {
		t.Fatalf("a server: %+v, %v", made.Properties, err)
	}

	admins, object := factory.NewAdministratorsMicrosoftEntraClient(), string(api.Principal())
	putting, err := admins.BeginCreateOrUpdate(ctx, group, name, object, armpostgresqlflexibleservers.AdministratorMicrosoftEntraAdd{
		Properties: &armpostgresqlflexibleservers.AdministratorMicrosoftEntraPropertiesForAdd{
			PrincipalName: ptr("app-admin"), PrincipalType: ptr(armpostgresqlflexibleservers.PrincipalTypeServicePrincipal),
			TenantID: ptr(string(p.Admin.Info.Tenant)),
		},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := putting.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	got, err := admins.Get(ctx, group, name, object, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a := got.Properties; *a.ObjectID != object || *a.PrincipalName != "app-admin" || *a.TenantID != string(p.Admin.Info.Tenant) ||
		*a.PrincipalType != armpostgresqlflexibleservers.PrincipalTypeServicePrincipal {
		t.Errorf("the administrator: %+v", a)
	}
	listed := 0
	for pages := admins.NewListByServerPager(group, name, nil); pages.More(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		listed += len(page.Value)
	}
	if listed != 1 {
		t.Errorf("%d administrators are listed, want 1", listed)
	}

	_, err = admins.BeginCreateOrUpdate(ctx, group, name, innate.NewGUID(), armpostgresqlflexibleservers.AdministratorMicrosoftEntraAdd{
		Properties: &armpostgresqlflexibleservers.AdministratorMicrosoftEntraPropertiesForAdd{PrincipalName: ptr("ghost")},
	}, nil)
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusBadRequest || refused.ErrorCode != "PrincipalNotFound" {
		t.Errorf("an administrator that is nobody: %v", err)
	}

	dropping, err := admins.BeginDelete(ctx, group, name, object, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dropping.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := admins.Get(ctx, group, name, object, nil); !errors.As(err, &refused) || refused.StatusCode != http.StatusNotFound {
		t.Errorf("after the delete: %v", err)
	}
	deleting, err := factory.NewServersClient().BeginDelete(ctx, group, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := deleting.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
}

func ptr[T any](v T) *T { return &v }

// A token for a server is issued while the server is there, and no longer; no
// registration can stand in its place.
func TestTokensForAPostgreSQLServerAreIssuedWhileItIsThere(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	ask, later := p.App("api"), p.App("later") // an agent goes on handing out what it holds
	db := p.Postgres("orders")
	audience := db.Audience()
	for _, resource := range []string{audience, audience + "/"} {
		token := ask.Token(resource)
		if claims := payload(t, token); claims["aud"] != resource || claims["ver"] != "1.0" || claims["oid"] != string(ask.Principal()) {
			t.Errorf("asked for %s: %v", resource, claims)
		}
	}
	err := p.Admin.Graph(t.Context(), http.MethodPost, "/v1.0/applications",
		map[string]any{"displayName": "squatter", "identifierUris": []string{strings.Replace(audience, "orders", "payroll", 1)}}, nil)
	if err == nil {
		t.Error("a registration took the audience of a server that may come")
	}
	p.Delete(db)
	if status, answer := identityEndpoint(t, later, audience); status == http.StatusOK || !strings.Contains(answer, "500011") {
		t.Errorf("the server is gone, and asking for a token for it gives %d %s", status, answer)
	}
}

// identityEndpoint asks an app's endpoint, and returns what it answers.
func identityEndpoint(t *testing.T, app *innatetest.App, resource string) (int, string) {
	t.Helper()
	env := map[string]string{}
	for _, v := range app.Env() {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		env["IDENTITY_ENDPOINT"]+"?api-version=2019-08-01&resource="+url.QueryEscape(resource), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-IDENTITY-HEADER", env["IDENTITY_HEADER"])
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
