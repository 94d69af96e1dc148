// a second verifier of receipts (存证凭证), written from docs/receipt.md alone: no network, no clock, and no dependencies but
// a vendored SM2 and SM3 for ledgers of the national suite.
// runs unchanged in chromium (secure context, webcrypto with ed25519) and in node 20.

const MAX_FILE = 8 * 1024 * 1024;
const MAX_WALK = 1024;
const MAX_EVENTS = 16;
const MAX_LOG_EVENTS = 1024;
const MAX_ROSTERS = 4096;
const MAX_MEMBERS = 64;
const MAX_TITLE = 256;
const FINAL_OUTCOMES = [0, 1, 2, 3, 7]; // all but parked, needs_human, blocked

const REFUSALS = ['expired', 'oversized', 'not_yours', 'wrong_version', 'unknown_resource', 'unknown_field', 'not_shared',
  'unknown_matter', 'undeclared_step', 'unknown_case', 'case_closed', 'duplicate', 'wrong_party', 'not_identified',
  'unknown_terminal', 'bad_signature', 'no_consent', 'consent_expired', 'consent_withdrawn', 'consent_repeated',
  'already_used', 'basis_not_approved', 'unknown_call', 'wrong_state', 'wrong_shape', 'too_late', 'too_early',
  'unknown_action', 'unconfirmed', 'unknown_proposal', 'approved_before', 'unfit_change', 'over_budget', 'unexplained',
  'unknown_project', 'unknown_share', 'unfit_text', 'no_coordinator', 'unknown_subscription',
  'policy_forbids', 'unfit_policy', 'unknown_list', 'not_listed'];

// the body each role must have (a bar: any of these), and whether its outcome must be accepted
const ROLES = {
  resource: ['PublishResource', true], matter: ['PublishMatter', true], case: ['OpenCase', true],
  identify: ['Identify', true], consent: ['GiveConsent', true], approval: ['ApproveBasis', true],
  ask: ['Ask', false], answer: ['Answer', false], confirm: ['Confirm', true], withdraw: ['WithdrawConsent', true],
  request: ['RequestAction', false], report: ['ReportAction', true], decide: ['Decide', true], settle: ['SettleCase|CountCase', true],
  objection: ['Object', true], reply: ['AnswerObjection', true],
};

// the roles of each kind, in order; a question mark means it may be absent, a star that it may be there any number of times,
// and a bar that any of these may stand there
const KINDS = {
  call: 'matter case resource identify? consent? approval? ask answer? confirm? objection|reply*'.split(' '),
  consent: 'matter case identify consent withdraw?'.split(' '),
  action: 'matter case request report?'.split(' '),
  decision: 'matter case decide'.split(' '),
  access_log: 'matter case settle ask*'.split(' '),
};

// pairs of events of which the first must have been ordered before the second
const CHRONICLE = [['matter', 'case'], ['case', 'identify'], ['case', 'ask'], ['case', 'request'], ['case', 'decide'],
  ['identify', 'consent'], ['identify', 'ask'], ['consent', 'ask'], ['ask', 'answer'], ['answer', 'confirm'],
  ['consent', 'withdraw'], ['request', 'report'], ['case', 'settle'], ['resource', 'ask'], ['approval', 'ask']];

// `national` loads the SM2 and SM3 of ./sm.js; whoever has them elsewhere says so
export async function verifyReceipt(receiptBytes, genesis, national = () => import('./sm.js')) {
  try {
    return { valid: true, facts: await verify(receiptBytes, genesis, national) };
  } catch (error) {
    return { valid: false, reason: String((error && error.message) || error) };
  }
}

// ---- small tools ----

function need(condition, reason) {
  if (!condition) throw new Error(reason);
}

const utf8 = new TextEncoder();
// fatal: refuse invalid utf-8; ignoreBOM: keep a byte-order mark as a character instead of dropping it
const decodeUtf8 = (bytes) => new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

function unhex(value, length, what) {
  need(typeof value === 'string' && /^([0-9a-f]{2})*$/.test(value), `${what}: not lower-case hexadecimal`);
  need(length === null || value.length === 2 * length, `${what}: wrong length`);
  return Uint8Array.from({ length: value.length / 2 }, (_, i) => parseInt(value.slice(2 * i, 2 * i + 2), 16));
}

// strings are taken as utf-8
function concat(...parts) {
  const all = parts.map((part) => (typeof part === 'string' ? utf8.encode(part) : part));
  const out = new Uint8Array(all.reduce((sum, part) => sum + part.length, 0));
  all.reduce((at, part) => (out.set(part, at), at + part.length), 0);
  return out;
}

const little = (value, length) => Uint8Array.from({ length }, (_, i) => Number((BigInt(value) >> BigInt(8 * i)) & 255n));
const u8 = (value) => little(value, 1);
const u32 = (value) => little(value, 4);
const u64 = (value) => little(value, 8);
const sized = (bytes) => concat(u32(bytes.length), bytes);

