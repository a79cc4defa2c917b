// Reads a secret with a credential of the program's own, the vendor's packages
// as they come. Usage: node credential.mjs KIND VAULT-URL NAME, where the
// credential is in the variables that EnvironmentCredential reads.
import {
  ClientCertificateCredential,
  ClientSecretCredential,
  WorkloadIdentityCredential,
} from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

const [kind, vault, name] = process.argv.slice(2);
const { AZURE_TENANT_ID: tenant, AZURE_CLIENT_ID: client, ...env } = process.env;
// Our host is not on the client's built-in list of authorities.
const options = { disableInstanceDiscovery: true };
const certificate = { certificatePath: env.AZURE_CLIENT_CERTIFICATE_PATH };
const credential = {
  "client-secret": () => new ClientSecretCredential(tenant, client, env.AZURE_CLIENT_SECRET, options),
  "client-certificate": () => new ClientCertificateCredential(tenant, client, certificate, options),
  "client-certificate-chain": () =>
    new ClientCertificateCredential(tenant, client, certificate, { ...options, sendCertificateChain: true }),
  "workload-identity": () => new WorkloadIdentityCredential(options),
}[kind]();
try {
  const secret = await new SecretClient(vault, credential).getSecret(name);
  console.log(secret.value);
} catch (err) {
  console.error(err.statusCode ?? "", err.message);
  process.exit(1);
}
