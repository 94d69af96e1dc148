//! What shows an auditor, beside a portal's own word, that a party was known and agreed: an identity provider's signed words, each
//! bound to what it is about. They name the party, so they stay in the vault and go with the case.

use crate::{CaseError, run::Flow};
use gateway::Source;
use model::*;

/// An identity provider's word that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The party's role.
    pub role: RoleId,
    /// What the word is bound to ([`identity::oidc::identify_binding`], [`identity::oidc::consent_binding`]).
    pub bound: Digest,
    /// The word, as the provider signed it.
    pub word: String,
}

impl<S: Source> Flow<S> {
    /// Keeps a word, before what rests on it is submitted.
    pub async fn keep_evidence(&self, case: CaseId, evidence: &Evidence) -> Result<(), CaseError> {
        let Evidence { role, bound, word } = evidence;
        self.vault.put(&format!("case/{case}/evidence/{role}/{bound}"), word.as_bytes()).await?;
        Ok(())
    }

    /// The words kept of a case.
    pub async fn evidence(&self, case: CaseId) -> Result<Vec<Evidence>, CaseError> {
        let place = format!("case/{case}/evidence/");
        let mut found = Vec::new();
        for full in self.vault.list(&place).await? {
            let parts = full.strip_prefix(&place).and_then(|rest| rest.split_once('/'));
            let Some((role, bound)) = parts else { continue };
            let (Ok(role), Ok(bound)) = (role.parse(), bound.parse()) else { continue };
            let Some(word) = self.vault.get(&full).await? else { continue };
            found.push(Evidence { role, bound, word: String::from_utf8_lossy(&word).into_owned() });
        }
        Ok(found)
    }
}
