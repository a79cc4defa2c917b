// Verifies tokens as a stranger would, knowing an issuer's name alone. Usage:
// node verify.mjs ISSUER AUDIENCE, then a line "EPOCH TOKEN" each on standard
// input, answered by a line: "good SUBJECT" or "bad REASON". The keys are kept
// between lines as jose keeps them, by a clock that EPOCH sets.
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";

const [issuer, audience] = process.argv.slice(2);
const discovery = new URL(".well-known/openid-configuration", issuer.endsWith("/") ? issuer : issuer + "/");
const metadata = await (await fetch(discovery)).json();
if (metadata.issuer !== issuer) throw new Error(`the document is of ${metadata.issuer}`);
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri));
for await (const line of createInterface({ input: process.stdin })) {
  const [epoch, token] = line.split(" ");
  Date.now = () => epoch * 1000;
  try {
    const { payload } = await jwtVerify(token, keys, { issuer, audience, currentDate: new Date(epoch * 1000) });
    console.log("good", payload.sub);
  } catch (err) {
    console.log("bad", err.code, err.message);
  }
}
