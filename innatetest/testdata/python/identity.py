# Prints a token for the vault's audience, got with the vendor's package as it comes.
from azure.identity import ManagedIdentityCredential

print(ManagedIdentityCredential().get_token("https://vault.azure.net/.default").token)
