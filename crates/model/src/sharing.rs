//! How departments come to share (共享申请, 应用项目), how much (用量), and what they do about wrong data (数据异议): from protocol 3 on.
//!
//! Free texts here are written by officers for everybody to read; [`is_plain`] keeps numbers of people out of them.

use crate::*;
use borsh::{BorshDeserialize, BorshSerialize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The protocol version from which all of this may stand on a ledger.
pub const SHARING_PROTOCOL: u32 = 3;

/// The longest note of an officer, in bytes.
pub const NOTE_BYTES_MAX: usize = 1024;

/// Whether a text may stand on the ledger for everybody to read: something is said, in at most [`NOTE_BYTES_MAX`] bytes, without
/// control characters, and without so many digits as telephone and identity numbers have unless letters set them apart: other
/// signs between them, and full-width digits, change nothing.
pub fn is_plain(text: &str) -> bool {
    let mut digits = 0;
    let no_number = text.chars().all(|c| {
        digits = match c {
            '0'..='9' | '\u{ff10}'..='\u{ff19}' => digits + 1,
            c if c.is_alphabetic() => 0,
            _ => digits,
        };
        digits < 11
    });
    !text.trim().is_empty()
        && text.len() <= NOTE_BYTES_MAX
        && no_number
        && !text.chars().any(|c| c.is_control() && c != '\n')
}

/// The consortium's rules of sharing, set by its departments like any change ([`Change::SetSharing`]). Days are working days.
#[derive(
    Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Sharing {
    /// Departments that rule on disputes (政务数据共享主管部门); never on their own.
    pub coordinators: Vec<DepartmentId>,
    /// Within how many working days a holder accepts or refuses a request.
    pub accept_days: u16,
    /// Within how many working days it decides what it accepted, or grants what it was ruled to.
    pub decide_days: u16,
    /// Within how many working days a coordinator rules on a dispute.
    pub rule_days: u16,
    /// Within how many working days an alert is explained, and an objection to a value answered.
    pub answer_days: u16,
    /// How many calls of one resource by one department a day are few enough never to be unusual.
    pub surge_floor: u32,
    /// How many times its daily average they must be beyond that to raise an alert.
    pub surge_times: u32,
    /// Which days are worked.
    pub calendar: WorkingDays,
}

impl Default for Sharing {
    /// What holds until the departments set something: nobody rules, ten days to decide (政务数据共享条例), weekends off.
    fn default() -> Self {
        Self {
            coordinators: vec![],
            accept_days: 1,
            decide_days: 10,
            rule_days: 10,
            answer_days: 10,
            surge_floor: 100,
            surge_times: 5,
            calendar: WorkingDays::default(),
        }
    }
}

impl Sharing {
    /// The most working days of a clock.
    pub const DAYS_MAX: u16 = 120;
    /// The most `surge_times`.
    pub const SURGE_TIMES_MAX: u32 = 1000;

    /// What must hold of rules; says what does not.
    pub fn check(&self, roster: &Roster) -> Result<(), String> {
        if !self.coordinators.windows(2).all(|w| w[0] < w[1]) || self.coordinators.len() > MEMBERS_MAX {
            return Err("coordinators must stand in ascending order, each once".into());
        }
        if let Some(stranger) = self.coordinators.iter().find(|id| roster.member(id).is_none()) {
            return Err(format!("coordinators: {stranger} is no department of this consortium"));
        }
        let clocks = [
            ("accept_days", self.accept_days),
            ("decide_days", self.decide_days),
            ("rule_days", self.rule_days),
            ("answer_days", self.answer_days),
        ];
        if let Some((what, _)) = clocks.iter().find(|(_, days)| !(1..=Self::DAYS_MAX).contains(days)) {
            return Err(format!("{what}: 1 to {} working days", Self::DAYS_MAX));
        }
        if self.surge_floor == 0 || !(2..=Self::SURGE_TIMES_MAX).contains(&self.surge_times) {
            return Err(format!("surge_floor is at least 1, surge_times 2 to {}", Self::SURGE_TIMES_MAX));
        }
        self.calendar.check().map_err(|e| format!("calendar: {e}"))
    }
}

/// A need of an application project: what it uses of which resource.
#[derive(
    Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// Who holds it.
    pub holder: DepartmentId,
    /// The resource.
    pub resource: ResourceId,
    /// The fields and predicates.
    pub names: Vec<FieldId>,
    /// The matter in whose cases it asks.
    pub matter: MatterId,
    /// How many calls a day it needs.
    pub per_day: u32,
}

/// See [`Body::RegisterProject`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct RegisterProject {
    /// The project's name, unique with its owner.
    pub id: ProjectId,
    /// What people call it.
    pub title: Text,
    /// What it is for.
    pub purpose: Text,
    /// The statute it serves.
    pub citation: String,
    /// All it uses.
    pub needs: Vec<Use>,
    /// When it ends, in milliseconds since 1970.
    pub until_ms: u64,
}

/// See [`Body::EndProject`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EndProject {
    /// Whose it is.
    pub owner: DepartmentId,
    /// The project.
    pub id: ProjectId,
    /// Why.
    pub note: String,
}

/// See [`Body::RequestShare`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct RequestShare {
    /// The request's name, unique with its holder and asker. Granted, it is the name of the statutory basis.
    pub id: ApprovalId,
    /// Who holds the resource.
    pub holder: DepartmentId,
    /// The resource.
    pub resource: ResourceId,
    /// The fields and predicates.
    pub names: Vec<FieldId>,
    /// In the cases of which matter.
    pub matter: MatterId,
    /// The signer's project it is for.
    pub project: Option<ProjectId>,
    /// The statute.
    pub citation: String,
    /// What for.
    pub purpose: Text,
    /// How many calls a day are asked for; granted, no more are.
    pub per_day: u32,
    /// Until when, in milliseconds since 1970.
    pub until_ms: u64,
}

