//! A department's decisions on open data, anchored on the ledger.

use crate::{run::Flow, statement::StatementError};
use gateway::Source;
use model::{Header, decode};
use proof::{Decided, PUBLICATION_TOPIC, Publication, PublicationKind, Role};
use tracing::info;

impl<S: Source> Flow<S> {
    /// Anchors a decision of this department's, and proves it. Who calls it has checked [`Decided::check`].
    pub async fn decide_publication(&self, decided: Decided) -> Result<Publication, StatementError> {
        if decided.department != self.me {
            return Err(StatementError::Refused("not_yours"));
        }
        let event = self.anchor(PUBLICATION_TOPIC, decided.hash(self.suite()).0.to_vec()).await?;
        info!(dataset = %decided.dataset, version = decided.version, verdict = decided.verdict.as_str(), "a decision on open data");
        let anchor = self.chain.prove(event.id, Role::Anchor).await?;
        let epoch = decode::<Header>(&anchor.header).map_or(0, |h| h.epoch);
        let rosters = self.chain.roster_changes(epoch).await?;
        let (chain_id, kind) = (self.chain.rules().chain, PublicationKind::Publication);
        Ok(Publication { format: 1, kind, chain_id, decided, rosters, anchor })
    }
}
