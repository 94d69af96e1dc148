//! Key files, encrypted with a passphrase (Argon2id; AES-256-GCM, or SM4-GCM in the national suite); encryption at rest; and
//! the vote keys of a validator, which come and go.

use crate::{SealSecret, SigningKey, digest, random, seal::Sm4Gcm};
use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use borsh::{BorshDeserialize, BorshSerialize};
use model::{NodeKey, PublicKey, Suite};
use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// A department's secret keys.
#[derive(Clone)]
pub struct Keys {
    /// Signs commands.
    pub command: SigningKey,
    /// Opens what is sealed to the department.
    pub seal: SealSecret,
    /// Identifies the node to the others; Ed25519 in either suite.
    pub node: SigningKey,
    /// Encrypts what is kept.
    pub storage: StorageKey,
}

impl Keys {
    /// Fresh keys of a suite.
    pub fn random(suite: Suite) -> Self {
        Self {
            command: SigningKey::random(suite),
            seal: SealSecret::random(suite),
            node: SigningKey::random(Suite::International),
            storage: StorageKey::new(suite, random()),
        }
    }

    /// The public key of the node.
    pub fn node_key(&self) -> NodeKey {
        match self.node.public() {
            PublicKey::Ed25519(bytes) => NodeKey(bytes),
            PublicKey::Sm2(_) => unreachable!("a node key is Ed25519 in either suite"),
        }
    }
}

/// A symmetric key for data at rest.
#[derive(Clone)]
pub struct StorageKey {
    suite: Suite,
    key: Zeroizing<[u8; 32]>,
}

impl StorageKey {
    /// The key of 32 bytes. SM4 takes the first 16.
    pub fn new(suite: Suite, key: [u8; 32]) -> Self {
        Self { suite, key: Zeroizing::new(key) }
    }

    /// The bytes, for the key store and for keyed hashes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.key
    }

    /// Encrypts a value bound to where it is kept. The result is a 12-byte nonce followed by the ciphertext.
    pub fn encrypt(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; 12] = random();
        let payload = Payload { msg: plain, aad: place };
        let sealed = match self.suite {
            Suite::International => Aes256Gcm::new(&(*self.key).into()).encrypt(&nonce.into(), payload),
            Suite::National => Sm4Gcm::new(&self.short().into()).encrypt(&nonce.into(), payload),
        };
        [&nonce[..], &sealed.expect("a value of this length can be encrypted")].concat()
    }

    /// Decrypts what [`Self::encrypt`] made for this place; `None` where it was changed or moved.
    pub fn decrypt(&self, place: &[u8], stored: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = stored.split_first_chunk::<12>()?;
        let payload = Payload { msg: sealed, aad: place };
        match self.suite {
            Suite::International => Aes256Gcm::new(&(*self.key).into()).decrypt(nonce.into(), payload).ok(),
            Suite::National => Sm4Gcm::new(&self.short().into()).decrypt(nonce.into(), payload).ok(),
        }
    }

    fn short(&self) -> [u8; 16] {
        self.key[..16].try_into().expect("half of 32")
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
    suite: Suite,
    memory_kib: u32,
    passes: u32,
    salt: [u8; 16],
    sealed: Vec<u8>,
}

const MAGIC: [u8; 8] = *b"tongkey2";
/// KiB of memory, and passes: OWASP's minimum for Argon2id.
const COST: (u32, u32) = (19 * 1024, 2);

fn derive(
    suite: Suite,
    passphrase: &str,
    salt: &[u8; 16],
    memory_kib: u32,
    passes: u32,
) -> Option<StorageKey> {
    let params = argon2::Params::new(memory_kib, passes, 1, Some(32)).ok()?;
    let mut key = [0; 32];
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut key)
        .ok()?;
    Some(StorageKey::new(suite, key))
}

/// A passphrase as it is kept to be compared with: Argon2id (RFC 9106) under a salt of its own.
#[derive(Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct KeptPassphrase {
    memory_kib: u32,
    passes: u32,
    salt: [u8; 16],
    hash: [u8; 32],
}

impl KeptPassphrase {
    /// Takes 19 MiB and tens of milliseconds.
    pub fn of(passphrase: &str) -> Self {
        let (memory_kib, passes) = COST;
        let mut kept = Self { memory_kib, passes, salt: random(), hash: [0; 32] };
        kept.hash = kept.hash_of(passphrase).expect("the parameters are valid");
        kept
    }

    /// Whether it is this passphrase; takes as long as making it.
    pub fn fits(&self, passphrase: &str) -> bool {
        self.hash_of(passphrase) == Some(self.hash)
    }

    /// Hashed once more, so that the time a comparison takes says nothing of the key.
    fn hash_of(&self, passphrase: &str) -> Option<[u8; 32]> {
        let key = derive(Suite::International, passphrase, &self.salt, self.memory_kib, self.passes)?;
        Some(digest(Suite::International, &[key.bytes()]).0)
    }
}

