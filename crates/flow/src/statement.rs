//! Statements of a holder: what it answered about one person, complete up to a height; and the openings it owes an auditor.

use crate::{
    VaultError,
    letter::Request,
    run::{Flow, FlowError},
};
use borsh::{BorshDeserialize, BorshSerialize};
use chain::BlockEvents;
use crypto::{Opening, Salt};
use gateway::Source;
use model::*;
use proof::{
    Role, STATEMENT_TOPIC, Stated, StatedAnswer, Statement, StatementKind, Withheld,
    audit::{Openings, SubjectOpening, openings_context},
    person_commitment,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tracing::info;

/// How long the anchor of a statement may take to be ordered.
const ANCHOR_WITHIN: Duration = Duration::from_secs(30);
/// How much longer than now a ground for withholding must hold to be used: until the anchor is surely ordered.
const GROUND_HOLDS_MS: u64 = 60_000;
/// The topic under which it is anchored that an auditor was given the openings.
const OPENINGS_TOPIC: &str = "openings";
/// Where the secret lies that hides who is who in the places of the vault.
const SECRET: &str = "statement/secret";

/// A statutory basis whose calls are lawfully withheld from statements for a while.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withholding {
    /// The approval under which the calls are asked.
    pub basis: ApprovalId,
    /// The ground, with its citation. On the ledger it is a commitment; the auditor is shown it.
    pub ground: String,
    /// Until when, in milliseconds since 1970. From then on the calls are listed.
    pub until_ms: u64,
}

/// What the holder keeps of each answer: about whom it was, and what was asked.
#[derive(BorshSerialize, BorshDeserialize)]
struct Kept {
    opening: SubjectOpening,
    asker: DepartmentId,
    matter: MatterId,
    step: StepId,
    resource: ResourceId,
    names: Vec<FieldId>,
    basis: Option<ApprovalId>,
}

/// A holder's answers that gave something, as final on this node, by call.
#[derive(Clone, Default)]
pub(crate) struct Answers {
    /// Number and time.
    given: BTreeMap<CallId, (u64, u64)>,
    /// The newest number, also of answers that declined.
    up_to: u64,
    /// The height all this is as of.
    height: u64,
}

