//! Signs, seals, commits and hashes, in the suite a consortium fixed at its genesis.
//!
//! International suite: Ed25519 with ZIP 215 verification (so that a batch and a single check always agree),
//! SHA-256, and HPKE (RFC 9180: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305). All primitives are
//! libraries'; this crate only fixes domains and encodings.

mod commit;
mod hash;
mod keystore;
mod seal;
mod sign;

pub use commit::{Opening, Salt, commit};
pub use hash::{hash, keyed_hash, sha256};
pub use keystore::{KeyFileError, Keys, StorageKey, load_keys, store_keys};
pub use seal::{SealError, SealSecret, open, seal};
pub use sign::{SigningKey, signed, verify, verify_command, verify_commands};

use model::{ChainId, CommandId, Digest, Genesis, SignedCommand};

/// The chain ID of a genesis.
pub fn chain_id(genesis: &Genesis) -> ChainId {
    ChainId(sha256(&[&genesis.identity_bytes()]).0)
}

/// The ID of a command: the hash of what its signer signed. A re-encoded signature gives no second ID.
pub fn command_id(command: &SignedCommand) -> CommandId {
    CommandId(sha256(&[&SignedCommand::signing_bytes(command.suite, &command.command)]).0)
}

/// The hash of a block header: what validators finalise.
pub fn header_hash(header: &model::Header) -> Digest {
    hash("tongban/header/1", &[&model::encode(header)])
}

/// Fresh random bytes from the operating system's generator.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
    bytes
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
