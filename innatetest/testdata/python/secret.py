# Reads a secret with the vendor's packages as they come: the challenge check
# on, no option set. Usage: secret.py VAULT-URL NAME [CLIENT-ID]
import sys

from azure.core.exceptions import HttpResponseError
from azure.identity import ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient

vault, name, *client_id = sys.argv[1:]
selector = {"client_id": client_id[0]} if client_id else {}
credential = ManagedIdentityCredential(**selector)
try:
    print(SecretClient(vault, credential).get_secret(name).value)
except HttpResponseError as refused:
    sys.exit(f"{refused.status_code} {refused.message}")
