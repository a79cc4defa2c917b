// Runs another program that trusts the certificate of Service Fabric's endpoint,
// whose thumbprint the vendor's package does not look at. Usage: node trusting.mjs PROGRAM
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";

const { hostname, port } = new URL(process.env.IDENTITY_ENDPOINT);
const socket = connect({ host: hostname, port, rejectUnauthorized: false }, () => {
  const { fingerprint, raw } = socket.getPeerCertificate();
  socket.destroy();
  if (fingerprint.replaceAll(":", "") !== process.env.IDENTITY_SERVER_THUMBPRINT) {
    throw new Error(`the certificate is ${fingerprint}`);
  }
  const dir = mkdtempSync(join(tmpdir(), "trusting-"));
  const file = join(dir, "certificate.pem");
  writeFileSync(file, `-----BEGIN CERTIFICATE-----\n${raw.toString("base64")}\n-----END CERTIFICATE-----\n`);
  const { status } = spawnSync(process.execPath, process.argv.slice(2), {
    stdio: "inherit",
    env: { ...process.env, NODE_EXTRA_CA_CERTS: file },
  });
  rmSync(dir, { recursive: true });
  process.exit(status);
});