function leb128(value) {
  const out = [];
  let rest = BigInt(value);
  for (; rest > 127n; rest >>= 7n) out.push(Number(rest & 127n) | 128);
  return Uint8Array.of(...out, Number(rest));
}

// ---- the two suites ----

const ed25519Keys = new Map(); // imported public keys by their hex

async function verifyEd25519(key, signature, message) {
  if (!ed25519Keys.has(key)) {
    if (ed25519Keys.size >= 1024) ed25519Keys.clear();
    const raw = unhex(key, 32, 'key');
    ed25519Keys.set(key, await globalThis.crypto.subtle.importKey('raw', raw, { name: 'Ed25519' }, false, ['verify']));
  }
  return globalThis.crypto.subtle.verify({ name: 'Ed25519' }, ed25519Keys.get(key), signature, message);
}

// what a suite hashes and verifies with; a key of the other suite verifies nothing
async function suiteOf(word, national) {
  need(word === 'international' || word === 'national', 'genesis: unknown suite');
  if (word === 'international') {
    const digest = async (...parts) => new Uint8Array(await globalThis.crypto.subtle.digest('SHA-256', concat(...parts)));
    return suite(0, digest, 'ed25519:', 'x25519:', 32, verifyEd25519);
  }
  const { sm3, verifySm2 } = await national();
  const digest = async (...parts) => unhex(sm3(Array.from(concat(...parts))), 32, 'sm3');
  return suite(1, digest, 'sm2:', 'sm2:', 33, (key, signature, message) => verifySm2(unhex(key, 33, 'key'), signature, message));
}

const suite = (tag, digest, signing, sealing, keyLength, check) => ({
  tag,
  digest,
  hash: (domain, ...parts) => digest(domain, u8(0), ...parts),
  verifies: async (key, signature, message) => key.startsWith(signing) && check(key.slice(signing.length), signature, message),
  // a key of this suite as its canonical bytes
  key: (text, sealed) => {
    const prefix = sealed ? sealing : signing;
    need(typeof text === 'string' && text.startsWith(prefix), 'a key of another suite, or none');
    return concat(u8(tag), unhex(text.slice(prefix.length), keyLength, 'key'));
  },
});

// ---- borsh: a type is a function from a reader to a value; digests become hex so that === compares them ----

function decode(type, bytes) {
  const reader = { bytes, at: 0 };
  const value = type(reader);
  need(reader.at === bytes.length, 'borsh: bytes left over');
  return value;
}

function take(r, length) {
  need(length <= r.bytes.length - r.at, 'borsh: input too short');
  r.at += length;
  return r.bytes.slice(r.at - length, r.at);
}

const U8 = (r) => take(r, 1)[0];
const U32 = (r) => new DataView(take(r, 4).buffer).getUint32(0, true);
const U64 = (r) => new DataView(take(r, 8).buffer).getBigUint64(0, true); // a BigInt
const Digest = (r) => hex(take(r, 32));
const Signature = (r) => take(r, 64);
const Str = (r) => decodeUtf8(take(r, U32(r)));
const isName = (value) => typeof value === 'string' && /^[a-z][a-z0-9._-]{0,63}$/.test(value);
const only = (type, test, reason) => (r) => {
  const value = type(r);
  need(test(value), reason);
  return value;
};
const Name = only(Str, isName, 'borsh: not a name');
const Below = (limit) => only(U8, (value) => value < limit, 'borsh: unknown tag');
const Bool = (r) => Below(2)(r) === 1;
const Option = (type) => (r) => (Below(2)(r) === 1 ? type(r) : null);
const Struct = (fields) => (r) => Object.fromEntries(Object.entries(fields).map(([name, type]) => [name, type(r)]));
const Vec = (type) => (r) => {
  const out = [];
  for (let left = U32(r); left > 0; left--) out.push(type(r));
  return out;
};
// variants are [name, type] in the order of their tags; no type means no fields
const Enum = (...variants) => (r) => {
  const [is, type] = variants[Below(variants.length)(r)];
  return { is, value: type ? type(r) : null };
};
// keeps the bytes of a part, since signatures are made over them
const Signed = (name, type) => (r) => {
  const start = r.at;
  const value = type(r);
  return { [name]: value, bytes: r.bytes.slice(start, r.at), signature: Signature(r) };
};
// keys are read as the text that names their algorithm
const key = (...algorithms) => (r) => {
  const [word, length] = algorithms[Below(algorithms.length)(r)];
  return `${word}:${hex(take(r, length))}`;
};
const PublicKey = key(['ed25519', 32], ['sm2', 33]);
const SealKey = key(['x25519', 32], ['sm2', 33]);
const Unknown = () => need(false, 'a command of this type has no place in a receipt');

// ---- the structures of the page ----

