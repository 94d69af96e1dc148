//! Hashes with a domain, so that no value of one kind can pass for another: SHA-256 or SM3, as the suite says.

use hmac::{Hmac, KeyInit, Mac};
use model::{Digest, Suite, merkle};
use sha2::Sha256;
use sm3::Sm3;

/// The hash over the concatenation of the parts, without a domain. For trees, whose nodes carry prefixes.
pub fn digest(suite: Suite, parts: &[&[u8]]) -> Digest {
    match suite {
        Suite::International => concatenated::<Sha256>(&[], parts),
        Suite::National => concatenated::<Sm3>(&[], parts),
    }
}

/// The hash over the domain, a zero byte and the concatenation of the parts.
pub fn hash(suite: Suite, domain: &str, parts: &[&[u8]]) -> Digest {
    match suite {
        Suite::International => concatenated::<Sha256>(&[domain.as_bytes(), &[0]], parts),
        Suite::National => concatenated::<Sm3>(&[domain.as_bytes(), &[0]], parts),
    }
}

fn concatenated<H: sha2::Digest>(domain: &[&[u8]], parts: &[&[u8]]) -> Digest
where
    [u8; 32]: From<sha2::digest::Output<H>>,
{
    let mut h = H::new();
    for part in domain.iter().chain(parts) {
        h.update(part);
    }
    Digest(h.finalize().into())
}

/// The hash of trees.
pub fn tree(suite: Suite) -> merkle::Hash {
    match suite {
        Suite::International => |parts| digest(Suite::International, parts),
        Suite::National => |parts| digest(Suite::National, parts),
    }
}

/// HMAC under a secret key: a hash that only the key's holder can compute.
pub fn keyed_hash(suite: Suite, key: &[u8; 32], domain: &str, message: &[u8]) -> Digest {
    match suite {
        Suite::International => keyed::<Hmac<Sha256>>(key, domain, message),
        Suite::National => keyed::<Hmac<Sm3>>(key, domain, message),
    }
}

fn keyed<M: Mac + KeyInit>(key: &[u8; 32], domain: &str, message: &[u8]) -> Digest {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("hmac takes keys of any length");
    mac.update(domain.as_bytes());
    mac.update(&[0]);
    mac.update(message);
    Digest(mac.finalize().into_bytes()[..].try_into().expect("both suites hash to 32 bytes"))
}
