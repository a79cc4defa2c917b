// Prints a token for the vault's audience, got with the vendor's package as it
// comes. Usage: node token.mjs [CLIENT-ID]
import { ManagedIdentityCredential } from "@azure/identity";

const [clientId] = process.argv.slice(2);
const credential = clientId
  ? new ManagedIdentityCredential({ clientId })
  : new ManagedIdentityCredential();
try {
  const token = await credential.getToken("https://vault.azure.net/.default");
  console.log(token.token);
} catch (err) {
  console.error(err.message);
  process.exit(1);
}
