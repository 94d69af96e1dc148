//! Signs, seals, commits and hashes, in the suite a consortium fixed at its genesis.
//!
//! International suite: Ed25519 with ZIP 215 verification (so that a batch and a single check always agree),
//! SHA-256, and HPKE (RFC 9180: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305), AES-256-GCM at rest.
//! National suite: SM2 signatures and envelopes, SM3, SM4-GCM. All primitives are libraries'; this crate only fixes domains
//! and encodings.

mod commit;
mod credentials;
mod hash;
mod keystore;
mod seal;
mod sign;
mod sm2_tables;
#[cfg(test)]
mod vectors;

pub use commit::{Opening, Salt, commit};
pub use credentials::Credentials;
pub use hash::{digest, hash, keyed_hash, tree};
pub use keystore::{
    KeptPassphrase, KeyFileError, Keys, StorageKey, VoteKeyFolder, VoteKeys, load_keys, load_officer,
    load_secret, store_keys, store_officer, store_secret,
};
pub use seal::{SealError, SealSecret, is_seal_key, open, seal};
pub use sign::{
    SigningKey, is_key, is_node_key, signed, verify, verify_all, verify_command, verify_commands,
};

use model::{ChainId, CommandId, Digest, Genesis, Roster, SignedCommand, Suite};

/// The chain ID of a genesis.
pub fn chain_id(genesis: &Genesis) -> ChainId {
    ChainId(digest(genesis.suite, &[&genesis.identity_bytes()]).0)
}

/// The ID of a command: the hash of what its signer signed. A re-encoded signature gives no second ID.
pub fn command_id(command: &SignedCommand) -> CommandId {
    CommandId(digest(command.suite, &[&SignedCommand::signing_bytes(command.suite, &command.command)]).0)
}

/// The hash of a block header: what validators finalise.
pub fn header_hash(suite: Suite, header: &model::Header) -> Digest {
    hash(suite, "tongban/header/1", &[&model::encode(header)])
}

/// The hash of a roster, as headers name it.
pub fn roster_hash(suite: Suite, roster: &Roster) -> Digest {
    hash(suite, "tongban/roster/1", &[&model::encode(roster)])
}

/// Whether every key of a department's entry is a key; says which is not.
pub fn check_keys(member: &model::Member) -> Result<(), String> {
    let officers = &member.officers;
    let keys = [
        ("command", is_key(&member.command_key)),
        ("vote", is_key(&member.vote_key)),
        ("system officer's", is_key(&officers.system)),
        ("security officer's", is_key(&officers.security)),
        ("node", is_node_key(&member.node_key)),
        ("seal", is_seal_key(&member.seal_key)),
    ];
    match keys.iter().find(|(_, good)| !good) {
        Some((name, _)) => Err(format!("the {name} key of {} is no key", member.id)),
        None => Ok(()),
    }
}

/// The hash of an epoch's end, as the last header of the epoch names it.
pub fn epoch_end_hash(suite: Suite, roster: &Digest, blocks: &Digest, past: &Digest) -> Digest {
    hash(suite, "tongban/epoch-end/1", &[&roster.0, &blocks.0, &past.0])
}

/// A header's hash as a leaf of the trees over past headers.
pub fn header_leaf(suite: Suite, header: &Digest) -> Digest {
    model::merkle::leaf(tree(suite), &header.0)
}

/// Fresh random bytes from the operating system's generator.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[cfg(feature = "sim")]
    if seeded::fill(&mut bytes) {
        return bytes;
    }
    rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
    bytes
}

/// Chance from a seed, for the simulation only: the shipped program is built without it.
#[cfg(feature = "sim")]
pub mod seeded {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha20Rng;
    use std::cell::RefCell;

    thread_local!(static SEEDED: RefCell<Option<ChaCha20Rng>> = const { RefCell::new(None) });

    /// From here on [`crate::random`] on this thread follows a seed (or no longer does).
    pub fn this_thread(seed: Option<[u8; 32]>) {
        SEEDED.with(|rng| *rng.borrow_mut() = seed.map(ChaCha20Rng::from_seed));
    }

    pub(crate) fn fill(bytes: &mut [u8]) -> bool {
        SEEDED.with(|rng| rng.borrow_mut().as_mut().map(|rng| rng.fill_bytes(bytes)).is_some())
    }
}

/// What a validator signs to finalise a block: the engine's finalize vote over the block's header hash.
///
/// `LEB128(len(ns)) ns LEB128(epoch) LEB128(view) LEB128(parent_view) header_hash` with
/// `ns = vote_namespace(chain) "_FINALIZE"`.
pub fn finalize_message(
    chain: &ChainId,
    epoch: u64,
    view: u64,
    parent_view: u64,
    header: &Digest,
) -> Vec<u8> {
    let namespace = [&vote_namespace(chain)[..], b"_FINALIZE"].concat();
    let mut message = Vec::with_capacity(namespace.len() + 64);
    leb128(&mut message, namespace.len() as u64);
    message.extend_from_slice(&namespace);
    leb128(&mut message, epoch);
    leb128(&mut message, view);
    leb128(&mut message, parent_view);
    message.extend_from_slice(&header.0);
    message
}

/// The namespace of all consensus votes of one ledger.
pub fn vote_namespace(chain: &ChainId) -> Vec<u8> {
    [b"tongban/vote/1/".as_slice(), &chain.0].concat()
}

fn leb128(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
