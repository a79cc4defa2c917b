// Reads a secret with the vendor's packages as they come: the challenge check
// on, no option set. Usage: node secret.mjs VAULT-URL NAME [CLIENT-ID]
import { ManagedIdentityCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

const [vault, name, clientId] = process.argv.slice(2);
const credential = clientId
  ? new ManagedIdentityCredential({ clientId })
  : new ManagedIdentityCredential();
try {
  const secret = await new SecretClient(vault, credential).getSecret(name);
  console.log(secret.value);
} catch (err) {
  console.error(err.statusCode ?? "", err.message);
  process.exit(1);
}
