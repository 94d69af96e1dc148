//! Hashes with a domain, so that no value of one kind can pass for another.

use hmac::{Hmac, KeyInit, Mac};
use model::Digest;
use sha2::{Digest as _, Sha256};

/// SHA-256 over the concatenation of the parts, without a domain. For trees, whose nodes carry prefixes.
pub fn sha256(parts: &[&[u8]]) -> Digest {
    let mut h = Sha256::new();
    for part in parts {
        h.update(part);
    }
    Digest(h.finalize().into())
}

/// SHA-256 over the domain, a zero byte and the concatenation of the parts.
pub fn hash(domain: &str, parts: &[&[u8]]) -> Digest {
    let mut h = Sha256::new();
    h.update(domain.as_bytes());
    h.update([0]);
    for part in parts {
        h.update(part);
    }
    Digest(h.finalize().into())
}

/// HMAC-SHA-256 under a secret key: a hash that only the key's holder can compute.
pub fn keyed_hash(key: &[u8; 32], domain: &str, message: &[u8]) -> Digest {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("hmac takes keys of any length");
    mac.update(domain.as_bytes());
    mac.update(&[0]);
    mac.update(message);
    Digest(mac.finalize().into_bytes().into())
}
