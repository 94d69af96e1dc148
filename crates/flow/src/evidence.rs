//! What shows an auditor, beside a portal's own word, that a party was known and agreed: an identity provider's signed words, each
//! bound to what it is about. They name the party, so they stay in the vault and go with the case.

use crate::{CaseError, run::Flow};
use gateway::Source;
use identity::oidc::evidence_nonce;
use model::*;

/// An identity provider's word that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The party's role.
    pub role: RoleId,
    /// `identify` or `consent`.
    pub of: String,
    /// What the word is bound to ([`identity::oidc::identify_binding`], [`identity::oidc::consent_binding`]).
    pub bound: Digest,
    /// The word, as the provider signed it.
    pub word: String,
}

impl<S: Source> Flow<S> {
    /// Keeps a word, before what rests on it is submitted; one never takes another's place.
    ///
    /// # Errors
    /// Where the case was erased, or the vault cannot be used.
    pub async fn keep_evidence(&self, case: CaseId, evidence: &Evidence) -> Result<(), CaseError> {
        if self.is_erased(case) {
            return Err(CaseError::Refused(Refusal::WrongState));
        }
        let Evidence { role, of, bound, word } = evidence;
        let place = format!("case/{case}/evidence/{role}/{of}/{bound}/{}", evidence_nonce(word));
        self.vault.put(&place, word.as_bytes()).await?;
        // erased meanwhile
        if self.is_erased(case) {
            self.vault.erase(&place).await?;
            return Err(CaseError::Refused(Refusal::WrongState));
        }
        Ok(())
    }

    /// The words kept of a case.
    ///
    /// # Errors
    /// Where the vault cannot be used.
    pub async fn evidence(&self, case: CaseId) -> Result<Vec<Evidence>, CaseError> {
        let place = format!("case/{case}/evidence/");
        let mut found = Vec::new();
        for full in self.vault.list(&place).await? {
            let parts: Vec<_> = full.trim_start_matches(&place).split('/').collect();
            let [role, of, bound, _] = parts[..] else { continue };
            let (Ok(role), Ok(bound)) = (role.parse(), bound.parse()) else { continue };
            let Some(word) = self.vault.get(&full).await? else { continue };
            let word = String::from_utf8_lossy(&word).into_owned();
            found.push(Evidence { role, of: of.to_owned(), bound, word });
        }
        Ok(found)
    }
}