/// Names a share request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct ShareRef {
    /// Who holds the resource.
    pub holder: DepartmentId,
    /// Who asks.
    pub asker: DepartmentId,
    /// The request's name.
    pub id: ApprovalId,
}

/// Why a holder refuses a share request: the closed set. "We would rather not" is none.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ShareRefusal {
    /// The statute cited gives the asker no such duty.
    NoBasis,
    /// More is asked for than the duty needs (PIPL 6).
    BeyondNeed,
    /// A law or decision forbids sharing it; the note cites it.
    Forbidden,
    /// Another department is the one to ask; the note says which.
    NotHeld,
    /// The request leaves open what it is for.
    Unclear,
}

impl ShareRefusal {
    /// The word of APIs and the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoBasis => "no_basis",
            Self::BeyondNeed => "beyond_need",
            Self::Forbidden => "forbidden",
            Self::NotHeld => "not_held",
            Self::Unclear => "unclear",
        }
    }
}

/// What a holder does with a share request, short of granting it, which is [`Body::ApproveBasis`] under the same name.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ShareReply {
    /// It is complete, and will be decided.
    Accept,
    /// It is refused.
    Refuse {
        /// Why.
        reason: ShareRefusal,
        /// The citation or explanation.
        note: String,
    },
}

/// See [`Body::ReplyShare`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReplyShare {
    /// Who asked.
    pub asker: DepartmentId,
    /// The request.
    pub id: ApprovalId,
    /// The reply.
    pub reply: ShareReply,
}

/// See [`Body::WithdrawShare`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct WithdrawShare {
    /// Who was asked.
    pub holder: DepartmentId,
    /// The request.
    pub id: ApprovalId,
}

/// See [`Body::DisputeShare`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DisputeShare {
    /// Who refused, kept silent, or took back what it had granted.
    pub holder: DepartmentId,
    /// The request.
    pub id: ApprovalId,
    /// Why the asker insists.
    pub note: String,
}

/// See [`Body::RuleShare`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RuleShare {
    /// The request.
    pub share: ShareRef,
    /// Whether the holder has to grant it.
    pub grant: bool,
    /// Why.
    pub note: String,
}

/// See [`Body::RevokeBasis`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RevokeBasis {
    /// The approval of the signer's.
    pub id: ApprovalId,
    /// Why.
    pub note: String,
}

/// How much of a resource a department may use, as its holder set it.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Budget {
    /// The most calls a day.
    pub per_day: Option<u32>,
    /// The most values about one person a day: each field or question answered is one, so a series of range questions about a
    /// value is counted like reading it. The ledger does not know who a call is about: the holder's node keeps this one.
    pub per_person: Option<u32>,
}

/// See [`Body::SetBudget`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SetBudget {
    /// Whose use.
    pub asker: DepartmentId,
    /// Of which resource of the signer's.
    pub resource: ResourceId,
    /// In the cases of one matter, or of all together.
    pub matter: Option<MatterId>,
    /// How much.
    pub budget: Budget,
}

/// See [`Body::ExplainAlert`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ExplainAlert {
    /// The resource whose unusual use by the signer raised it.
    pub resource: ResourceId,
    /// The day it was raised.
    pub day: Day,
    /// What happened.
    pub note: String,
}

/// What is wrong with a value.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// It is not true.
    Untrue,
    /// It was true once.
    Outdated,
    /// Something is missing.
    Incomplete,
    /// It is about somebody else.
    AnotherPerson,
}

impl Wrong {
    /// The word of APIs and the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untrue => "untrue",
            Self::Outdated => "outdated",
            Self::Incomplete => "incomplete",
            Self::AnotherPerson => "another_person",
        }
    }
}

/// See [`Body::Object`]. What the value should be is shown to the holder off the ledger: it knows from the call who it is about.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Object {
    /// The call that gave the value.
    pub call: CallId,
    /// The field or predicate.
    pub name: FieldId,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What came of an objection: a closed set, because a ground in free words would be about a person.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The data was wrong, and is corrected.
    Corrected,
    /// The data agrees with the papers it rests on.
    Confirmed,
    /// Nothing was shown that speaks against the data.
    Unproven,
    /// Another department keeps the source; the objection belongs there.
    Elsewhere,
}

impl Verdict {
    /// The word of APIs, receipts and the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Corrected => "corrected",
            Self::Confirmed => "confirmed",
            Self::Unproven => "unproven",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// See [`Body::AnswerObjection`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AnswerObjection {
    /// The call.
    pub call: CallId,
    /// The field or predicate.
    pub name: FieldId,
    /// What came of it.
    pub verdict: Verdict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_people_are_kept_out_of_notes() {
        assert!(is_plain("《不动产登记暂行条例》第二十二条，2024年3月10日"));
        assert!(is_plain("see order 809, line 2\nand PIPL 6"));
        for text in [
            "",
            "  ",
            "身份证号 11010519491231002X",
            "tel 138 0013 8000",
            "tel 138-0013-8000",
            "电话１３８００１３８０００",
            "(138) 0013-8000",
            "138.0013.8000",
            "138\u{200b}00138000",
            "bell\u{7}",
        ] {
            assert!(!is_plain(text), "{text:?}");
        }
        assert!(!is_plain(&"a".repeat(NOTE_BYTES_MAX + 1)));
    }
}
