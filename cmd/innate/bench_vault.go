package main

import (
	"context"
	"net/http"

	"innate"
)

// secretGet is a secret read by an identity that may; the limit is a bare
// handler over TLS that writes the same bytes.
func secretGet(ctx context.Context, b *bench) (contest, error) {
	p, err := b.prover(ctx)
	if err != nil {
		return contest{}, err
	}
	st := p.stage
	const name, path = "bench-kv", "/secrets/x"
	vault := st.resource(typeVault, name)
	if _, err := st.put(ctx, vault, map[string]any{"properties": map[string]any{
		"tenantId": st.Admin.Info.Tenant, "sku": map[string]string{"family": "A", "name": "standard"}, "enableRbacAuthorization": true,
	}}); err != nil {
		return contest{}, err
	}
	if err := st.Admin.Vault(ctx, name, http.MethodPut, path, map[string]string{"value": "hunter2"}, nil); err != nil {
		return contest{}, err
	}
	grant := string(vault) + authorization + "roleAssignments/" + innate.NewGUID()
	if err := st.Admin.ARM(ctx, http.MethodPut, grant, map[string]any{"properties": map[string]any{
		"roleDefinitionId": authorization + "roleDefinitions/" + secretsUser, "principalId": p.object,
	}}, nil); err != nil {
		return contest{}, err
	}
	token, err := p.token(ctx, keyVault)
	if err != nil {
		return contest{}, err
	}
	return b.beside(ctx, load{
		Method: http.MethodGet, URL: "https://" + name + "." + st.Server.Endpoints.VaultSuffix + path + "?api-version=7.4",
		Header: map[string]string{"Authorization": "Bearer " + token}, Connections: benchConnections,
	}, st.dial(name+".vault", nil), nil, nil)
}
