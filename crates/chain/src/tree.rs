//! The hash of the state's tree, as the consortium's suite says. Digests of both suites have 32 bytes, and travel through the
//! engine in the same type.

use crate::block::{D, engine_digest};
use commonware_cryptography::{Hasher, Sha256};
use commonware_parallel::Strategy;
use sm3::Digest as _;

/// A hash the engine can build trees with.
pub(crate) trait TreeHash: Hasher<Digest = D> {}

impl TreeHash for Sha256 {}
impl TreeHash for Sm3 {}

/// SM3 (GM/T 0004).
#[derive(Default)]
pub(crate) struct Sm3(sm3::Sm3);

impl Hasher for Sm3 {
    type Digest = D;

    fn hash(parts: &[&[u8]]) -> D {
        engine_digest(&crypto::digest(model::Suite::National, parts))
    }

    fn hash_pair(left: &[&[u8]], right: &[&[u8]], _: &impl Strategy) -> (D, D) {
        (Self::hash(left), Self::hash(right))
    }

    fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    fn finalize(mut self) -> (Self, D) {
        let digest: [u8; 32] = self.0.finalize_reset().into();
        (self, engine_digest(&model::Digest(digest)))
    }
}