const Text = Struct({ zh: Str, en: Str });
const What = Enum(['Fields', Vec(Name)], ['Predicate', Name]);
const Need = Struct({ step: Name, party: Name, recipient: Name, holder: Name, resource: Name, what: What,
  basis: Enum(['Consent'], ['Statutory', Name], ['SelfAccess']), purpose: Text });
const Assertion = Struct({ chain: Digest, case: Digest, role: Name, subject: Digest,
  method: Enum(['counter'], ['passkey'], ['face'], ['oidc']), level: Enum(['low'], ['substantial'], ['high']), terminal: PublicKey,
  signer: PublicKey, at_ms: U64, nonce: U64 });
const Item = Struct({ step: Name, recipient: Name, holder: Name, resource: Name, what: What });
const ConsentTerms = Struct({ chain: Digest, case: Digest, role: Name, subject: Digest, items: Vec(Item),
  language: Below(2), text: Digest, expires_ms: U64, nonce: U64 });

const Body = Enum(
  ['PublishResource', Struct({ id: Name, version: U32, title: Text, holder: Name, officer: Str, subject: Below(3),
    share: Enum(['Unconditional'], ['Conditional'], ['NotShared', Struct({ citation: Str })]), basis: Str, standard: Str,
    update: Str, fields: Vec(Struct({ id: Name, element: Name, title: Text, sensitivity: U8 })),
    predicates: Vec(Struct({ id: Name, title: Text })) })],
  ['PublishMatter', Struct({ id: Name, version: U32, title: Text, package: Digest, needs: Vec(Need),
    actions: Vec(Struct({ step: Name, performer: Name, operation: Name })) })],
  ['ApproveBasis', Struct({ id: Name, asker: Name, matter: Name, resource: Name, names: Vec(Name), citation: Str,
    expires_ms: U64 })],
  ['EnrolTerminal', Unknown],
  ['OpenCase', Struct({ matter: Name, version: U32, tag: Digest,
    parties: Vec(Struct({ role: Name, pseudonym: Digest, subject: Digest })) })],
  ['Identify', Signed('assertion', Assertion)],
  ['GiveConsent', Signed('terms', ConsentTerms)],
  ['WithdrawConsent', Struct({ consent: Digest, signature: Signature })],
  ['Ask', Struct({ case: Digest, step: Name, attempt: U32, consent: Option(Digest), subject: Digest, sealed: Digest,
    answer_by_ms: U64 })],
  ['Answer', Struct({ call: Digest, reply: Enum(
    ['Data', Struct({ commitments: Vec(Digest), payload: Digest, as_of_ms: U64 })], ['Declined', Name]) })],
  ['Confirm', Struct({ call: Digest, dispute: Option(Digest) })],
  ['Lapse', Unknown],
  ['RequestAction', Struct({ case: Digest, step: Name, parameters: Digest, sealed: Digest, report_by_ms: U64 })],
  ['ReportAction', Struct({ action: Digest, failure: Option(Name), result: Digest })],
  ['Decide', Struct({ case: Digest, step: Name, rule: Digest, inputs: Vec(Digest), passed: Bool, reason: Digest, adverse: Bool,
    confirmed_by: Option(Digest) })],
  ['SettleCase', Struct({ case: Digest, outcome: Below(8), step: Name, reason: Digest })],
  ['Anchor', Unknown],
  ['ResumeCase', Unknown],
  ['Propose', Unknown],
  ['Approve', Unknown],
  ['RotateVote', Unknown],
  ['RegisterProject', Unknown],
  ['EndProject', Unknown],
  ['RequestShare', Unknown],
  ['ReplyShare', Unknown],
  ['WithdrawShare', Unknown],
  ['DisputeShare', Unknown],
  ['RuleShare', Unknown],
  ['RevokeBasis', Unknown],
  ['SetBudget', Unknown],
  ['ExplainAlert', Unknown],
  ['Object', Struct({ call: Digest, name: Name, wrong: Enum(['untrue'], ['outdated'], ['incomplete'], ['another_person']) })],
  ['AnswerObjection', Struct({ call: Digest, name: Name,
    verdict: Enum(['corrected'], ['confirmed'], ['unproven'], ['elsewhere']) })],
  ['DeclareSubscriptions', Unknown],
  ['Subscribe', Unknown],
  ['NoteChange', Unknown],
  ['EndSubscription', Unknown],
  ['CountCase', Struct({ case: Digest })],
  ['SetPolicy', Unknown],
  ['DeclareUndo', Unknown],
  ['DescribeResource', Unknown],
  ['DeclareListed', Unknown],
  ['ProposeList', Unknown],
  ['AnswerList', Unknown],
);
const Command = Struct({ chain: Digest, signer: Name, nonce: U64, expires_ms: U64, body: Body });
const SignedCommand = (r) => ({ suite: Below(2)(r), ...Signed('command', Command)(r) });
const Outcome = Enum(['Accepted', Enum(['Recorded'], ['Granted', Struct({ asker: U64, case: U32 })],
  ['Answered', U64], ['Adopted', U64], ['Settled', Struct({ granted: U32, refused: U32 })])],
  ['Refused', (r) => REFUSALS[Below(REFUSALS.length)(r)]]);