fn create(path: &Path) -> Result<File, std::io::Error> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes secrets to a new file that only its owner may read.
fn store(path: &Path, passphrase: &str, suite: Suite, seeds: &[[u8; 32]]) -> Result<(), KeyFileError> {
    let salt = random();
    let (memory_kib, passes) = COST;
    let key = derive(suite, passphrase, &salt, memory_kib, passes).expect("the parameters are valid");
    let sealed = key.encrypt(&MAGIC, &Zeroizing::new(seeds.concat()));
    let file = KeyFile { magic: MAGIC, suite, memory_kib, passes, salt, sealed };
    let io = |source| KeyFileError::Io { path: path.display().to_string(), source };
    let mut out = create(path).map_err(io)?;
    out.write_all(&borsh::to_vec(&file).expect("encoding into memory cannot fail")).map_err(io)?;
    out.sync_all().map_err(io)
}

fn load<const N: usize>(path: &Path, passphrase: &str) -> Result<(Suite, [[u8; 32]; N]), KeyFileError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| KeyFileError::Io { path: name.clone(), source })?;
    let locked = || KeyFileError::Locked(name.clone());
    let file: KeyFile = borsh::from_slice(&bytes).map_err(|_| locked())?;
    if file.magic != MAGIC || file.memory_kib > 1 << 20 || file.passes > 16 {
        return Err(locked());
    }
    let key = derive(file.suite, passphrase, &file.salt, file.memory_kib, file.passes).ok_or_else(locked)?;
    let plain = Zeroizing::new(key.decrypt(&MAGIC, &file.sealed).ok_or_else(locked)?);
    let seeds: Vec<[u8; 32]> = plain.chunks_exact(32).map(|c| c.try_into().expect("chunks of 32")).collect();
    Ok((file.suite, seeds.try_into().map_err(|_| locked())?))
}

/// Writes a department's keys to a new file.
pub fn store_keys(path: &Path, passphrase: &str, keys: &Keys) -> Result<(), KeyFileError> {
    let seeds = [keys.command.seed(), keys.seal.seed(), keys.node.seed(), *keys.storage.bytes()];
    store(path, passphrase, keys.storage.suite, &seeds)
}

/// Reads a department's keys.
pub fn load_keys(path: &Path, passphrase: &str) -> Result<Keys, KeyFileError> {
    let (suite, [command, seal, node, storage]) = load(path, passphrase)?;
    let locked = || KeyFileError::Locked(path.display().to_string());
    Ok(Keys {
        command: SigningKey::from_seed(suite, command).ok_or_else(locked)?,
        seal: SealSecret::from_seed(suite, seal).ok_or_else(locked)?,
        node: SigningKey::from_seed(Suite::International, node).ok_or_else(locked)?,
        storage: StorageKey::new(suite, storage),
    })
}

/// Writes a secret of 32 bytes to a new file.
pub fn store_secret(
    path: &Path,
    passphrase: &str,
    suite: Suite,
    secret: &[u8; 32],
) -> Result<(), KeyFileError> {
    store(path, passphrase, suite, &[*secret])
}

/// Reads a secret of 32 bytes.
pub fn load_secret(path: &Path, passphrase: &str) -> Result<[u8; 32], KeyFileError> {
    load(path, passphrase).map(|(_, [secret])| secret)
}

/// Writes an officer's key to a new file.
pub fn store_officer(path: &Path, passphrase: &str, key: &SigningKey) -> Result<(), KeyFileError> {
    store(path, passphrase, key.public().suite(), &[key.seed()])
}

/// Reads an officer's key.
pub fn load_officer(path: &Path, passphrase: &str) -> Result<SigningKey, KeyFileError> {
    let (suite, [seed]) = load(path, passphrase)?;
    SigningKey::from_seed(suite, seed).ok_or_else(|| KeyFileError::Locked(path.display().to_string()))
}

/// The vote keys of one node. A validator votes with another key every so many epochs, and destroys the old one: whoever
/// breaks in later cannot make up a past.
pub trait VoteKeys: Send + Sync {
    /// A secret key by its public half; none where this node does not have it.
    fn find(&self, public: &PublicKey) -> Option<SigningKey>;
}

/// Vote keys in a folder, one file each, encrypted under the storage key.
pub struct VoteKeyFolder {
    dir: PathBuf,
    storage: StorageKey,
}

impl VoteKeyFolder {
    /// The keys in a folder, which is made where it is missing.
    pub fn open(dir: &Path, storage: StorageKey) -> Result<Self, KeyFileError> {
        std::fs::create_dir_all(dir)
            .map_err(|source| KeyFileError::Io { path: dir.display().to_string(), source })?;
        Ok(Self { dir: dir.to_owned(), storage })
    }

    fn path(&self, public: &PublicKey) -> PathBuf {
        self.dir.join(hex::encode(public.as_bytes()))
    }

