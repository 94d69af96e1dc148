//! How validators vote: each with its vote key of the consortium's suite, known to the engine by its node key.
//!
//! A certificate holds the bitmap of the signers and each signature, in the order of the signers. A signature is over
//! `LEB128(length of the namespace) namespace message`, as [`crypto::finalize_message`] writes it for finality.

use crate::block::engine_key;
use commonware_codec::{Buf, EncodeSize, Error, FixedSize, Read, ReadRangeExt as _, Write};
use commonware_consensus::simplex::{scheme::Namespace, types::Subject};
use commonware_cryptography::{
    Digest,
    certificate::{
        self, AssemblyError, Attestation, Membership, Namespace as _, Signers, Subject as _, Verification,
    },
    ed25519,
};
use commonware_parallel::Strategy;
use commonware_runtime::BufMut;
use commonware_utils::{
    N3f1, Participant, Widen as _,
    iter::NonEmpty,
    ordered::{Quorum as _, Set},
    union_unique,
};
use crypto::{SigningKey, VoteKeys};
use model::{ChainId, NodeKey, PublicKey, Roster};
use rand_core::CryptoRng;
use std::{collections::BTreeSet, sync::Arc};

/// A vote's signature.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Signature(pub(crate) [u8; 64]);

impl Write for Signature {
    fn write(&self, out: &mut impl BufMut) {
        out.put_slice(&self.0);
    }
}

impl FixedSize for Signature {
    const SIZE: usize = 64;
}

impl Read for Signature {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, Error> {
        if buf.remaining() < Self::SIZE {
            return Err(Error::EndOfBuffer);
        }
        let mut bytes = [0; 64];
        buf.copy_to_slice(&mut bytes);
        Ok(Self(bytes))
    }
}

/// The signatures of a quorum.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Certificate {
    pub(crate) signers: Signers,
    pub(crate) signatures: Vec<Signature>,
}

impl Write for Certificate {
    fn write(&self, out: &mut impl BufMut) {
        self.signers.write(out);
        self.signatures.write(out);
    }
}

impl EncodeSize for Certificate {
    fn encode_size(&self) -> usize {
        self.signers.encode_size() + self.signatures.encode_size()
    }
}

impl Read for Certificate {
    type Cfg = usize;

    fn read_cfg(buf: &mut impl Buf, participants: &usize) -> Result<Self, Error> {
        let signers = Signers::read_cfg(buf, participants)?;
        let signatures = Vec::<Signature>::read_range(buf, 1..=*participants)?;
        if signers.count() != signatures.len() {
            return Err(Error::Invalid("Certificate", "as many signatures as signers"));
        }
        Ok(Self { signers, signatures })
    }
}

/// The validators of one epoch, and this node's vote among them.
#[derive(Clone, Debug)]
pub(crate) struct Scheme {
    participants: Set<ed25519::PublicKey>,
    votes: Arc<Vec<PublicKey>>,
    me: Option<Participant>,
    signer: Option<SigningKey>,
    namespace: Namespace,
}

impl Scheme {
    /// The committee of a roster. This node votes where it is a validator, has the key, and `may_vote`.
    pub(crate) fn of(
        chain: &ChainId,
        roster: &Roster,
        me: &NodeKey,
        keys: &dyn VoteKeys,
        may_vote: bool,
    ) -> Result<Self, String> {
        let validators = roster.validators();
        let nodes = validators.iter().map(|m| engine_key(&m.node_key)).collect::<Result<Vec<_>, _>>()?;
        let position = validators.iter().position(|m| m.node_key == *me);
        let signer = position.filter(|_| may_vote).and_then(|i| keys.find(&validators[i].vote_key));
        Ok(Self {
            participants: nodes
                .try_into()
                .map_err(|_| "two validators have the same node key".to_string())?,
            votes: Arc::new(validators.iter().map(|m| m.vote_key).collect()),
            me: position.map(Participant::from_usize),
            signer,
            namespace: Namespace::derive(&crypto::vote_namespace(chain)),
        })
    }

    /// Whether this node votes.
    pub(crate) fn votes(&self) -> bool {
        self.signer.is_some()
    }

    fn message<D: Digest>(&self, subject: &Subject<'_, D>) -> Vec<u8> {
        union_unique(subject.namespace(&self.namespace), &subject.message())
    }

    fn vote_key(&self, signer: Participant) -> Option<PublicKey> {
        self.votes.get(signer.get() as usize).copied()
    }

    fn quorum(&self) -> usize {
        self.participants.quorum::<N3f1>() as usize
    }
}

impl certificate::Verifier for Scheme {
    type Subject<'a, D: Digest> = Subject<'a, D>;
    type Faults = N3f1;
    type PublicKey = ed25519::PublicKey;
    type Certificate = Certificate;

