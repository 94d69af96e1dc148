// node verify-cli.mjs [--flip] GENESIS RECEIPT...
// one line a receipt; with --flip also every receipt with one byte changed, which must always be rejected.
// exit code: 0 all as it should be, 1 a receipt rejected or a changed one accepted, 2 wrong use.
import { readFileSync } from 'node:fs';

const MAX_FLIPS = 2000;

// through a data url, since node takes a bare .js file for an es module only in newer releases
const load = (name) => {
  const source = readFileSync(new URL(name, import.meta.url));
  return import(`data:text/javascript;base64,${source.toString('base64')}`);
};
const verifier = await load('./verify.js');
const verifyReceipt = (bytes, genesis) => verifier.verifyReceipt(bytes, genesis, () => load('./sm.js'));

const args = process.argv.slice(2);
const flip = args.includes('--flip');
const [genesisFile, ...files] = args.filter((arg) => arg !== '--flip');
if (files.length === 0) {
  console.error('usage: node verify-cli.mjs [--flip] GENESIS RECEIPT...');
  process.exit(2);
}

let genesis;
try {
  genesis = JSON.parse(readFileSync(genesisFile, 'utf8'));
} catch (error) {
  console.error(`${genesisFile}: ${error.message}`);
  process.exit(2);
}

let good = true;
for (const file of files) {
  let bytes;
  try {
    bytes = new Uint8Array(readFileSync(file));
  } catch (error) {
    console.log(`rejected ${file}: ${error.message}`);
    good = false;
    continue;
  }
  const result = await verifyReceipt(bytes, genesis);
  if (result.valid) console.log(`valid ${file} ${result.facts.kind} ${result.facts.status}`);
  else console.log(`rejected ${file}: ${result.reason}`);
  good = good && result.valid;
  if (!flip) continue;

  const flips = Math.min(MAX_FLIPS, bytes.length);
  let rejected = 0;
  for (let i = 0; i < flips; i++) {
    const at = Math.floor((i * bytes.length) / flips);
    bytes[at] ^= 1;
    if ((await verifyReceipt(bytes, genesis)).valid) console.error(`accepted ${file} with byte ${at} changed`);
    else rejected++;
    bytes[at] ^= 1;
  }
  console.log(`flips ${flips} rejected ${rejected}`);
  good = good && rejected === flips;
}
process.exitCode = good ? 0 : 1;
