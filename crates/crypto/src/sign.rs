//! Signatures. One strict decoding; for Ed25519, ZIP 215 rules, so that every node gives the same verdict, in batches or
//! not; for SM2, GM/T 0003.2 with the identifier GM/T 0009 gives for when none is agreed.

use crate::sm2_tables::Tabled;
use ed25519_zebra::{Signature, VerificationKey, VerificationKeyBytes, batch};
use model::{Command, NodeKey, PublicKey, SignedCommand, Suite};
use sm2::dsa::signature::{Signer as _, Verifier as _};
use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, OnceLock, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};
use zeroize::Zeroizing;

/// The signer's identifier in every SM2 signature (GM/T 0009-2012, 10).
const SM2_ID: &str = "1234567812345678";
/// How many SM2 keys are kept: more than any consortium has.
const SM2_KEPT: usize = 1024;
/// A key that verified so many signatures gets its tables.
const SM2_TABLED_AFTER: u32 = 8;

/// A secret signing key; wiped from memory when dropped.
#[derive(Clone)]
pub struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    Ed25519(Box<ed25519_zebra::SigningKey>),
    Sm2(Box<sm2::dsa::SigningKey>),
}

impl SigningKey {
    /// A fresh key of a suite.
    pub fn random(suite: Suite) -> Self {
        loop {
            if let Some(key) = Self::from_seed(suite, crate::random()) {
                return key;
            }
        }
    }

    /// The key of a 32-byte seed. For SM2 the seed is the secret scalar: none in about 2^32 is no key.
    pub fn from_seed(suite: Suite, seed: [u8; 32]) -> Option<Self> {
        let secret = match suite {
            Suite::International => Secret::Ed25519(Box::new(ed25519_zebra::SigningKey::from_bytes(&seed))),
            Suite::National => Secret::Sm2(Box::new(sm2::dsa::SigningKey::from_slice(SM2_ID, &seed).ok()?)),
        };
        Some(Self { seed: Zeroizing::new(seed), secret })
    }

    /// The seed, for the key store.
    pub fn seed(&self) -> [u8; 32] {
        *self.seed
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        match &self.secret {
            Secret::Ed25519(key) => PublicKey::Ed25519(VerificationKeyBytes::from(&**key).into()),
            Secret::Sm2(key) => PublicKey::Sm2(compressed(&key.verifying_key().into())),
        }
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        match &self.secret {
            Secret::Ed25519(key) => key.sign(message).to_bytes(),
            Secret::Sm2(key) => key.sign(message).to_bytes().into(),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({:?})", self.public())
    }
}

/// The compressed form of an SM2 point (SEC 1, 2.3.3).
pub(crate) fn compressed(key: &sm2::PublicKey) -> [u8; 33] {
    use sm2::elliptic_curve::sec1::ToSec1Point as _;
    key.to_sec1_point(true).as_bytes().try_into().expect("a compressed point has 33 bytes")
}

/// A key that was seen before. Decompressing its point costs a square root, tables of its multiples as much as two
/// verifications and 48 KB: a department's keys verify thousands of signatures, a citizen's one or two.
struct Sm2Key {
    key: sm2::dsa::VerifyingKey,
    uses: AtomicU32,
    tabled: OnceLock<Tabled>,
}

impl Sm2Key {
    fn verify(&self, message: &[u8], signature: &sm2::dsa::Signature) -> bool {
        if self.uses.fetch_add(1, Ordering::Relaxed) < SM2_TABLED_AFTER {
            return self.key.verify(message, signature).is_ok();
        }
        self.tabled.get_or_init(|| Tabled::new(SM2_ID, &(&self.key).into())).verify(message, signature)
    }
}

fn sm2_key(bytes: &[u8; 33]) -> Option<Arc<Sm2Key>> {
    static KEPT: LazyLock<RwLock<HashMap<[u8; 33], Arc<Sm2Key>>>> = LazyLock::new(RwLock::default);
    if let Some(key) = KEPT.read().expect("no holder panics").get(bytes) {
        return Some(key.clone());
    }
    let key = sm2::dsa::VerifyingKey::from_sec1_bytes(SM2_ID, bytes).ok()?;
    let key = Arc::new(Sm2Key { key, uses: AtomicU32::new(0), tabled: OnceLock::new() });
    let mut kept = KEPT.write().expect("no holder panics");
    if kept.len() < SM2_KEPT {
        kept.insert(*bytes, key.clone());
    }
    Some(key)
}

/// Whether `signature` is `key`'s over `message`.
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
    match key {
        PublicKey::Ed25519(bytes) => VerificationKey::try_from(*bytes)
            .is_ok_and(|k| k.verify(&Signature::from_bytes(signature), message).is_ok()),
        PublicKey::Sm2(bytes) => sm2::dsa::Signature::from_bytes(signature.into())
            .is_ok_and(|signature| sm2_key(bytes).is_some_and(|k| k.verify(message, &signature))),
    }
}

/// Whether a public key is one: a point of its curve, and no weak one.
pub fn is_key(key: &PublicKey) -> bool {
    match key {
        PublicKey::Ed25519(bytes) => is_node_key(&NodeKey(*bytes)),
        PublicKey::Sm2(bytes) => matches!(bytes[0], 2 | 3) && sm2_key(bytes).is_some(),
    }
}

