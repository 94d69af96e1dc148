//! Establishes who is there: a terminal vouches that a party was identified, and says with which key they sign.
//!
//! Every method ends in the same [`Assertion`], bound to one case and one commitment, so that methods can be added
//! without the ledger knowing them. Here: a document check by a clerk at an enrolled counter terminal, and a key on the
//! person's own device (passkey-style).

use crypto::SigningKey;
use model::*;

/// Something a party signs with: a terminal's pad, a device.
pub trait Signer: Send + Sync {
    /// The public key.
    fn public(&self) -> PublicKey;
    /// Signs exactly these bytes, once the person has agreed to what they say.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

impl Signer for SigningKey {
    fn public(&self) -> PublicKey {
        SigningKey::public(self)
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        SigningKey::sign(self, message)
    }
}

/// An enrolled counter terminal.
pub struct Terminal {
    key: SigningKey,
}

/// Who was identified, in which case.
pub struct Identified<'a> {
    /// The ledger.
    pub chain: ChainId,
    /// The case.
    pub case: CaseId,
    /// The role.
    pub role: &'a RoleId,
    /// The commitment to the identifier, as the case has it.
    pub subject: Commitment,
    /// The time in milliseconds since 1970.
    pub at_ms: u64,
}

impl Terminal {
    /// A terminal with its key.
    pub fn new(key: SigningKey) -> Self {
        Self { key }
    }

    /// The key to enrol.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// The key a person without a device of their own signs with, on this terminal's pad.
    pub fn pad(&self) -> &SigningKey {
        &self.key
    }

    /// Vouches that a clerk checked the person's document; they sign on the terminal's own pad.
    pub fn vouch_at_counter(&self, who: &Identified<'_>) -> (Assertion, [u8; 64]) {
        self.vouch(who, IdentityMethod::Counter, self.public())
    }

    /// Vouches that a device key belongs to the person whose document was checked.
    pub fn vouch_for_passkey(&self, who: &Identified<'_>, device: PublicKey) -> (Assertion, [u8; 64]) {
        self.vouch(who, IdentityMethod::Passkey, device)
    }

    fn vouch(
        &self,
        who: &Identified<'_>,
        method: IdentityMethod,
        signer: PublicKey,
    ) -> (Assertion, [u8; 64]) {
        let assertion = Assertion {
            chain: who.chain,
            case: who.case,
            role: who.role.clone(),
            subject: who.subject,
            method,
            level: AssuranceLevel::Substantial,
            terminal: self.public(),
            signer,
            at_ms: who.at_ms,
            nonce: u64::from_le_bytes(crypto::random()),
        };
        let signature = self.key.sign(&assertion.signing_bytes());
        (assertion, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE: Suite = Suite::National;

    #[test]
    fn an_assertion_names_the_key_that_will_sign() {
        let (terminal, device) = (Terminal::new(SigningKey::random(SUITE)), SigningKey::random(SUITE));
        let role = "seller".parse().unwrap();
        let who = Identified {
            chain: ChainId([1; 32]),
            case: CaseId([2; 32]),
            role: &role,
            subject: Commitment([3; 32]),
            at_ms: 4,
        };
        let (assertion, signature) = terminal.vouch_for_passkey(&who, Signer::public(&device));
        assert_eq!(assertion.signer, device.public());
        assert!(crypto::verify(&terminal.public(), &assertion.signing_bytes(), &signature));
        let (assertion, _) = terminal.vouch_at_counter(&who);
        assert_eq!(assertion.signer, terminal.pad().public());
    }
}
