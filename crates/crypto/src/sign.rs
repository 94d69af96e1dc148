//! Signatures. One strict decoding; ZIP 215 rules, so that every node gives the same verdict, in batches or not.

use ed25519_zebra::{Signature, VerificationKey, VerificationKeyBytes, batch};
use model::{Command, PublicKey, SignedCommand, Suite};

/// A secret signing key; wiped from memory when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_zebra::SigningKey);

impl SigningKey {
    /// A fresh key.
    pub fn random() -> Self {
        Self::from_seed(crate::random())
    }

    /// The key of a 32-byte seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ed25519_zebra::SigningKey::from_bytes(&seed))
    }

    /// The seed, for the key store.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(VerificationKeyBytes::from(&self.0).into())
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({:?})", self.public())
    }
}

/// Whether `signature` is `key`'s over `message`.
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
    VerificationKey::try_from(key.0)
        .is_ok_and(|k| k.verify(&Signature::from_bytes(signature), message).is_ok())
}

/// Signs a command in the international suite.
pub fn signed(key: &SigningKey, command: Command) -> SignedCommand {
    let suite = Suite::International;
    let signature = key.sign(&SignedCommand::signing_bytes(suite, &command));
    SignedCommand { suite, command, signature }
}

/// Whether a command carries its signer's signature.
pub fn verify_command(key: &PublicKey, command: &SignedCommand) -> bool {
    verify(key, &SignedCommand::signing_bytes(command.suite, &command.command), &command.signature)
}

/// Checks many commands in one batch; on failure one by one. The verdicts are those of [`verify_command`].
pub fn verify_commands(items: &[(PublicKey, &SignedCommand)]) -> Vec<bool> {
    let mut verifier = batch::Verifier::new();
    for (key, command) in items {
        let message = SignedCommand::signing_bytes(command.suite, &command.command);
        let signature = Signature::from_bytes(&command.signature);
        verifier.queue((VerificationKeyBytes::from(key.0), signature, &message[..]));
    }
    match verifier.verify(rand::rng()) {
        Ok(()) => vec![true; items.len()],
        Err(_) => items.iter().map(|(key, command)| verify_command(key, command)).collect(),
    }
}
