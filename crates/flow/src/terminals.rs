//! A handler's own terminals, as the ledger has them: which are in use, and how many people each identified today.

use crate::run::Flow;
use gateway::Source;
use model::*;
use std::collections::BTreeMap;

/// A terminal of this department.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Its key.
    pub key: PublicKey,
    /// Whether it may vouch for people.
    pub active: bool,
    /// How many people it identified today.
    pub today: u32,
}

/// What was taken in of terminals.
#[derive(Default)]
pub(crate) struct Terminals {
    active: BTreeMap<PublicKey, bool>,
    day: Option<Day>,
    today: BTreeMap<PublicKey, u32>,
}

impl Terminals {
    /// Takes in an accepted command of this department.
    pub(crate) fn note(&mut self, body: &Body, at_ms: u64) {
        match body {
            Body::EnrolTerminal(new) => {
                self.active.insert(new.key, new.active);
            }
            // who signs with a key of their own, or was vouched for by another, is not counted
            Body::Identify(new) if new.assertion.method.is_terminals_word() => {
                self.turn(at_ms);
                // a block of an earlier day, taken in late, is not of today
                if self.day == Some(Day::of(at_ms)) {
                    *self.today.entry(new.assertion.terminal).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    /// Whether a key is that of a terminal, in use or not.
    pub(crate) fn has(&self, key: &PublicKey) -> bool {
        self.active.contains_key(key)
    }

    /// Begins a new day where one began.
    fn turn(&mut self, now_ms: u64) {
        let day = Some(Day::of(now_ms));
        if self.day < day {
            self.day = day;
            self.today.clear();
        }
    }
}

impl<S: Source> Flow<S> {
    /// Whether a key is that of a terminal of this department in use.
    pub fn is_terminal(&self, key: &PublicKey) -> bool {
        self.lock().terminals.active.get(key).copied().unwrap_or(false)
    }

    /// This department's terminals.
    pub fn terminals(&self) -> Vec<Terminal> {
        let mut state = self.lock();
        let terminals = &mut state.terminals;
        terminals.turn(self.host.now_ms());
        let of = |(key, active): (&PublicKey, &bool)| Terminal {
            key: *key,
            active: *active,
            today: terminals.today.get(key).copied().unwrap_or_default(),
        };
        terminals.active.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_is_counted_anew() {
        let key = crypto::SigningKey::random(Suite::International).public();
        let mut terminals = Terminals::default();
        let assertion = Assertion {
            chain: ChainId([1; 32]),
            case: CaseId([2; 32]),
            role: "seller".parse().unwrap(),
            subject: Commitment([3; 32]),
            method: IdentityMethod::Counter,
            level: AssuranceLevel::Substantial,
            terminal: key,
            signer: key,
            at_ms: 0,
            nonce: 0,
        };
        let identify = Body::Identify(Identify { assertion, signature: [0; 64] });
        let day = 24 * 3_600_000;
        terminals.note(&Body::EnrolTerminal(EnrolTerminal { key, active: true }), day);
        terminals.note(&identify, 10 * day);
        terminals.note(&identify, 10 * day + 1);
        assert_eq!(terminals.today.get(&key), Some(&2));
        terminals.note(&identify, 11 * day + 1);
        assert_eq!(terminals.today.get(&key), Some(&1));
        // a block from before, taken in late, brings no day back and is not of today
        terminals.turn(10 * day);
        terminals.note(&identify, 10 * day);
        // a key of the person's own is not counted
        let Body::Identify(Identify { assertion, .. }) = identify else { unreachable!() };
        let assertion = Assertion { method: IdentityMethod::Passkey, ..assertion };
        terminals.note(&Body::Identify(Identify { assertion, signature: [0; 64] }), 11 * day + 2);
        assert_eq!((terminals.today.get(&key), terminals.active.get(&key)), (Some(&1), Some(&true)));
    }
}