const Header = Struct({ chain: Digest, epoch: U64, view: U64, leader: Digest, parent_view: U64, parent: Digest,
  height: U64, time_ms: U64, state_root: Digest, log_root: Digest, log_start: U64, log_end: U64, event_root: Digest,
  roster: Digest, epoch_end: Digest });
const Member = Struct({ id: Name, title: Text, command_key: PublicKey, seal_key: SealKey, node_key: Digest, vote_key: PublicKey,
  validator: Bool, address: Str, officers: Struct({ system: PublicKey, security: PublicKey }) });
const Roster = Struct({ epoch: U64, protocol: U32, approvals: U32, members: Vec(Member) });

// ---- json: exact shapes ----

function object(value, fields, what, ordered = true) {
  need(value !== null && typeof value === 'object' && !Array.isArray(value), `${what}: not an object`);
  const found = Object.keys(value);
  const wanted = fields.split(' ');
  if (!ordered) [found, wanted].forEach((list) => list.sort());
  const same = found.length === wanted.length && found.every((key, i) => key === wanted[i]);
  need(same, `${what}: wrong fields`);
}

const checked = (test) => (value, what) => {
  need(test(value), `${what}: out of range or of another type`);
  return value;
};
const array = checked(Array.isArray);
const integer = checked((value) => Number.isSafeInteger(value) && value >= 0);
const integer32 = checked((value) => Number.isInteger(value) && value >= 0 && value <= 0xffffffff);
const string = checked((value) => typeof value === 'string' && !/\p{Surrogate}/u.test(value)); // lone ones are not utf-8
const plain = (value, what) => integer(Number(value), what);
const ascending = (list) => list.every((value, i) => i === 0 || list[i - 1] < value);

const str = (value) => sized(utf8.encode(string(value, 'genesis')));

function encodeMember(m, suite) {
  object(m, 'id title command_key seal_key node_key vote_key validator address officers', 'genesis: member', false);
  object(m.title, 'zh en', 'genesis: title', false);
  object(m.officers, 'system security', 'genesis: officers', false);
  need(isName(m.id), 'genesis: not a name');
  need(typeof m.validator === 'boolean', 'genesis: validator is not a boolean');
  return concat(str(m.id), str(m.title.zh), str(m.title.en), suite.key(m.command_key, false), suite.key(m.seal_key, true),
    unhex(m.node_key, 32, 'genesis: node key'), suite.key(m.vote_key, false), u8(m.validator ? 1 : 0), str(m.address),
    suite.key(m.officers.system, false), suite.key(m.officers.security, false));
}

// what must hold of a roster, whether it comes from the genesis or from a change
function checkRoster({ approvals, members }, suite) {
  need(members.length <= MAX_MEMBERS, 'roster: too many members');
  need(ascending(members.map((m) => m.id)), 'roster: members out of order');
  need(members.filter((m) => m.validator).length >= 4, 'roster: fewer than four validators');
  const faulty = Math.floor((members.length - 1) / 3);
  need(approvals >= Math.max(2, faulty + 1) && approvals <= members.length - faulty, 'roster: approvals out of range');
  for (const m of members) {
    [m.command_key, m.vote_key, m.officers.system, m.officers.security].forEach((key) => suite.key(key, false));
    suite.key(m.seal_key, true);
    const length = utf8.encode(m.address).length;
    need(length > 0 && length <= 255, 'roster: no address');
    need([m.title.zh, m.title.en].every((title) => utf8.encode(title).length <= MAX_TITLE), 'roster: a title too long');
  }
  const bare = (key) => key.split(':').pop();
  const signing = members.flatMap((m) => [m.command_key, m.vote_key, m.officers.system, m.officers.security].map(bare)
    .concat(m.node_key));
  const seals = members.map((m) => bare(m.seal_key));
  need(new Set(signing).size === signing.length && new Set(seals).size === seals.length, 'roster: a key is used twice');
}

// a roster as checks use it
function inForce({ epoch, members }, hash) {
  const validators = members.filter((m) => m.validator).sort((a, b) => (a.node_key < b.node_key ? -1 : 1));
  return {
    epoch: BigInt(epoch),
    hash,
    commandKeys: new Map(members.map((m) => [m.id, m.command_key])),
    validators: validators.map((m) => m.vote_key),
    quorum: validators.length - Math.floor((validators.length - 1) / 3),
  };
}