/// Why a holder cannot make a statement.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// It no longer knows about whom some answers were.
    #[error(
        "this node does not know whom {0} of its answers were about: its vault is older than its ledger; restore the newest backup"
    )]
    Forgotten(u64),
    /// The auditor is no member.
    #[error("{0} is no department of this consortium")]
    Stranger(DepartmentId),
    /// The ledger refused the anchor.
    #[error("the ledger refused to anchor what this department states or hands out: {0}")]
    Refused(&'static str),
    /// The ledger cannot be used.
    #[error(transparent)]
    Chain(#[from] chain::ChainError),
    /// The vault cannot be used.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What is owed to the auditor cannot be sealed.
    #[error("the openings cannot be sealed: {0}")]
    Seal(#[from] crypto::SealError),
}

impl<S: Source> Flow<S> {
    /// The tag under which answers about a person are kept: nobody without this node's secret can tell whose it is.
    pub(crate) async fn tag(&self, person: &str) -> Result<String, VaultError> {
        let secret = self.secret.get_or_try_init(|| async {
            if let Some(kept) = self.vault.get(SECRET).await? {
                let secret: [u8; 32] =
                    kept.try_into().map_err(|_| VaultError("the secret of its places is damaged".into()))?;
                return Ok::<_, VaultError>(secret);
            }
            let secret = crypto::random::<32>();
            self.vault.put(SECRET, &secret).await?;
            Ok(secret)
        });
        let secret = secret.await?;
        Ok(crypto::keyed_hash(self.suite(), secret, "tongban/person-tag/1", person.as_bytes()).to_string())
    }

    /// Keeps, before it is submitted, about whom an answer is.
    pub(crate) async fn keep_for_statements(
        &self,
        call: CallId,
        request: &Request,
        asker: &DepartmentId,
        matter: &MatterId,
        need: &Need,
    ) -> Result<(), FlowError> {
        let opening = SubjectOpening {
            salt: request.salt.clone(),
            subject: request.subject.clone(),
            parameters: request.parameters.clone(),
        };
        let kept = Kept {
            opening,
            asker: asker.clone(),
            matter: matter.clone(),
            step: need.step.clone(),
            resource: need.resource.clone(),
            names: need.what.names(),
            basis: match &need.basis {
                NeedBasis::Statutory(id) => Some(id.clone()),
                _ => None,
            },
        };
        let tag = self.tag(&request.subject).await?;
        self.vault.put(&format!("answered/{tag}/{call}"), &encode(&kept)).await?;
        Ok(())
    }

    /// Takes note of this holder's answers in a block; blocks come in order.
    pub(crate) fn note_answers(&self, block: &BlockEvents) {
        let mut answers = self.answers.lock().expect("no holder of this lock panics");
        answers.height = block.height;
        for event in block.events.iter().filter(|e| e.command.command.signer == self.me) {
            let (Body::Answer(answer), Outcome::Accepted(Fact::Answered(number))) =
                (&event.command.command.body, &event.outcome)
            else {
                continue;
            };
            answers.up_to = *number;
            if matches!(answer.reply, Reply::Data { .. }) {
                answers.given.insert(answer.call, (*number, event.time_ms));
            }
        }
    }

    /// This holder's answers that gave something, as final on this node.
    pub(crate) fn given_answers(&self) -> BTreeSet<CallId> {
        self.answers.lock().expect("no holder of this lock panics").given.keys().copied().collect()
    }

    /// What is kept of answers under a place, by call; only of those that are final and gave something.
    async fn kept(
        &self,
        place: &str,
        given: &BTreeSet<CallId>,
    ) -> Result<BTreeMap<CallId, Kept>, VaultError> {
        let mut found = BTreeMap::new();
        for place in self.vault.list(place).await? {
            let call = place.rsplit('/').next().and_then(|text| text.parse().ok());
            let Some(call) = call.filter(|call| given.contains(call)) else { continue };
            let Some(bytes) = self.vault.get(&place).await? else { continue };
            let kept = decode::<Kept>(&bytes).map_err(|_| VaultError("an entry cannot be read".into()))?;
            found.insert(call, kept);
        }
        Ok(found)
    }

    /// States what this department answered about a person, all of it, and anchors the statement on the ledger. Who asks for it
    /// must have been identified as that person, or act for an auditor.
    pub async fn state(&self, person: &str) -> Result<Statement, StatementError> {
        let Answers { given, up_to, height } =
            self.answers.lock().expect("no holder of this lock panics").clone();
        let calls: BTreeSet<CallId> = given.keys().copied().collect();
        let known = self.vault.list("answered/").await?;
        let known: BTreeSet<CallId> =
            known.iter().filter_map(|place| place.rsplit('/').next()?.parse().ok()).collect();
        let forgotten = calls.difference(&known).count() as u64;
        if forgotten > 0 {
            return Err(StatementError::Forgotten(forgotten));
        }
        let tag = self.tag(person).await?;
        let kept = self.kept(&format!("answered/{tag}/"), &calls).await?;
        // a ground must still hold when the anchor is ordered
        let from = self.host.now_ms() + GROUND_HOLDS_MS;
        let (mut answers, mut withheld) = (Vec::new(), BTreeMap::<usize, u64>::new());
        for (call, kept) in kept {
            let held_back = |w: &Withholding| Some(&w.basis) == kept.basis.as_ref() && w.until_ms > from;
            if let Some(ground) = self.withholdings.iter().position(held_back) {
                *withheld.entry(ground).or_default() += 1;
                continue;
            }
            let (number, time_ms) = given[&call];
            let Kept { asker, matter, step, resource, names, .. } = kept;
            answers.push(StatedAnswer { number, call, asker, matter, step, resource, names, time_ms });
        }
        answers.sort_by_key(|a| a.number);
        if planted("false_statement") {
            answers.pop();
        }
        let mut counted = Vec::new();
        for (ground, count) in withheld {
            let w = &self.withholdings[ground];
            let ground = Opening::fresh("ground", w.ground.clone());
            let commitment = ground.commitment(self.suite());
            self.vault.put(&format!("statement/ground/{commitment}"), &encode(&ground)).await?;
            counted.push(Withheld { count, ground: commitment, until_ms: w.until_ms });
        }
        let salt = Salt::random();
        let person = person_commitment(self.suite(), &salt, person);
        let stated = Stated { holder: self.me.clone(), person, height, up_to, answers, withheld: counted };
        let event = self.anchor(STATEMENT_TOPIC, stated.hash(self.suite()).0.to_vec()).await?;
        info!(up_to, listed = stated.answers.len(), withheld = stated.withheld(), "a statement was made");
        let anchor = self.chain.prove(event.id, Role::Anchor).await?;
        let epoch = decode::<Header>(&anchor.header).map_or(0, |h| h.epoch);
        let rosters = self.chain.roster_changes(epoch).await?;
        let chain_id = self.chain.rules().chain;
        Ok(Statement { format: 1, kind: StatementKind::Statement, chain_id, salt, stated, rosters, anchor })
    }

    /// Anchors something of this department's own, and waits until it is final.
    pub(crate) async fn anchor(&self, topic: &str, data: Vec<u8>) -> Result<Event, StatementError> {
        let topic = topic.parse().expect("a name");
        let event = self.submit_and_wait(Body::Anchor(Anchor { topic, data }), ANCHOR_WITHIN).await?;
        match event.outcome {
            Outcome::Refused(refusal) => Err(StatementError::Refused(refusal.code())),
            Outcome::Accepted(_) => Ok(event),
        }
    }

    /// The openings of all answers, sealed to an auditor's department. That they were handed out, and to whom, is anchored on the
    /// ledger first: the hash of what was sealed, under the topic `openings`.
    pub async fn openings_for(&self, auditor: &DepartmentId) -> Result<Vec<u8>, StatementError> {
        let kept = self.kept("answered/", &self.given_answers()).await?;
        let calls = kept.into_iter().map(|(call, kept)| (call, kept.opening)).collect();
        let mut openings = Openings { calls, grounds: vec![] };
        for place in self.vault.list("statement/ground/").await? {
            let ground = self.vault.get(&place).await?.and_then(|bytes| decode(&bytes).ok());
            openings.grounds.extend(ground);
        }
        let member = self.chain.roster().1.member(auditor).cloned();
        let member = member.ok_or_else(|| StatementError::Stranger(auditor.clone()))?;
        let context = openings_context(&self.chain.rules().chain, &self.me, auditor);
        let sealed = crypto::seal(&member.seal_key, &context, &encode(&openings))?;
        let hash = crypto::hash(self.suite(), "tongban/openings/1", &[&sealed]);
        self.anchor(OPENINGS_TOPIC, encode(&(auditor, hash))).await?;
        info!(%auditor, answers = openings.calls.len(), "openings were handed out");
        Ok(sealed)
    }
}
