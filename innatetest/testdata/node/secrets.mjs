// Does all that the vendor's client can do with secrets, as it comes: the
// challenge check on, no option set. Usage: node secrets.mjs VAULT-URL. What it
// prints is the same as secrets.py's.
import { ManagedIdentityCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

const client = new SecretClient(process.argv[2], new ManagedIdentityCredential());
const name = "db-password";
const soon = { intervalInMs: 50 };

async function all(pages) {
  const found = [];
  for await (const one of pages) found.push(one);
  return found;
}

async function refused(what) {
  try {
    await what();
    return "nothing";
  } catch (err) {
    return err.statusCode;
  }
}

const first = await client.setSecret(name, "hunter2", { contentType: "text/plain", tags: { stage: "test" } });
console.log("set", first.value, first.properties.contentType, first.properties.tags.stage);
const second = await client.setSecret(name, "hunter3");
console.log("latest", (await client.getSecret(name)).value);
console.log("older", (await client.getSecret(name, { version: first.properties.version })).value);
const versions = await all(client.listPropertiesOfSecretVersions(name));
console.log("versions", versions.length, versions.every((v) => v.name === name && v.value === undefined));

for (let n = 0; n < 30; n++) await client.setSecret(`more-${n}`, "v");
console.log("listed", (await all(client.listPropertiesOfSecrets())).length);

// This release cuts times to 32 bits: any after January 2038 arrives as a negative number.
const expiresOn = new Date("2035-01-02T03:04:05Z");
const { version } = second.properties;
await client.updateSecretProperties(name, version, { enabled: false, expiresOn, tags: { stage: "live" } });
console.log("disabled", await refused(() => client.getSecret(name)));
await client.updateSecretProperties(name, version, { enabled: true });
const updated = (await client.getSecret(name)).properties;
console.log("updated", updated.enabled, Math.floor(updated.expiresOn / 1000), updated.tags.stage);

const backup = await client.backupSecret(name);
const deleted = await (await client.beginDeleteSecret(name, soon)).pollUntilDone();
console.log("deleted", deleted.name, deleted.recoveryId !== undefined, deleted.scheduledPurgeDate > deleted.deletedOn);
console.log("gone", await refused(() => client.getSecret(name)));
console.log("taken", await refused(() => client.setSecret(name, "hunter4")));
console.log("among the deleted", (await all(client.listDeletedSecrets())).length, (await client.getDeletedSecret(name)).name);
await (await client.beginRecoverDeletedSecret(name, soon)).pollUntilDone();
console.log("recovered", (await client.getSecret(name)).value);

await (await client.beginDeleteSecret(name, soon)).pollUntilDone();
await client.purgeDeletedSecret(name);
console.log("purged", await refused(() => client.getDeletedSecret(name)));
console.log("restored", (await client.restoreSecretBackup(backup)).name, (await client.getSecret(name)).value);
console.log("with its versions", (await client.getSecret(name, { version: first.properties.version })).value);
console.log("restored twice", await refused(() => client.restoreSecretBackup(backup)));