async function readGenesis(genesis, national) {
  object(genesis, 'format name suite time_ms epoch_blocks protocol approvals members', 'genesis', false);
  need(genesis.format === 1, 'genesis: unknown format');
  const suite = await suiteOf(genesis.suite, national);
  const { protocol, approvals } = genesis;
  need(Number.isInteger(protocol) && protocol >= 1 && protocol <= 8, 'genesis: unknown protocol');
  integer32(approvals, 'genesis: approvals');
  const length = integer(genesis.epoch_blocks, 'genesis: epoch_blocks');
  need(length >= 8 && length <= 1048576, 'genesis: an epoch too short or too long');
  const members = concat(u32(array(genesis.members, 'genesis: members').length),
    ...genesis.members.map((m) => encodeMember(m, suite)));
  checkRoster(genesis, suite);
  const chain = await suite.hash('tongban/genesis/1', u32(1), str(genesis.name), u8(suite.tag),
    u64(integer(genesis.time_ms, 'genesis: time_ms')), u64(length), u32(protocol), u32(approvals), members);
  const first = hex(await suite.hash('tongban/roster/1', u64(0), u32(protocol), u32(approvals), members));
  return {
    suite,
    chain: hex(chain),
    namespace: concat('tongban/vote/1/', chain, '_FINALIZE'),
    epochBlocks: BigInt(length),
    rosters: [inForce({ epoch: 0, members: genesis.members }, first)],
  };
}

function shapeOfFinality(finality) {
  object(finality, 'epoch view parent_view votes', 'finality');
  for (const field of ['epoch', 'view', 'parent_view']) integer(finality[field], `finality: ${field}`);
  for (const vote of array(finality.votes, 'finality: votes')) object(vote, 'signer signature', 'vote');
}

// shapes and canonical form, before anything is decoded
function readFile(bytes) {
  need(bytes instanceof Uint8Array, 'receipt: not bytes');
  need(bytes.length <= MAX_FILE, 'receipt: too large');
  const source = decodeUtf8(bytes);
  const file = JSON.parse(source);
  object(file, 'format kind chain_id text rosters events', 'receipt');
  need(file.format === 1, 'receipt: unknown format');
  need(typeof file.kind === 'string' && Object.hasOwn(KINDS, file.kind), 'receipt: unknown kind');
  string(file.text, 'receipt: text');
  need(array(file.rosters, 'receipt: rosters').length <= MAX_ROSTERS, 'receipt: too many rosters');
  for (const change of file.rosters) {
    object(change, 'header finality roster blocks past', 'roster');
    shapeOfFinality(change.finality);
  }
  const most = file.kind === 'access_log' ? MAX_LOG_EVENTS : MAX_EVENTS;
  need(array(file.events, 'receipt: events').length <= most, 'receipt: too many events');
  for (const e of file.events) {
    object(e, 'role command outcome index size path header walk finality', 'event');
    need(typeof e.role === 'string' && Object.hasOwn(ROLES, e.role), 'event: unknown role');
    integer32(e.size, 'event: size');
    integer32(e.index, 'event: index');
    shapeOfFinality(e.finality);
  }
  need(JSON.stringify(file) === source, 'receipt: not in canonical form');
  return file;
}

// ---- one event ----

async function checkInclusion(e, command, outcome, root, { digest }) {
  need(e.index < e.size, 'inclusion: index beyond size');
  const sides = []; // from the root down: whether our half is the left one
  for (let index = e.index, size = e.size; size > 1;) {
    let split = 1;
    while (split * 2 < size) split *= 2;
    const left = index < split;
    sides.push(left);
    [index, size] = left ? [index, split] : [index - split, size - split];
  }
  const path = array(e.path, 'inclusion: path');
  need(path.length === sides.length, 'inclusion: path has the wrong length');
  let hash = await digest(u8(0), u32(e.index), sized(command), sized(outcome));
  for (const item of path) {
    const sibling = unhex(item, 32, 'inclusion: path');
    hash = await (sides.pop() ? digest(u8(1), hash, sibling) : digest(u8(1), sibling, hash));
  }
  hash = await digest(u8(2), u32(e.size), hash);
  need(hex(hash) === root, 'inclusion: path does not lead to the event root');
}

// the roster in force at a header: the last that began by its epoch, and the one the header names
function rosterOf(header, net) {
  const found = net.rosters.findLast((roster) => roster.epoch <= header.epoch);
  need(header.roster === found.hash, 'header: another roster than the one in force');
  return found;
}

async function checkFinality(finality, certified, hash, net) {
  need(certified.chain === net.chain, 'finality: another chain');
  need(certified.epoch === certified.height / net.epochBlocks, 'finality: a height of another epoch');
  need(BigInt(finality.epoch) === certified.epoch, 'finality: wrong epoch');
  const { validators, quorum } = rosterOf(certified, net);
  need(finality.votes.length >= quorum, 'finality: no quorum');
  const message = concat(leb128(net.namespace.length), net.namespace, leb128(finality.epoch), leb128(finality.view),
    leb128(finality.parent_view), hash);
  let last = -1;
  for (const { signer, signature } of finality.votes) {
    need(integer(signer, 'finality: signer') < validators.length, 'finality: not a validator');
    need(signer > last, 'finality: signers out of order');
    last = signer;
    const bytes = unhex(signature, 64, 'finality: signature');
    need(await net.suite.verifies(validators[signer], bytes, message), 'finality: bad vote');
  }
}

