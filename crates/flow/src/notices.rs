//! What a party is told out of band, because somebody vouched for them: a clerk or a terminal can be wrong, or lie.

use crate::run::Flow;
use gateway::Source;
use model::*;

/// Older than this nothing is told any more: three days.
pub const NOTICE_MS_MAX: u64 = 3 * 24 * 3_600_000;
/// The most notices that wait to be taken; the oldest are dropped.
pub(crate) const WAITING_MAX: usize = 10_000;

/// What happened in a person's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// They were identified at a terminal, or a terminal said which device is theirs.
    Identified(IdentityMethod),
    /// A consent was signed for them on a terminal's pad.
    Consented,
    /// A consent signed so was withdrawn.
    Withdrew,
}

impl Happened {
    /// Its stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Identified(IdentityMethod::Face) => "identified_by_face",
            Self::Identified(IdentityMethod::Passkey) => "device_named",
            Self::Identified(IdentityMethod::Counter) => "identified",
            Self::Identified(IdentityMethod::Oidc) => "identified_online",
            Self::Consented => "consented",
            Self::Withdrew => "withdrew",
        }
    }
}

/// One thing to tell one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The command that did it: each is told once.
    pub id: CommandId,
    /// The case.
    pub case: CaseId,
    /// The person's role in it.
    pub role: RoleId,
    /// What happened.
    pub what: Happened,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

impl<S: Source> Flow<S> {
    /// Takes the notices that came up since they were last taken, also those of before this start that are not yet too old.
    pub fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.lock().notices).into()
    }

    /// Notes what is to be told about an accepted event of a case of this node.
    pub(crate) fn note_notice(&self, event: &Event, case: CaseId) {
        if event.time_ms + NOTICE_MS_MAX < self.host.now_ms() {
            return;
        }
        let mut state = self.lock();
        let on_pad = |role: &RoleId| {
            let signer = state.cases.get(&case).and_then(|c| c.identified.get(role)).map(|(_, key)| *key);
            signer.is_some_and(|key| state.terminals.has(&key))
        };
        let (role, what) = match &event.command.command.body {
            Body::Identify(new) => (new.assertion.role.clone(), Happened::Identified(new.assertion.method)),
            Body::GiveConsent(new) if on_pad(&new.terms.role) => {
                (new.terms.role.clone(), Happened::Consented)
            }
            Body::WithdrawConsent(new) => {
                let of = state.cases.get(&case).into_iter().flat_map(|c| &c.consents);
                let role =
                    of.filter(|(_, (id, ..))| id.0 == new.consent.0).map(|(role, _)| role.clone()).next();
                match role.filter(on_pad) {
                    Some(role) => (role, Happened::Withdrew),
                    None => return,
                }
            }
            _ => return,
        };
        if state.notices.len() >= WAITING_MAX {
            state.notices.pop_front();
        }
        state.notices.push_back(Notice { id: event.id, case, role, what, at_ms: event.time_ms });
    }
}