    fn io(&self, path: &Path) -> impl Fn(std::io::Error) -> KeyFileError + use<> {
        let path = path.display().to_string();
        move |source| KeyFileError::Io { path: path.clone(), source }
    }
}

impl VoteKeyFolder {
    /// Keeps a key.
    pub fn keep(&self, key: &SigningKey) -> Result<(), KeyFileError> {
        let public = key.public();
        let path = self.path(&public);
        let io = self.io(&path);
        let mut file = create(&path).map_err(&io)?;
        file.write_all(&self.storage.encrypt(public.as_bytes(), &key.seed())).map_err(&io)?;
        file.sync_all().map_err(&io)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(&io)
    }

    /// Makes and keeps a fresh key.
    pub fn fresh(&self) -> Result<SigningKey, KeyFileError> {
        let key = SigningKey::random(self.storage.suite);
        self.keep(&key)?;
        Ok(key)
    }

    /// Destroys keys, as far as they are there; says how many. A file is overwritten before it is removed. What the disk itself
    /// keeps of overwritten blocks is out of reach: they are encrypted.
    pub fn destroy(&self, these: &[PublicKey]) -> Result<usize, KeyFileError> {
        let mut destroyed = 0;
        for public in these {
            let path = self.path(public);
            let io = self.io(&path);
            let mut file = match OpenOptions::new().write(true).open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(io(e)),
            };
            let length = file.metadata().map_err(&io)?.len() as usize;
            file.write_all(&vec![0; length]).map_err(&io)?;
            file.sync_all().map_err(&io)?;
            std::fs::remove_file(&path).map_err(&io)?;
            destroyed += 1;
        }
        Ok(destroyed)
    }
}

impl VoteKeys for VoteKeyFolder {
    fn find(&self, public: &PublicKey) -> Option<SigningKey> {
        let stored = std::fs::read(self.path(public)).ok()?;
        let seed = Zeroizing::new(self.storage.decrypt(public.as_bytes(), &stored)?);
        SigningKey::from_seed(public.suite(), seed[..].try_into().ok()?).filter(|key| key.public() == *public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITES: [Suite; 2] = [Suite::International, Suite::National];

    #[test]
    fn a_key_file_opens_with_its_passphrase_only_and_holds_no_plain_key() {
        for suite in SUITES {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("keys");
            let keys = Keys::random(suite);
            store_keys(&path, "correct horse", &keys).unwrap();
            let back = load_keys(&path, "correct horse").unwrap();
            assert_eq!(back.command.public(), keys.command.public());
            assert_eq!(back.seal.public(), keys.seal.public());
            assert_eq!(back.node_key(), keys.node_key());
            assert_eq!(back.storage.bytes(), keys.storage.bytes());
            assert!(matches!(load_keys(&path, "wrong"), Err(KeyFileError::Locked(_))));
            assert!(store_keys(&path, "again", &keys).is_err(), "an existing key file is never overwritten");
            assert!(load_officer(&path, "correct horse").is_err(), "a node's keys are no officer's");
            let bytes = std::fs::read(&path).unwrap();
            for seed in [keys.command.seed(), keys.node.seed(), keys.seal.seed()] {
                assert!(!bytes.windows(32).any(|w| w == seed));
            }
            for i in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[i] ^= 1;
                std::fs::write(&path, &changed).unwrap();
                // memory and passes would cost their price; everything else is refused outright
                if !(9..17).contains(&i) {
                    assert!(load_keys(&path, "correct horse").is_err(), "byte {i}");
                }
            }
        }
    }

    #[test]
    fn an_officers_key_file_is_of_one_suite() {
        for suite in SUITES {
            let dir = tempfile::tempdir().unwrap();
            let key = SigningKey::random(suite);
            store_officer(&dir.path().join("system"), "p", &key).unwrap();
            assert_eq!(load_officer(&dir.path().join("system"), "p").unwrap().public(), key.public());
        }
    }

    #[test]
    fn retired_vote_keys_are_gone() {
        for suite in SUITES {
            let dir = tempfile::tempdir().unwrap();
            let keys = VoteKeyFolder::open(dir.path(), StorageKey::new(suite, [1; 32])).unwrap();
            let (old, new) = (keys.fresh().unwrap().public(), keys.fresh().unwrap().public());
            let seed = keys.find(&old).unwrap().seed();
            assert!(keys.find(&new).is_some());
            for entry in std::fs::read_dir(dir.path()).unwrap() {
                let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                assert!(!bytes.windows(32).any(|w| w == seed), "no key lies there in plain");
            }
            assert_eq!(keys.destroy(&[old]).unwrap(), 1);
            assert_eq!(keys.destroy(&[old]).unwrap(), 0);
            assert!(keys.find(&old).is_none() && keys.find(&new).is_some());
            // moved to another name, a file opens nothing
            std::fs::rename(keys.path(&new), keys.path(&old)).unwrap();
            assert!(keys.find(&old).is_none());
        }
    }
}
