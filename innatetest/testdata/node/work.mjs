// A service: it listens where PORT says, is well at /health once it has made
// 50 calls, gets tokens one after the other with the vendor's package as it comes
// until it is asked to end, and then says how that went. Usage: node work.mjs AUDIENCE COUNT
import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { ManagedIdentityCredential } from "@azure/identity";

const [audience, count] = process.argv.slice(2);
const credential = new ManagedIdentityCredential();
let calls = 0, failed = 0, ending = false;
const server = createServer((request, response) => {
  response.statusCode = calls > 50 ? 200 : 503;
  response.end();
}).listen(Number(process.env.PORT), "127.0.0.1");
process.on("SIGTERM", () => { ending = true; });
while (!ending) {
  try {
    await credential.getToken(`${audience}${calls % Number(count)}/.default`);
  } catch (err) {
    failed++;
    console.error(`call ${calls}: ${err.message}`);
  }
  calls++;
  await pause(5);
}
console.log(`${calls} calls, ${failed} failed`);
server.closeAllConnections();
server.close();