    fn verify_certificate<R, D>(
        &self,
        _: &mut R,
        subject: Subject<'_, D>,
        certificate: &Certificate,
        _: &impl Strategy,
    ) -> bool
    where
        R: CryptoRng,
        D: Digest,
    {
        let Certificate { signers, signatures } = certificate;
        let fits = signers.len() == self.votes.len()
            && signers.count() == signatures.len()
            && signers.count() >= self.quorum();
        if !fits {
            return false;
        }
        let message = self.message(&subject);
        let items = signers
            .iter()
            .zip(signatures)
            .map(|(signer, signature)| self.vote_key(signer).map(|key| (key, &message[..], &signature.0)));
        let Some(items) = items.collect::<Option<Vec<_>>>() else { return false };
        crypto::verify_all(&items).into_iter().all(|good| good)
    }

    fn is_batchable() -> bool {
        true
    }

    fn max_certificate_size(participants: u32) -> usize {
        let participants: usize = participants.widen();
        // two lengths, a bitmap, the signatures
        20 + participants.div_ceil(8) + participants * Signature::SIZE
    }

    fn certificate_codec_config(&self) -> usize {
        self.participants.len()
    }

    fn certificate_codec_config_unbounded() -> usize {
        u32::MAX as usize
    }
}

impl certificate::Scheme for Scheme {
    type Signature = Signature;

    fn me(&self) -> Option<Membership> {
        let me = self.me?;
        Some(if self.votes() { Membership::Signer(me) } else { Membership::Member(me) })
    }

    fn participants(&self) -> &Set<ed25519::PublicKey> {
        &self.participants
    }

    fn sign<D: Digest>(&self, subject: Subject<'_, D>) -> Option<Attestation<Self>> {
        let signature = Signature(self.signer.as_ref()?.sign(&self.message(&subject)));
        Some(Attestation { signer: self.me?, signature: signature.into() })
    }

    fn verify_attestation<R, D>(
        &self,
        _: &mut R,
        subject: Subject<'_, D>,
        attestation: &Attestation<Self>,
        _: &impl Strategy,
    ) -> bool
    where
        R: CryptoRng,
        D: Digest,
    {
        let (Some(key), Some(signature)) = (self.vote_key(attestation.signer), attestation.signature.get())
        else {
            return false;
        };
        crypto::verify(&key, &self.message(&subject), &signature.0)
    }

    fn verify_attestations<R, D, I>(
        &self,
        _: &mut R,
        subject: Subject<'_, D>,
        attestations: I,
        _: &impl Strategy,
    ) -> Verification<Self>
    where
        R: CryptoRng,
        D: Digest,
        I: IntoIterator<Item = Attestation<Self>>,
        I::IntoIter: Send,
    {
        let message = self.message(&subject);
        let (mut invalid, mut candidates) = (BTreeSet::new(), Vec::new());
        for attestation in attestations {
            match (self.vote_key(attestation.signer), attestation.signature.get().cloned()) {
                (Some(key), Some(signature)) => candidates.push((attestation, key, signature)),
                _ => drop(invalid.insert(attestation.signer)),
            }
        }
        let items: Vec<_> = candidates.iter().map(|(_, key, s)| (*key, &message[..], &s.0)).collect();
        let verdicts = crypto::verify_all(&items);
        let mut verified = Vec::with_capacity(candidates.len());
        for ((attestation, ..), good) in candidates.into_iter().zip(verdicts) {
            if good {
                verified.push(attestation);
            } else {
                invalid.insert(attestation.signer);
            }
        }
        Verification::new(verified, invalid.into_iter().collect())
    }

    fn optimistic_assemble<'a, R, D, I, J>(
        &self,
        rng: &mut R,
        subject: Subject<'_, D>,
        pending: I,
        verified: J,
        strategy: &impl Strategy,
    ) -> Result<Certificate, Verification<Self>>
    where
        R: CryptoRng,
        D: Digest,
        I: IntoIterator<Item = Attestation<Self>>,
        I::IntoIter: ExactSizeIterator + Send,
        J: IntoIterator<Item = &'a Attestation<Self>>,
        J::IntoIter: Send,
    {
        certificate::verify_then_assemble::<Self, _, D, _, _>(self, rng, subject, pending, verified, strategy)
    }

    fn assemble<I>(&self, attestations: NonEmpty<I>, _: &impl Strategy) -> Result<Certificate, AssemblyError>
    where
        I: Iterator<Item = Attestation<Self>> + Send,
    {
        let mut entries = Vec::new();
        for Attestation { signer, signature } in attestations {
            self.vote_key(signer).ok_or(AssemblyError::UnknownSigner(signer))?;
            let signature = signature.get().cloned().ok_or(AssemblyError::MalformedSignature(signer))?;
            entries.push((signer, signature));
        }
        entries.sort_by_key(|(signer, _)| *signer);
        let (signers, signatures): (Vec<Participant>, Vec<_>) = entries.into_iter().unzip();
        let signers = Signers::try_from((&self.participants, signers))?;
        if signers.count() < self.quorum() {
            return Err(AssemblyError::InsufficientAttestations(
                self.quorum() as u32,
                signers.count() as u32,
            ));
        }
        Ok(Certificate { signers, signatures })
    }

    fn is_attributable() -> bool {
        true
    }
}