// the changes of the roster, one after the other: each named by a header that the validators before it made final
async function followRosters(changes, net) {
  const { suite } = net;
  for (const change of changes) {
    const headerBytes = unhex(change.header, null, 'roster: header');
    const rosterBytes = unhex(change.roster, null, 'roster');
    const header = decode(Header, headerBytes);
    const roster = decode(Roster, rosterBytes);
    await checkFinality(change.finality, header, await suite.hash('tongban/header/1', headerBytes), net);
    need((header.height + 1n) % net.epochBlocks === 0n, 'roster: no epoch ends here');
    const hash = await suite.hash('tongban/roster/1', rosterBytes);
    const end = await suite.hash('tongban/epoch-end/1', hash, unhex(change.blocks, 32, 'roster: blocks'),
      unhex(change.past, 32, 'roster: past'));
    need(hex(end) === header.epoch_end, 'roster: not the one its header names');
    need(hex(hash) !== header.roster && roster.epoch === header.epoch + 1n, 'roster: changes nothing, or at another epoch');
    checkRoster(roster, suite);
    need(roster.epoch > net.rosters.at(-1).epoch, 'roster: a change stands twice');
    net.rosters.push(inForce(roster, hex(hash)));
  }
}

async function checkEvent(e, net) {
  const commandBytes = unhex(e.command, null, 'command');
  const outcomeBytes = unhex(e.outcome, null, 'outcome');
  const headerBytes = unhex(e.header, null, 'header');
  const { command, bytes, suite: tag, signature } = decode(SignedCommand, commandBytes);
  const outcome = decode(Outcome, outcomeBytes);
  const header = decode(Header, headerBytes);

  need(command.chain === net.chain, 'command: another chain');
  const { suite } = net;
  need(tag === suite.tag, 'command: another suite');
  const { commandKeys } = rosterOf(header, net);
  need(commandKeys.has(command.signer), 'command: signer is not a member');
  const message = concat('tongban/command/1', u8(0), u8(tag), bytes);
  need(await suite.verifies(commandKeys.get(command.signer), signature, message), 'command: bad signature');

  await checkInclusion(e, commandBytes, outcomeBytes, header.event_root, suite);
  need(header.chain === net.chain, 'header: another chain');
  need(array(e.walk, 'walk').length <= MAX_WALK, 'walk: too long');
  let certified = header;
  let hash = await suite.hash('tongban/header/1', headerBytes);
  for (const step of e.walk) {
    const nextBytes = unhex(step, null, 'walk');
    const next = decode(Header, nextBytes);
    need(next.chain === net.chain && next.epoch === certified.epoch, 'walk: another chain or epoch');
    need(next.parent === hex(hash), 'walk: broken');
    need(next.height === certified.height + 1n, 'walk: wrong height');
    certified = next;
    hash = await suite.hash('tongban/header/1', nextBytes);
  }
  await checkFinality(e.finality, certified, hash, net);

  const [bodyTypes, mustBeAccepted] = ROLES[e.role];
  need(bodyTypes.split('|').includes(command.body.is), `${e.role}: wrong body`);
  const refusal = outcome.is === 'Refused' ? outcome.value : null;
  need(!mustBeAccepted || refusal === null, `${e.role}: not accepted`);
  return { role: e.role, id: hex(await suite.digest(message)), signer: command.signer, body: command.body.value, refusal,
    fact: refusal === null ? outcome.value : null, header, index: e.index };
}

// ---- what each kind holds ----

async function checkIdentify(event, opened, role, { suite }) {
  const { assertion, bytes, signature } = event.body;
  const caseId = opened.id;
  const party = opened.body.parties.find((p) => p.role === role);
  need(party && party.subject === assertion.subject, 'identify: nobody in this case');
  need(assertion.case === caseId, 'identify: another case');
  need(assertion.role === role, 'identify: another role');
  const message = concat('tongban/assertion/1', u8(0), bytes);
  need(await suite.verifies(assertion.terminal, signature, message), 'identify: bad signature');
  return { assertion, assurance: `${assertion.method.is}/${assertion.level.is}` };
}

async function checkConsent(event, caseId, assertion, { suite }) {
  const { terms, bytes, signature } = event.body;
  need(terms.case === caseId, 'consent: another case');
  need(terms.subject === assertion.subject, 'consent: another subject');
  const message = concat('tongban/consent/1', u8(0), bytes);
  need(await suite.verifies(assertion.signer, signature, message), 'consent: bad signature');
}

const names = (what) => [].concat(what.value);
const sameWhat = (a, b) => a.is === b.is && names(a).join(' ') === names(b).join(' ');
const sameItem = (item, want) => ['step', 'recipient', 'holder', 'resource'].every((key) => item[key] === want[key])
  && sameWhat(item.what, want.what);

