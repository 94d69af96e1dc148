//! Establishes who is there: a terminal vouches that a party was identified, and says with which key they sign.
//!
//! Every method ends in the same [`Assertion`], bound to one case and one commitment, so that methods can be added
//! without the ledger knowing them. Here: a document check by a clerk at an enrolled counter terminal, a key on the person's own
//! device (passkey-style), the person's face before the terminal's camera, which the handler's node judges, and an identity provider
//! ([`oidc`]), where the handler's portal is the terminal.

pub mod oidc;

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

/// What a terminal shows of a person: the number and photograph of their document, and frames of their face with the milliseconds
/// since the first.
pub struct FaceShown<'a> {
    /// The challenge's name.
    pub challenge: &'a str,
    /// The number on the document.
    pub number: &'a str,
    /// The photograph on the document, as a file.
    pub document: &'a [u8],
    /// The frames, as files.
    pub frames: Vec<(u64, &'a [u8])>,
}

/// The bytes a terminal signs so that nobody between it and the node can put in other frames: a domain, the assertion, the challenge,
/// and the hash of each file. They go no further than the node.
pub fn face_binding(assertion: &Assertion, shown: &FaceShown<'_>) -> Vec<u8> {
    let hash = |bytes: &[u8]| crypto::digest(assertion.terminal.suite(), &[bytes]);
    let frames: Vec<_> = shown.frames.iter().map(|(at_ms, bytes)| (*at_ms, hash(bytes))).collect();
    let shown = (shown.challenge.to_owned(), hash(shown.number.as_bytes()), hash(shown.document), frames);
    [b"tongban/face/1\0".as_slice(), &encode(assertion), &encode(&shown)].concat()
}

fn fresh() -> u64 {
    u64::from_le_bytes(crypto::random())
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
        self.vouch(who, IdentityMethod::Counter, self.public(), fresh())
    }

    /// Vouches that a device key belongs to the person whose document was checked.
    pub fn vouch_for_passkey(&self, who: &Identified<'_>, device: PublicKey) -> (Assertion, [u8; 64]) {
        self.vouch(who, IdentityMethod::Passkey, device, fresh())
    }

    /// Vouches that frames of the person's face were taken here for a challenge; they sign on the terminal's own pad. The third part
    /// binds the frames: the terminal's signature over [`face_binding`] of them.
    pub fn vouch_for_face(
        &self,
        who: &Identified<'_>,
        nonce: u64,
        shown: &FaceShown<'_>,
    ) -> (Assertion, [u8; 64], [u8; 64]) {
        let (assertion, signature) = self.vouch(who, IdentityMethod::Face, self.public(), nonce);
        let binding = self.key.sign(&face_binding(&assertion, shown));
        (assertion, signature, binding)
    }

    /// Vouches that the person authenticated for this case before an identity provider, whose word is kept; they sign by authenticating
    /// there again, for the text they agree to, and this key signs for them.
    pub fn vouch_online(&self, who: &Identified<'_>, proven: &oidc::Proven) -> (Assertion, [u8; 64]) {
        let nonce = oidc::evidence_nonce(&proven.token);
        self.vouch_at(proven.level, who, IdentityMethod::Oidc, self.public(), nonce)
    }

    fn vouch(
        &self,
        who: &Identified<'_>,
        method: IdentityMethod,
        signer: PublicKey,
        nonce: u64,
    ) -> (Assertion, [u8; 64]) {
        self.vouch_at(AssuranceLevel::Substantial, who, method, signer, nonce)
    }

    fn vouch_at(
        &self,
        level: AssuranceLevel,
        who: &Identified<'_>,
        method: IdentityMethod,
        signer: PublicKey,
        nonce: u64,
    ) -> (Assertion, [u8; 64]) {
        let assertion = Assertion {
            chain: who.chain,
            case: who.case,
            role: who.role.clone(),
            subject: who.subject,
            method,
            level,
            terminal: self.public(),
            signer,
            at_ms: who.at_ms,
            nonce,
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
        let shown = |document| FaceShown { challenge: "c", number: "n", document, frames: vec![(0, b"f")] };
        let (assertion, signature, binding) = terminal.vouch_for_face(&who, 7, &shown(b"d"));
        assert_eq!((assertion.method, assertion.nonce), (IdentityMethod::Face, 7));
        assert!(crypto::verify(&terminal.public(), &assertion.signing_bytes(), &signature));
        assert!(crypto::verify(&terminal.public(), &face_binding(&assertion, &shown(b"d")), &binding));
        assert!(!crypto::verify(&terminal.public(), &face_binding(&assertion, &shown(b"e")), &binding));
        let (number, name, token) = ("n".to_owned(), "m".to_owned(), "head.body.signature".to_owned());
        let proven = oidc::Proven { number, name, level: AssuranceLevel::High, token };
        let (assertion, signature) = terminal.vouch_online(&who, &proven);
        assert!(crypto::verify(&terminal.public(), &assertion.signing_bytes(), &signature));
        let expected = (IdentityMethod::Oidc, AssuranceLevel::High, oidc::evidence_nonce(&proven.token));
        assert_eq!((assertion.method, assertion.level, assertion.nonce), expected);
        assert_ne!(assertion.nonce, oidc::evidence_nonce("head.body.another"));
    }
}