/// Whether a node key is one.
pub fn is_node_key(key: &NodeKey) -> bool {
    // a point of small order passes for anybody's: all signatures of zeros verify under it
    let weak = verify(&PublicKey::Ed25519(key.0), b"", &small_order_signature());
    VerificationKey::try_from(key.0).is_ok() && !weak
}

/// `R` the neutral element, `s` zero: verifies, with the cofactor, under keys of small order only.
fn small_order_signature() -> [u8; 64] {
    let mut signature = [0; 64];
    signature[0] = 1;
    signature
}

/// Whether each signature is its key's over its message. Ed25519 signatures are checked in one batch, and one by one only
/// where that fails; the verdicts are those of [`verify`].
pub fn verify_all(items: &[(PublicKey, &[u8], &[u8; 64])]) -> Vec<bool> {
    let mut verifier = batch::Verifier::new();
    let mut all = true;
    for (key, message, signature) in items {
        match key {
            PublicKey::Ed25519(bytes) => {
                let signature = Signature::from_bytes(signature);
                verifier.queue((VerificationKeyBytes::from(*bytes), signature, *message));
            }
            PublicKey::Sm2(_) => all = false,
        }
    }
    if all && verifier.verify(rand::rng()).is_ok() {
        return vec![true; items.len()];
    }
    items.iter().map(|(key, message, signature)| verify(key, message, signature)).collect()
}

/// Signs a command, in the suite of the key.
pub fn signed(key: &SigningKey, command: Command) -> SignedCommand {
    let suite = key.public().suite();
    let signature = key.sign(&SignedCommand::signing_bytes(suite, &command));
    SignedCommand { suite, command, signature }
}

/// Whether a command carries its signer's signature.
pub fn verify_command(key: &PublicKey, command: &SignedCommand) -> bool {
    key.suite() == command.suite
        && verify(key, &SignedCommand::signing_bytes(command.suite, &command.command), &command.signature)
}

/// Checks many commands at once. The verdicts are those of [`verify_command`].
pub fn verify_commands(items: &[(PublicKey, &SignedCommand)]) -> Vec<bool> {
    let messages: Vec<_> =
        items.iter().map(|(_, c)| SignedCommand::signing_bytes(c.suite, &c.command)).collect();
    let signed: Vec<_> =
        items.iter().zip(&messages).map(|((key, c), m)| (*key, &m[..], &c.signature)).collect();
    let verdicts = verify_all(&signed).into_iter().zip(items);
    verdicts.map(|(good, (key, command))| good && key.suite() == command.suite).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_over_the_right_message_verifies_in_either_suite_alone_and_among_others() {
        for suite in [Suite::International, Suite::National] {
            let (a, b) = (SigningKey::random(suite), SigningKey::random(suite));
            assert_eq!(SigningKey::from_seed(suite, a.seed()).unwrap().public(), a.public());
            let signature = a.sign(b"message");
            assert!(verify(&a.public(), b"message", &signature));
            assert!(!verify(&b.public(), b"message", &signature));
            assert!(!verify(&a.public(), b"messagf", &signature));
            for i in 0..64 {
                let mut changed = signature;
                changed[i] ^= 1;
                assert!(!verify(&a.public(), b"message", &changed), "byte {i}");
            }
            let other = b.sign(b"other");
            let items = [
                (a.public(), &b"message"[..], &signature),
                (b.public(), b"message", &other),
                (b.public(), b"other", &other),
            ];
            assert_eq!(verify_all(&items), [true, false, true]);
        }
    }

    #[test]
    fn no_signature_of_one_suite_passes_in_the_other() {
        let seed = [5; 32];
        let international = SigningKey::from_seed(Suite::International, seed).unwrap();
        let national = SigningKey::from_seed(Suite::National, seed).unwrap();
        assert!(!verify(&national.public(), b"m", &international.sign(b"m")));
        assert!(!verify(&international.public(), b"m", &national.sign(b"m")));
    }

    #[test]
    fn keys_that_are_no_points_and_zeros_are_refused() {
        assert!(!verify(&PublicKey::Sm2([2; 33]), b"m", &[1; 64]) || sm2_key(&[2; 33]).is_some());
        assert!(!verify(&PublicKey::Sm2([0; 33]), b"m", &[0; 64]));
        assert!(!verify(&PublicKey::Sm2([0xff; 33]), b"m", &[1; 64]));
        assert!(SigningKey::from_seed(Suite::National, [0; 32]).is_none());
        assert!(SigningKey::from_seed(Suite::National, [0xff; 32]).is_none());
        for suite in [Suite::International, Suite::National] {
            assert!(is_key(&SigningKey::random(suite).public()));
        }
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert!(!is_node_key(&NodeKey(neutral)) && !is_node_key(&NodeKey([0; 32])));
        assert!(!is_key(&PublicKey::Sm2([2; 33])) || sm2_key(&[2; 33]).is_some());
        assert!(!is_key(&PublicKey::Sm2([0; 33])));
        let points = (0..64).filter(|i| is_node_key(&NodeKey([*i; 32]))).count();
        assert!((10..54).contains(&points), "about half of all strings are no points: {points}");
    }
}