async function checkCall({ matter, case: opened, resource, identify, consent, approval, ask, answer, confirm }, _, net, log) {
  const caseId = opened.id;
  const a = ask.body;
  need(a.case === caseId, 'ask: another case');
  const want = matter.body.needs.find((n) => n.step === a.step && n.recipient === ask.signer);
  need(want, 'ask: no such need');
  const d = resource.body;
  need(d.id === want.resource && d.holder === want.holder, 'resource: another resource or holder');
  need(resource.signer === want.holder, 'resource: not signed by the holder');

  const by = want.basis.is;
  need(!!identify === (by !== 'Statutory'), 'identify: missing or out of place');
  need(!!consent === (by === 'Consent'), 'consent: missing or out of place');
  need(by === 'Statutory' ? approval || ask.refusal : !approval, 'approval: missing or out of place');
  const seen = identify ? await checkIdentify(identify, opened, want.party, net) : { assurance: '' };
  let basis = '';
  if (by === 'Consent') {
    const { terms } = consent.body;
    need(a.consent === consent.id, 'consent: not the one the ask names');
    need(terms.role === want.party, 'consent: another role');
    need(terms.items.some((item) => sameItem(item, want)), 'consent: does not cover the need');
    await checkConsent(consent, caseId, seen.assertion, net);
    basis = 'consent';
  } else if (by === 'SelfAccess') {
    basis = 'self_access';
  } else if (approval) {
    const b = approval.body;
    need(b.id === want.basis.value && approval.signer === want.holder, 'approval: another approval or signer');
    need(b.asker === ask.signer && b.resource === want.resource, 'approval: another asker or resource');
    need(b.matter === matter.body.id && names(want.what).every((name) => b.names.includes(name)), 'approval: covers something else');
    need(ask.refusal || b.expires_ms >= ask.header.time_ms, 'approval: expired');
    basis = `statutory: ${b.citation}`;
  }

  let status = ask.refusal ? `refused: ${ask.refusal}` : 'granted';
  need(!ask.refusal || (!answer && !confirm), 'ask: refused, and yet something follows');
  if (answer) {
    const { call, reply } = answer.body;
    need(call === ask.id && answer.signer === want.holder, 'answer: another call or signer');
    if (answer.refusal) status = `answer refused: ${answer.refusal}`;
    else status = reply.is === 'Declined' ? `declined: ${reply.value}` : 'answered';
  }
  if (confirm) {
    need(answer && !answer.refusal && answer.body.reply.is === 'Data', 'confirm: without an answer');
    need(confirm.body.call === ask.id && confirm.signer === ask.signer, 'confirm: another call or signer');
    status = confirm.body.dispute !== null ? 'disputed' : 'opened';
  }
  need(log.length === 0 || (answer && !answer.refusal && answer.body.reply.is === 'Data'), 'objection: without an answer');
  return { main: ask, asker: want.recipient, holder: want.holder, purpose: want.purpose.zh, basis,
    assurance: seen.assurance, step: a.step, fields: names(want.what), status,
    objections: checkObjections(log, ask.id, want, answer) };
}

// objections to values and the holder's answers to them, in the order they were made
function checkObjections(log, call, want, answer) {
  const said = [];
  let before = answer;
  for (const event of log) {
    const { name, wrong, verdict } = event.body;
    need(event.body.call === call, `${event.role}: another call`);
    need(isBefore(before, event), `${event.role}: before its cause`);
    before = event;
    const waits = said.find((s) => s.name === name && s.waits);
    if (event.role === 'objection') {
      need(event.signer === want.recipient && names(want.what).includes(name) && !waits, 'objection: another signer or value');
      said.push({ name, word: wrong.is, waits: true });
    } else {
      need(event.signer === want.holder && waits, 'reply: another signer, or to nothing');
      Object.assign(waits, { word: verdict.is, waits: false });
    }
  }
  return said.map(({ name, word }) => `${name}: ${word}`);
}

async function checkConsentKind({ case: opened, identify, consent, withdraw }, text, net) {
  const { terms } = consent.body;
  const caseId = opened.id;
  const { assertion, assurance } = await checkIdentify(identify, opened, terms.role, net);
  await checkConsent(consent, caseId, assertion, net);
  need(hex(await net.suite.hash('tongban/text/1', text)) === terms.text, 'consent: another text');
  if (withdraw) {
    need(withdraw.body.consent === consent.id, 'withdraw: another consent');
    const message = concat('tongban/withdraw/1', u8(0), unhex(net.chain, 32, 'chain'), unhex(consent.id, 32, 'consent'));
    need(await net.suite.verifies(assertion.signer, withdraw.body.signature, message), 'withdraw: bad signature');
  }
  const fields = terms.items.flatMap((item) => names(item.what)
    .map((name) => `${item.recipient} <- ${item.holder}: ${item.resource}.${name}`));
  return { main: consent, asker: consent.signer, basis: 'consent', assurance, step: terms.role, fields,
    status: withdraw ? 'withdrawn' : 'given' };
}

