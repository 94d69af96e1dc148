//! Sealing to a recipient. International suite: HPKE (RFC 9180, base mode). National suite: a digital envelope, a fresh SM4
//! key encrypted with SM2 (GM/T 0003.4, C1 C3 C2) and the message with SM4-GCM (RFC 8998) under that key.

use crate::sign::compressed;
use aes_gcm::{
    AesGcm, KeyInit,
    aead::{Aead, Payload, consts::U12},
};
use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::X25519HkdfSha256 as Kem,
};
use model::{SealKey, Suite};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

/// SM4 in Galois/Counter mode with nonces of 12 bytes and tags of 16.
pub(crate) type Sm4Gcm = AesGcm<sm4::Sm4, U12>;

/// An SM2 ciphertext of a 16-byte key: an uncompressed point, a hash, the encrypted key.
const ENVELOPE_BYTES: usize = 65 + 32 + 16;

/// The secret half of a seal key.
#[derive(Clone)]
pub struct SealSecret {
    suite: Suite,
    seed: Zeroizing<[u8; 32]>,
}

impl SealSecret {
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
        let key = Self { suite, seed: Zeroizing::new(seed) };
        (suite == Suite::International || key.sm2().is_some()).then_some(key)
    }

    /// The seed, for the key store.
    pub fn seed(&self) -> [u8; 32] {
        *self.seed
    }

    /// Its suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    fn sm2(&self) -> Option<sm2::SecretKey> {
        sm2::SecretKey::from_slice(&self.seed[..]).ok()
    }

    /// The public half.
    pub fn public(&self) -> SealKey {
        match self.suite {
            Suite::International => SealKey::X25519(Kem::derive_keypair(&self.seed[..]).1.to_bytes().into()),
            Suite::National => SealKey::Sm2(compressed(&self.sm2().expect("checked when made").public_key())),
        }
    }
}

/// Whether a seal key is one: something can be sealed to it.
pub fn is_seal_key(key: &SealKey) -> bool {
    match key {
        SealKey::X25519(_) => seal(key, b"", b"tried").is_ok(),
        SealKey::Sm2(bytes) => sm2::PublicKey::from_sec1_bytes(bytes).is_ok(),
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

fn chance() -> ChaCha20Rng {
    ChaCha20Rng::from_seed(crate::random())
}

/// Seals `message` to `recipient`, bound to `context` (call, purpose, recipient). The result is, for X25519, the 32-byte
/// encapsulated key; for SM2, the 113-byte encrypted SM4 key and a 12-byte nonce; then the ciphertext with its tag.
pub fn seal(recipient: &SealKey, context: &[u8], message: &[u8]) -> Result<Vec<u8>, SealError> {
    match recipient {
        SealKey::X25519(bytes) => {
            let public = <Kem as hpke::Kem>::PublicKey::from_bytes(bytes).map_err(|_| SealError::Key)?;
            let (key, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
                &OpModeS::Base,
                &public,
                b"tongban/seal/1",
                message,
                context,
                &mut chance(),
            )
            .map_err(|_| SealError::Key)?;
            Ok([&key.to_bytes()[..], &ciphertext].concat())
        }
        SealKey::Sm2(bytes) => {
            let public = sm2::pke::EncryptingKey::from_sec1_bytes(bytes).map_err(|_| SealError::Key)?;
            let key: Zeroizing<[u8; 16]> = Zeroizing::new(crate::random());
            let envelope = public.encrypt(&mut chance(), &key[..]).map_err(|_| SealError::Key)?;
            let nonce: [u8; 12] = crate::random();
            let payload = Payload { msg: message, aad: &national_context(context) };
            let ciphertext =
                Sm4Gcm::new(&(*key).into()).encrypt(&nonce.into(), payload).map_err(|_| SealError::Key)?;
            Ok([&envelope[..], &nonce, &ciphertext].concat())
        }
    }
}

fn national_context(context: &[u8]) -> Vec<u8> {
    [b"tongban/seal/1\0", context].concat()
}

/// Opens what [`seal`] made for this key and context.
pub fn open(secret: &SealSecret, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    match secret.suite {
        Suite::International => {
            let (key, ciphertext) = sealed.split_at_checked(32).ok_or(SealError::Open)?;
            let key = <Kem as hpke::Kem>::EncappedKey::from_bytes(key).map_err(|_| SealError::Open)?;
            let (private, _) = Kem::derive_keypair(&secret.seed[..]);
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
        Suite::National => {
            let (envelope, rest) = sealed.split_at_checked(ENVELOPE_BYTES).ok_or(SealError::Open)?;
            let (nonce, ciphertext) = rest.split_first_chunk::<12>().ok_or(SealError::Open)?;
            // one point, one encoding: what opens has the bytes it was sealed with
            if envelope[0] != 4 {
                return Err(SealError::Open);
            }
            let private = sm2::pke::DecryptingKey::new(secret.sm2().expect("checked when made"));
            let key = Zeroizing::new(private.decrypt(envelope).map_err(|_| SealError::Open)?);
            let key: [u8; 16] = key[..].try_into().map_err(|_| SealError::Open)?;
            let payload = Payload { msg: ciphertext, aad: &national_context(context) };
            Sm4Gcm::new(&key.into()).decrypt(nonce.into(), payload).map_err(|_| SealError::Open)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_for_its_recipient_and_context_and_unchanged() {
        for suite in [Suite::International, Suite::National] {
            let (a, b) = (SealSecret::random(suite), SealSecret::random(suite));
            let sealed = seal(&a.public(), b"call 1", b"payload").unwrap();
            assert_eq!(open(&a, b"call 1", &sealed).unwrap(), b"payload");
            assert_eq!(open(&b, b"call 1", &sealed), Err(SealError::Open));
            assert_eq!(open(&a, b"call 2", &sealed), Err(SealError::Open));
            for i in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[i] ^= 1;
                assert!(open(&a, b"call 1", &changed).is_err(), "byte {i}");
            }
            for length in [0, 31, 60, 113, 120] {
                assert_eq!(
                    open(&a, b"call 1", &sealed[..length.min(sealed.len() - 1)]),
                    Err(SealError::Open)
                );
            }
        }
    }
}
