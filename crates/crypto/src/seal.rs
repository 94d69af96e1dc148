//! Sealing to a recipient with HPKE (RFC 9180, base mode), and encryption at rest.

use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::X25519HkdfSha256 as Kem,
};
use model::SealKey;

/// The secret half of a seal key.
#[derive(Clone)]
pub struct SealSecret([u8; 32]);

impl SealSecret {
    /// A fresh key.
    pub fn random() -> Self {
        Self::from_seed(crate::random())
    }

    /// The key of a 32-byte seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// The seed, for the key store.
    pub fn seed(&self) -> [u8; 32] {
        self.0
    }

    /// The public half.
    pub fn public(&self) -> SealKey {
        let (_, public) = Kem::derive_keypair(&self.0);
        SealKey(public.to_bytes().into())
    }
}

/// Why a sealed message does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The recipient's key is not a valid public key.
    #[error("the recipient's seal key is not valid")]
    Key,
    /// It was sealed to another key, for another context, or was changed on the way.
    #[error("the sealed message does not open: wrong recipient, wrong context, or changed on the way")]
    Open,
}

/// Seals `message` to `recipient`, bound to `context` (call, purpose, recipient).
/// The result is the 32-byte encapsulated key followed by the ciphertext.
pub fn seal(recipient: &SealKey, context: &[u8], message: &[u8]) -> Result<Vec<u8>, SealError> {
    let public = <Kem as hpke::Kem>::PublicKey::from_bytes(&recipient.0).map_err(|_| SealError::Key)?;
    let (key, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeS::Base,
        &public,
        b"tongban/seal/1",
        message,
        context,
        &mut rand::rng(),
    )
    .map_err(|_| SealError::Key)?;
    Ok([&key.to_bytes()[..], &ciphertext].concat())
}

/// Opens what [`seal`] made for this key and context.
pub fn open(secret: &SealSecret, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (key, ciphertext) = sealed.split_at_checked(32).ok_or(SealError::Open)?;
    let key = <Kem as hpke::Kem>::EncappedKey::from_bytes(key).map_err(|_| SealError::Open)?;
    let (private, _) = Kem::derive_keypair(&secret.0);
    hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeR::Base,
        &private,
        &key,
        b"tongban/seal/1",
        ciphertext,
        context,
    )
    .map_err(|_| SealError::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_for_its_recipient_and_context_and_unchanged() {
        let (a, b) = (SealSecret::random(), SealSecret::random());
        let sealed = seal(&a.public(), b"call 1", b"payload").unwrap();
        assert_eq!(open(&a, b"call 1", &sealed).unwrap(), b"payload");
        assert_eq!(open(&b, b"call 1", &sealed), Err(SealError::Open));
        assert_eq!(open(&a, b"call 2", &sealed), Err(SealError::Open));
        for i in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[i] ^= 1;
            assert!(open(&a, b"call 1", &changed).is_err(), "byte {i}");
        }
        assert_eq!(open(&a, b"call 1", &sealed[..31]), Err(SealError::Open));
    }
}
