// Logs in at a PostgreSQL server as the environment says, with no password, and
// executes each line of standard input: prints the first column of the first row,
// or why there is none. Usage: node postgres.mjs [CONNECTS]; with a number it only
// logs in so many times, through a pool, and counts the failures.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import pg from "pg";

// node-postgres looks at neither of these by itself.
const { PGSSLCERT, PGSSLKEY } = process.env;
const config = PGSSLCERT ? { ssl: { cert: readFileSync(PGSSLCERT), key: readFileSync(PGSSLKEY) } } : {};

const [connects] = process.argv.slice(2);
if (connects) {
  const pool = new pg.Pool({ ...config, max: 4, maxUses: 1 });
  let failed = 0;
  for (let i = 0; i < Number(connects); i++) {
    try {
      (await pool.connect()).release();
    } catch (refused) {
      failed++;
      console.error(refused.message);
    }
  }
  console.log(`${connects} connects, ${failed} failed`);
  await pool.end();
  process.exit(0);
}

const client = new pg.Client(config);
let ended;
client.on("error", (refused) => (ended ??= refused)); // the session, between two queries
await client.connect();
for await (const line of createInterface({ input: process.stdin })) {
  try {
    if (ended) throw ended;
    const { rows } = await client.query({ text: line, rowMode: "array" });
    console.log(String(rows[0][0]));
  } catch (refused) {
    refused = ended?.code ? ended : refused;
    console.log(`error ${refused.code} ${refused.message}`);
  }
}
process.exit(0);
