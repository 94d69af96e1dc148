//! Consent (授权): who was identified how, what they permitted, and the exact text they saw.

use crate::*;
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// How a person was identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityMethod {
    /// A clerk checked a document at an enrolled counter terminal.
    Counter,
    /// A key on the person's own device, bound to them at enrolment.
    Passkey,
    /// The person's live face at an enrolled terminal, compared with the photograph of their document (from protocol 4 on).
    Face,
    /// An identity provider, before which the person authenticated for this case (OpenID Connect Core 1.0; from protocol 8 on). The
    /// assertion's `nonce` commits to the provider's signed word, which the handler keeps.
    Oidc,
}

impl IdentityMethod {
    /// Whether a terminal's word is all there is: no key of the person's own, and no third party's signature.
    pub fn is_terminals_word(self) -> bool {
        matches!(self, Self::Counter | Self::Face)
    }
}

/// The protocol version from which a face may identify a person.
pub const FACE_PROTOCOL: u32 = 4;
/// The protocol version from which an identity provider may identify a person.
pub const OIDC_PROTOCOL: u32 = 8;

/// How sure the consortium may be of an identification (after eIDAS: low, substantial, high).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum AssuranceLevel {
    /// Self-asserted.
    Low,
    /// Checked by one means.
    Substantial,
    /// Checked by two independent means.
    High,
}

/// A terminal's word that a party was identified, and the key they will sign with.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Assertion {
    /// The ledger.
    pub chain: ChainId,
    /// The case.
    pub case: CaseId,
    /// The party's role.
    pub role: RoleId,
    /// The commitment to the identifier that was checked; equal to the party's in the case.
    pub subject: Commitment,
    /// How they were identified.
    pub method: IdentityMethod,
    /// How sure that is.
    pub level: AssuranceLevel,
    /// The enrolled terminal that vouches.
    pub terminal: PublicKey,
    /// The key with which the party signs in this case.
    pub signer: PublicKey,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Fresh.
    pub nonce: u64,
}

impl Assertion {
    /// The bytes the terminal signs.
    pub fn signing_bytes(&self) -> Vec<u8> {
        [b"tongban/assertion/1\0".as_slice(), &encode(self)].concat()
    }
}

/// One permission: this recipient may receive these names of this resource.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ConsentItem {
    /// The call step it is for.
    pub step: StepId,
    /// Who receives.
    pub recipient: DepartmentId,
    /// Who answers.
    pub holder: DepartmentId,
    /// The resource.
    pub resource: ResourceId,
    /// Fields, or one predicate.
    pub what: What,
}

/// What a party permits with one signature, for one case.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ConsentTerms {
    /// The ledger.
    pub chain: ChainId,
    /// The case.
    pub case: CaseId,
    /// The party's role.
    pub role: RoleId,
    /// The commitment to the party's identifier.
    pub subject: Commitment,
    /// The permissions.
    pub items: Vec<ConsentItem>,
    /// The language of the text the person saw.
    pub language: Language,
    /// The hash of the exact text the person saw.
    pub text: Digest,
    /// The last moment it serves, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Fresh.
    pub nonce: u64,
}

impl ConsentTerms {
    /// The bytes the party signs.
    pub fn signing_bytes(&self) -> Vec<u8> {
        [b"tongban/consent/1\0".as_slice(), &encode(self)].concat()
    }
}

/// One line of a consent as the person reads it.
pub struct ConsentLine<'a> {
    /// The recipient's name.
    pub recipient: &'a Text,
    /// The holder's name.
    pub holder: &'a Text,
    /// The resource's name.
    pub resource: &'a Text,
    /// The names of the fields, or the question.
    pub names: Vec<&'a Text>,
    /// What it is for.
    pub purpose: &'a Text,
    /// For how many days the recipient is told of changes, where it is, and whether also after the case's end.
    pub subscribe: Option<(u32, bool)>,
}

/// Writes the exact text a person signs. The same inputs give the same bytes everywhere.
///
/// `expires` is the expiry as local date and time, already formatted; `retain_days` says after how many days from its end the case is
/// erased.
pub fn consent_text(
    language: Language,
    matter: &Text,
    case: CaseId,
    role: &Text,
    expires: &str,
    retain_days: Option<u32>,
    lines: &[ConsentLine<'_>],
) -> String {
    let mut out = String::new();
    let case = case.short();
    match language {
        Language::Chinese => {
            out.push_str(&format!(
                "授权书\n\n事项：{}\n办件编号：{case}\n本人身份：{}\n\n本人同意下列部门仅为办理本办件，各取用一次下列信息：\n",
                matter.zh, role.zh
            ));
            for (i, l) in lines.iter().enumerate() {
                let names: Vec<_> = l.names.iter().map(|t| t.zh.as_str()).collect();
                let changes = l.subscribe.map(|(days, after_end)| {
                    let end = if after_end { "（包括办结之后）" } else { "办结之前" };
                    format!("此后{days}日内{end}上述信息如有变更，可再次取用变更后的信息。")
                });
                out.push_str(&format!(
                    "{}. {}向{}取用“{}”：{}。用途：{}。{}\n",
                    i + 1,
                    l.recipient.zh,
                    l.holder.zh,
                    l.resource.zh,
                    names.join("、"),
                    l.purpose.zh,
                    changes.unwrap_or_default()
                ));
            }
            let erased = retain_days.map(|days| format!("办结{days}日后，受理部门删除本办件中的个人信息。"));
            let erased = erased.unwrap_or_default();
            out.push_str(&format!(
                "\n办件暂停后本人申请继续办理的，须重新核验的信息可再取用一次。有效期至{expires}。可随时撤回；撤回前已完成的取用不受影响。{erased}不同意不影响在窗口凭纸质材料办理。\n"
            ));
        }
        Language::English => {
            out.push_str(&format!(
                "Consent\n\nMatter: {}\nCase: {case}\nI am the: {}\n\nFor this case only, I permit each of these once:\n",
                matter.en, role.en
            ));
            for (i, l) in lines.iter().enumerate() {
                let names: Vec<_> = l.names.iter().map(|t| t.en.as_str()).collect();
                let changes = l.subscribe.map(|(days, after_end)| {
                    let end =
                        if after_end { "also after this case has ended" } else { "while this case is open" };
                    format!(" Should it change within {days} days, {end}, it may be received again.")
                });
                out.push_str(&format!(
                    "{}. {} receives from {}, out of \"{}\": {}. Purpose: {}.{}\n",
                    i + 1,
                    l.recipient.en,
                    l.holder.en,
                    l.resource.en,
                    names.join(", "),
                    l.purpose.en,
                    changes.unwrap_or_default()
                ));
            }
            let erased = retain_days.map(|days| {
                format!(" The department that handles this case erases its personal data {days} days after its end.")
            });
            let erased = erased.unwrap_or_default();
            out.push_str(&format!(
                "\nIf the case rests and I ask for it to go on, what has to be checked again may be received once more. Valid until {expires}. I can withdraw at any time; what was received before stays received.{erased} If I refuse, I can still apply at the counter with paper documents.\n"
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_consents_reads_when_the_case_is_erased() {
        let title = Text { zh: "事项".into(), en: "matter".into() };
        let text = |language, days| {
            consent_text(language, &title, CaseId([0; 32]), &title, "2026-12-01 10:00", days, &[])
        };
        for (language, says) in
            [(Language::Chinese, "办结1827日后"), (Language::English, "1827 days after its end")]
        {
            assert!(text(language, Some(1827)).contains(says));
            assert!(!text(language, None).contains("1827"));
        }
    }
}
