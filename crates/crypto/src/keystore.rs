//! The key file of a department: encrypted with a passphrase (Argon2id, AES-256-GCM); and encryption at rest.

use crate::{SealSecret, SigningKey, random};
use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use borsh::{BorshDeserialize, BorshSerialize};
use std::{io::Write, path::Path};

/// A department's secret keys.
#[derive(Clone)]
pub struct Keys {
    /// Signs commands.
    pub command: SigningKey,
    /// Opens what is sealed to the department.
    pub seal: SealSecret,
    /// Identifies the node and votes.
    pub node: SigningKey,
    /// Encrypts the vault.
    pub storage: StorageKey,
}

impl Keys {
    /// Fresh keys.
    pub fn random() -> Self {
        Self {
            command: SigningKey::random(),
            seal: SealSecret::random(),
            node: SigningKey::random(),
            storage: StorageKey(random()),
        }
    }
}

/// A symmetric key for data at rest.
#[derive(Clone)]
pub struct StorageKey(pub [u8; 32]);

impl StorageKey {
    /// Encrypts a value bound to where it is kept. The result is a 12-byte nonce followed by the ciphertext.
    pub fn encrypt(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; 12] = random();
        let cipher = Aes256Gcm::new(&self.0.into());
        let sealed = cipher
            .encrypt(&nonce.into(), Payload { msg: plain, aad: place })
            .expect("a value of this length can be encrypted");
        [&nonce[..], &sealed].concat()
    }

    /// Decrypts what [`Self::encrypt`] made for this place; `None` where it was changed or moved.
    pub fn decrypt(&self, place: &[u8], stored: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = stored.split_at_checked(12)?;
        let nonce: [u8; 12] = nonce.try_into().ok()?;
        Aes256Gcm::new(&self.0.into()).decrypt(&nonce.into(), Payload { msg: sealed, aad: place }).ok()
    }
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The passphrase is wrong, or the file was changed.
    #[error("key file {0} does not open: wrong passphrase, or the file was changed")]
    Locked(String),
}

#[derive(BorshSerialize, BorshDeserialize)]
struct KeyFile {
    magic: [u8; 8],
    memory_kib: u32,
    passes: u32,
    salt: [u8; 16],
    sealed: Vec<u8>,
}

const MAGIC: [u8; 8] = *b"tongkey1";

fn derive(passphrase: &str, salt: &[u8; 16], memory_kib: u32, passes: u32) -> Option<StorageKey> {
    let params = argon2::Params::new(memory_kib, passes, 1, Some(32)).ok()?;
    let mut key = [0; 32];
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut key)
        .ok()?;
    Some(StorageKey(key))
}

/// Writes keys to a new file that only its owner may read.
pub fn store_keys(path: &Path, passphrase: &str, keys: &Keys) -> Result<(), KeyFileError> {
    let salt = random();
    let (memory_kib, passes) = (19 * 1024, 2); // OWASP's minimum for Argon2id
    let key = derive(passphrase, &salt, memory_kib, passes).expect("the parameters are valid");
    let plain = [keys.command.seed(), keys.seal.seed(), keys.node.seed(), keys.storage.0].concat();
    let file = KeyFile { magic: MAGIC, memory_kib, passes, salt, sealed: key.encrypt(&MAGIC, &plain) };
    let io = |source| KeyFileError::Io { path: path.display().to_string(), source };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(path).map_err(io)?;
    out.write_all(&borsh::to_vec(&file).expect("encoding into memory cannot fail")).map_err(io)?;
    out.sync_all().map_err(io)
}

/// Reads a key file.
pub fn load_keys(path: &Path, passphrase: &str) -> Result<Keys, KeyFileError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| KeyFileError::Io { path: name.clone(), source })?;
    let locked = || KeyFileError::Locked(name.clone());
    let file: KeyFile = borsh::from_slice(&bytes).map_err(|_| locked())?;
    if file.magic != MAGIC || file.memory_kib > 1 << 20 || file.passes > 16 {
        return Err(locked());
    }
    let key = derive(passphrase, &file.salt, file.memory_kib, file.passes).ok_or_else(locked)?;
    let plain = key.decrypt(&MAGIC, &file.sealed).ok_or_else(locked)?;
    let seeds: Vec<[u8; 32]> = plain.chunks_exact(32).map(|c| c.try_into().expect("chunks of 32")).collect();
    let [command, seal, node, storage] = seeds[..] else { return Err(locked()) };
    Ok(Keys {
        command: SigningKey::from_seed(command),
        seal: SealSecret::from_seed(seal),
        node: SigningKey::from_seed(node),
        storage: StorageKey(storage),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_opens_with_its_passphrase_only_and_holds_no_plain_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let keys = Keys::random();
        store_keys(&path, "correct horse", &keys).unwrap();
        let back = load_keys(&path, "correct horse").unwrap();
        assert_eq!(back.command.seed(), keys.command.seed());
        assert_eq!(back.storage.0, keys.storage.0);
        assert!(matches!(load_keys(&path, "wrong"), Err(KeyFileError::Locked(_))));
        assert!(store_keys(&path, "again", &keys).is_err(), "an existing key file is never overwritten");
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(32).any(|w| w == keys.command.seed() || w == keys.node.seed()));
    }
}
