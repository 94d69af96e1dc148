//! An audit of a holder: are the openings of all its answers there, and are its statements true?
//!
//! The auditor has an archive of the ledger, whose calls and answers this module is fed, the openings of every answer, which the
//! holder owes, and statements people were given. Whatever is found convicts the holder by what it signed itself.

use crate::statement::Statement;
use borsh::{BorshDeserialize, BorshSerialize};
use crypto::{Opening, Salt};
use model::*;
use serde::Serialize;
use std::collections::BTreeMap;

/// What opens the subject commitment of a call: about whom it was, and with which parameters.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SubjectOpening {
    /// The salt.
    pub salt: Salt,
    /// The identifier.
    pub subject: String,
    /// The parameters of the query.
    pub parameters: BTreeMap<FieldId, String>,
}

/// The commitment a call's command carries: about whom it is, and with which parameters.
pub fn subject_commitment(
    suite: Suite,
    salt: &Salt,
    subject: &str,
    parameters: &BTreeMap<FieldId, String>,
) -> Commitment {
    crypto::commit(suite, salt, "call", &encode(&(subject, parameters)))
}

impl SubjectOpening {
    /// The commitment it opens.
    pub fn commitment(&self, suite: Suite) -> Commitment {
        subject_commitment(suite, &self.salt, &self.subject, &self.parameters)
    }
}

/// All that a holder owes an auditor; goes sealed to the auditor's department, never in plain.
#[derive(Clone, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct Openings {
    /// By call.
    pub calls: BTreeMap<CallId, SubjectOpening>,
    /// The grounds for which answers were withheld.
    pub grounds: Vec<Opening>,
}

/// What openings are sealed for.
pub fn openings_context(chain: &ChainId, holder: &DepartmentId, auditor: &DepartmentId) -> Vec<u8> {
    encode(&("openings", chain, holder, auditor))
}

/// Something an audit found. None of them names a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// An answer without an opening: the holder hides whom it was about.
    Unopened {
        /// The answer number.
        number: u64,
        /// The call.
        call: CallId,
    },
    /// An opening that is not the call's.
    FalseOpening {
        /// The answer number.
        number: u64,
        /// The call.
        call: CallId,
    },
    /// A statement that leaves out an answer about its person and does not count it as withheld.
    LeftOut {
        /// Which statement, by its hash.
        statement: Digest,
        /// The answer numbers that are not in it.
        numbers: Vec<u64>,
        /// How many it says are withheld.
        withheld: u64,
    },
    /// A statement that lists an answer that was about somebody else, or is not as listed.
    Invented {
        /// Which statement, by its hash.
        statement: Digest,
        /// The answer number.
        number: u64,
    },
    /// A statement whose count of answers is not the ledger's at the height it speaks of.
    Miscounted {
        /// Which statement, by its hash.
        statement: Digest,
        /// Up to which number it goes.
        up_to: u64,
        /// How many answers the holder had given.
        given: u64,
    },
    /// A ground for withholding that nobody was shown, or that had expired when it was used.
    Ungrounded {
        /// Which statement, by its hash.
        statement: Digest,
    },
}

struct Answered {
    call: CallId,
    asker: DepartmentId,
    subject: Commitment,
    gave: bool,
    height: u64,
}

/// An audit of one holder: fed every event of the ledger in order, then the openings and statements.
pub struct Audit {
    suite: Suite,
    holder: DepartmentId,
    asked: BTreeMap<CallId, (DepartmentId, Commitment)>,
    answers: BTreeMap<u64, Answered>,
}

impl Audit {
    /// Of a holder.
    pub fn of(suite: Suite, holder: DepartmentId) -> Self {
        Self { suite, holder, asked: BTreeMap::new(), answers: BTreeMap::new() }
    }

    /// Takes in the next event.
    pub fn follow(&mut self, event: &Event) {
        let signer = &event.command.command.signer;
        match (&event.command.command.body, &event.outcome) {
            (Body::Ask(ask), Outcome::Accepted(_)) => {
                self.asked.insert(CallId(event.id.0), (signer.clone(), ask.subject));
            }
            (Body::Answer(answer), Outcome::Accepted(Fact::Answered(number))) => {
                let Some((asker, subject)) = self.asked.remove(&answer.call) else { return };
                if signer != &self.holder {
                    return;
                }
                let gave = matches!(answer.reply, Reply::Data { .. });
                let height = event.height;
                self.answers.insert(*number, Answered { call: answer.call, asker, subject, gave, height });
            }
            _ => {}
        }
    }

    /// How many answers the holder gave.
    pub fn answers(&self) -> u64 {
        self.answers.len() as u64
    }

    /// What is wrong with the openings, by answer number.
    pub fn check_openings(&self, openings: &Openings) -> Vec<Finding> {
        let gave = self.answers.iter().filter(|(_, a)| a.gave);
        gave.filter_map(|(number, answer)| {
            let (number, call) = (*number, answer.call);
            match openings.calls.get(&call) {
                None => Some(Finding::Unopened { number, call }),
                Some(opening) if opening.commitment(self.suite) != answer.subject => {
                    Some(Finding::FalseOpening { number, call })
                }
                Some(_) => None,
            }
        })
        .collect()
    }

    /// What is wrong with a statement of this holder that was verified and anchored at a time.
    pub fn check_statement(&self, statement: &Statement, at_ms: u64, openings: &Openings) -> Vec<Finding> {
        let (stated, suite) = (&statement.stated, self.suite);
        let hash = stated.hash(suite);
        let mut findings = Vec::new();
        let given = self.answers.values().filter(|a| a.height <= stated.height).count() as u64;
        if stated.up_to != given {
            findings.push(Finding::Miscounted { statement: hash, up_to: stated.up_to, given });
        }
        let about = |answer: &Answered| {
            let opening = openings.calls.get(&answer.call);
            opening.is_some_and(|o| {
                o.commitment(suite) == answer.subject && statement.is_about(suite, &o.subject)
            })
        };
        for listed in &stated.answers {
            let as_listed = self
                .answers
                .get(&listed.number)
                .is_some_and(|a| a.gave && a.call == listed.call && a.asker == listed.asker && about(a));
            if !as_listed {
                findings.push(Finding::Invented { statement: hash, number: listed.number });
            }
        }
        let left_out: Vec<u64> = self
            .answers
            .range(..=stated.up_to)
            .filter(|(_, answer)| answer.gave && about(answer))
            .map(|(number, _)| *number)
            .filter(|number| stated.answers.iter().all(|listed| listed.number != *number))
            .collect();
        let withheld = stated.withheld.iter().map(|w| w.count).sum();
        if left_out.len() as u64 != withheld {
            findings.push(Finding::LeftOut { statement: hash, numbers: left_out, withheld });
        }
        let grounded = |w: &crate::statement::Withheld| {
            w.until_ms >= at_ms && openings.grounds.iter().any(|g| g.commitment(suite) == w.ground)
        };
        if !stated.withheld.iter().all(grounded) {
            findings.push(Finding::Ungrounded { statement: hash });
        }
        findings
    }
}
