//! An audit of a holder: are the openings of all its answers there, and are its statements true?
//!
//! The auditor has an archive of the ledger, whose calls and answers this module is fed, the openings of every answer, which the
//! holder owes, and statements people were given. Whatever is found convicts the holder by what it signed itself.

use crate::statement::{StatedAnswer, Statement};
use borsh::{BorshDeserialize, BorshSerialize};
use crypto::{Opening, Salt};
use model::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

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
    /// A statement that leaves out an answer about its person and does not count it as withheld, or withholds one that rests on no
    /// statutory duty.
    LeftOut {
        /// Which statement, by its hash.
        statement: Digest,
        /// The answer numbers that are not in it.
        numbers: Vec<u64>,
        /// How many it says are withheld.
        withheld: u64,
    },
    /// A statement that lists an answer that was about somebody else, or says something of it that the ledger does not.
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

/// A call as the ledger granted it, and the declared need it was granted for.
struct Asked {
    asker: DepartmentId,
    matter: MatterId,
    need: Option<Need>,
    subject: Commitment,
}

struct Answered {
    call: CallId,
    asked: Asked,
    gave: bool,
    height: u64,
    time_ms: u64,
}

impl Answered {
    /// Whether a statement says of this answer what the ledger says of it.
    fn is_as(&self, listed: &StatedAnswer) -> bool {
        let Asked { asker, matter, need, .. } = &self.asked;
        let declared = need.as_ref().is_some_and(|need| {
            need.step == listed.step && need.resource == listed.resource && need.what.names() == listed.names
        });
        self.gave
            && declared
            && (self.call, asker, matter, self.time_ms)
                == (listed.call, &listed.asker, &listed.matter, listed.time_ms)
    }

    /// Whether the call may be withheld for a while: only those of statutory duties may.
    fn may_be_withheld(&self) -> bool {
        self.asked.need.as_ref().is_some_and(|need| matches!(need.basis, NeedBasis::Statutory(_)))
    }
}

/// An audit of one holder: fed every event of the ledger in order, then the openings and statements.
pub struct Audit {
    suite: Suite,
    holder: DepartmentId,
    needs: BTreeMap<(MatterId, u32), Vec<Need>>,
    subscribable: BTreeSet<(MatterId, u32)>,
    cases: BTreeMap<CaseId, (MatterId, u32)>,
    asked: BTreeMap<CallId, Asked>,
    answers: BTreeMap<u64, Answered>,
}

impl Audit {
    /// Of a holder.
    pub fn of(suite: Suite, holder: DepartmentId) -> Self {
        let (needs, subscribable, cases, asked, answers) = Default::default();
        Self { suite, holder, needs, subscribable, cases, asked, answers }
    }

    /// Takes in the next event.
    pub fn follow(&mut self, event: &Event) {
        let Outcome::Accepted(fact) = &event.outcome else { return };
        let signer = &event.command.command.signer;
        match &event.command.command.body {
            Body::PublishMatter(matter) => {
                self.needs.insert((matter.id.clone(), matter.version), matter.needs.clone());
            }
            Body::OpenCase(case) => {
                self.cases.insert(CaseId(event.id.0), (case.matter.clone(), case.version));
            }
            Body::DeclareSubscriptions(of) => {
                self.subscribable.insert((of.matter.clone(), of.version));
            }
            // where nobody can subscribe, nothing is asked in a case that is over
            Body::SettleCase(settled)
                if settled.outcome.is_final()
                    && self.cases.get(&settled.case).is_some_and(|of| !self.subscribable.contains(of)) =>
            {
                self.cases.remove(&settled.case);
            }
            Body::Ask(ask) => {
                let Some(run) = self.cases.get(&ask.case) else { return };
                let needs = self.needs.get(run).into_iter().flatten();
                let need = needs.into_iter().find(|n| n.step == ask.step && &n.recipient == signer).cloned();
                let (asker, matter) = (signer.clone(), run.0.clone());
                self.asked.insert(CallId(event.id.0), Asked { asker, matter, need, subject: ask.subject });
            }
            Body::Answer(answer) => {
                let Some(asked) = self.asked.remove(&answer.call) else { return };
                let Fact::Answered(number) = fact else { return };
                if signer != &self.holder {
                    return;
                }
                let gave = matches!(answer.reply, Reply::Data { .. });
                let (height, time_ms) = (event.height, event.time_ms);
                self.answers.insert(*number, Answered { call: answer.call, asked, gave, height, time_ms });
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
                Some(opening) if opening.commitment(self.suite) != answer.asked.subject => {
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
                o.commitment(suite) == answer.asked.subject && statement.is_about(suite, &o.subject)
            })
        };
        for listed in &stated.answers {
            let answer = self.answers.get(&listed.number);
            if !answer.is_some_and(|a| a.is_as(listed) && about(a)) {
                findings.push(Finding::Invented { statement: hash, number: listed.number });
            }
        }
        let listed: BTreeSet<u64> = stated.answers.iter().map(|listed| listed.number).collect();
        let given = self.answers.range(..=stated.up_to);
        let left_out: Vec<_> = given.filter(|(n, a)| a.gave && about(a) && !listed.contains(n)).collect();
        let lawful = left_out.iter().all(|(_, answer)| answer.may_be_withheld());
        if !lawful || left_out.len() as u64 != stated.withheld() {
            let numbers = left_out.into_iter().map(|(number, _)| *number).collect();
            findings.push(Finding::LeftOut { statement: hash, numbers, withheld: stated.withheld() });
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
