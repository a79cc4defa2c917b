# Reads a secret with a credential of the program's own, the vendor's packages as
# they come. Usage: credential.py KIND VAULT-URL NAME, where the credential is in
# the variables that EnvironmentCredential reads.
import os
import sys

from azure.core.exceptions import AzureError
from azure.identity import CertificateCredential, ClientAssertionCredential, ClientSecretCredential
from azure.keyvault.secrets import SecretClient

kind, vault, name = sys.argv[1:]
client = os.environ["AZURE_CLIENT_ID"]
# This release cannot be told not to ask Microsoft about an unknown authority;
# with AD FS's name for the tenant it does not.
tenant = "adfs"


def certificate(**options):
    return CertificateCredential(tenant, client, os.environ["AZURE_CLIENT_CERTIFICATE_PATH"], **options)


def federated_token():
    with open(os.environ["AZURE_FEDERATED_TOKEN_FILE"]) as file:
        return file.read()


credential = {
    "client-secret": lambda: ClientSecretCredential(tenant, client, os.environ["AZURE_CLIENT_SECRET"]),
    "client-certificate": lambda: certificate(),
    "client-certificate-chain": lambda: certificate(send_certificate_chain=True),
    # The release has no WorkloadIdentityCredential yet, which is this one and a file.
    "workload-identity": lambda: ClientAssertionCredential(tenant, client, federated_token),
}[kind]()
try:
    print(SecretClient(vault, credential).get_secret(name).value)
except AzureError as refused:
    sys.exit(f"{getattr(refused, 'status_code', '')} {refused.message}")
