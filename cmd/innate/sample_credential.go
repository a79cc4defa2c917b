package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// sampleCredential makes the vendor's credential of that kind. which selects a
// managed identity; the others take theirs from the variables by which the
// vendor's own EnvironmentCredential does: AZURE_TENANT_ID, AZURE_CLIENT_ID,
// AZURE_AUTHORITY_HOST and what holds the proof.
func sampleCredential(kind, which string) (azcore.TokenCredential, error) {
	tenant, client := os.Getenv("AZURE_TENANT_ID"), os.Getenv("AZURE_CLIENT_ID")
	switch kind {
	case "managed-identity":
		return managedIdentity(which)
	case "client-secret":
		return azidentity.NewClientSecretCredential(tenant, client, os.Getenv("AZURE_CLIENT_SECRET"),
			&azidentity.ClientSecretCredentialOptions{DisableInstanceDiscovery: true})
	case "client-certificate", "client-certificate-chain":
		pem, err := os.ReadFile(os.Getenv("AZURE_CLIENT_CERTIFICATE_PATH"))
		if err != nil {
			return nil, err
		}
		chain, key, err := azidentity.ParseCertificates(pem, nil)
		if err != nil {
			return nil, err
		}
		return azidentity.NewClientCertificateCredential(tenant, client, chain, key, &azidentity.ClientCertificateCredentialOptions{
			DisableInstanceDiscovery: true, SendCertificateChain: kind == "client-certificate-chain",
		})
	case "workload-identity":
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{DisableInstanceDiscovery: true})
	}
	return nil, fmt.Errorf("--credential %q is none of those that --help lists", kind)
}

func managedIdentity(which string) (azcore.TokenCredential, error) {
	var o azidentity.ManagedIdentityCredentialOptions
	switch kind, id, _ := strings.Cut(which, ":"); kind {
	case "client":
		o.ID = azidentity.ClientID(id)
	case "object":
		o.ID = azidentity.ObjectID(id)
	case "resource":
		o.ID = azidentity.ResourceID(id)
	case "":
	default:
		return nil, fmt.Errorf("--identity %q: want client:ID, object:ID or resource:ID", which)
	}
	return azidentity.NewManagedIdentityCredential(&o)
}