function checkAction({ matter, case: opened, request, report }) {
  const caseId = opened.id;
  const a = request.body;
  need(a.case === caseId, 'request: another case');
  const action = matter.body.actions.find(({ step }) => step === a.step);
  need(action, 'request: no such action');
  let status = request.refusal ? `refused: ${request.refusal}` : 'requested';
  if (report) {
    need(!request.refusal, 'request: refused, and yet something follows');
    need(report.body.action === request.id && report.signer === action.performer, 'report: another action or signer');
    status = report.body.failure !== null ? `failed: ${report.body.failure}` : 'done';
  }
  return { main: request, asker: request.signer, holder: action.performer, purpose: action.operation, step: a.step, status };
}

function checkDecision({ case: opened, decide }) {
  const caseId = opened.id;
  need(decide.body.case === caseId, 'decide: another case');
  return { main: decide, asker: decide.signer, step: decide.body.step, status: decide.body.passed ? 'passed' : 'not_passed' };
}

// the calls of a case are numbered without gaps, and the settlement says how many there were: none can be left out
function checkAccessLog({ matter, case: opened, settle }, _, net, log) {
  need(settle.body.case === opened.id && settle.signer === opened.signer, 'settle: another case or signer');
  need(settle.fact.is === 'Settled', 'settle: counts nothing');
  const { granted, refused } = settle.fact.value;
  need(log.length === granted, 'ask: a call too many, or one is missing');
  const fields = log.map((ask, i) => {
    need(ask.body.case === opened.id, 'ask: another case');
    need(ask.refusal === null && ask.fact.is === 'Granted' && ask.fact.value.case === i + 1, 'ask: missing, or out of its order');
    need(isBefore(ask, settle), 'ask: after the settlement that counts it');
    const want = matter.body.needs.find((n) => n.step === ask.body.step && n.recipient === ask.signer);
    need(want, 'ask: no such need');
    return `${ask.signer} <- ${want.holder}: ${want.resource}.${names(want.what).join(',')}`;
  });
  // a count after the end has neither step nor outcome: a subscription may bring more
  return { main: settle, asker: settle.signer, step: settle.body.step ?? '', fields,
    status: `${FINAL_OUTCOMES.includes(settle.body.outcome) ? 'complete' : 'so far'}: ${granted} granted, ${refused} refused` };
}

const isBefore = (a, b) => a.header.height < b.header.height || (a.header.height === b.header.height && a.index < b.index);

async function verify(bytes, genesis, national) {
  need(globalThis.crypto && globalThis.crypto.subtle, 'no webcrypto here (a browser offers it only in a secure context)');
  const file = readFile(bytes);
  const net = await readGenesis(genesis, national);
  need(file.chain_id === net.chain, 'receipt: another chain');
  need(file.kind === 'consent' || file.text === '', 'receipt: text out of place');

  await followRosters(file.rosters, net);

  // the sequence of roles is cheap to check, so it comes before the signatures
  const slots = [];
  let at = 0;
  for (const slot of KINDS[file.kind]) {
    const role = slot.replace(/[?*]$/, '');
    if (slot.endsWith('*')) while (role.split('|').includes(file.events[at]?.role)) slots.push(['log', file.events[at++]]);
    else if (file.events[at]?.role === role) slots.push([role, file.events[at++]]);
    else need(slot.endsWith('?'), `receipt: ${role} is missing or out of order`);
  }
  need(at === file.events.length, 'receipt: events left over');
  const [events, log] = [{}, []];
  for (const [role, e] of slots) {
    const checkedEvent = await checkEvent(e, net);
    if (role === 'log') log.push(checkedEvent);
    else events[role] = checkedEvent;
  }

  const newest = Object.values(events).concat(log).reduce((max, e) => (e.header.epoch > max ? e.header.epoch : max), 0n);
  need(net.rosters.at(-1).epoch <= newest, 'receipt: a change of the roster that no event needs');

  // what rests on another event must have been ordered after it
  for (const [first, second] of CHRONICLE) {
    const [a, b] = [events[first], events[second]];
    need(!a || !b || isBefore(a, b), `receipt: ${second} was ordered before ${first}`);
  }

  const { matter, case: opened } = events;
  need(opened.body.matter === matter.body.id && opened.body.version === matter.body.version, 'case: another matter');
  need(opened.signer === matter.signer, 'case: another signer than the matter');
  const kinds = { call: checkCall, consent: checkConsentKind, action: checkAction, decision: checkDecision,
    access_log: checkAccessLog };
  const { main, ...facts } = await kinds[file.kind](events, file.text, net, log);
  return {
    kind: file.kind, asker: '', holder: '', purpose: '', basis: '', assurance: '', matter: matter.body.id,
    case: opened.id, step: '', fields: [], status: '', objections: [], ...facts,
    height: plain(main.header.height, 'height'), time: plain(main.header.time_ms, 'time'),
  };
}
