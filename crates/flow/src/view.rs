//! Reading cases: for the API and pages.

use crate::{case::Case, package::Package, run::Flow};
use gateway::Source;
use model::*;

/// A case as it stands, with its package.
pub struct CaseView {
    /// The case.
    pub case: Case,
    /// The package it runs.
    pub package: Package,
    /// The step and result of an adverse decision that waits for a person.
    pub unconfirmed: Option<(StepId, Code)>,
}

impl<S: Source> Flow<S> {
    /// One case of this handler.
    pub fn case(&self, id: CaseId) -> Option<CaseView> {
        let state = self.lock();
        let case = state.cases.get(&id)?.clone();
        let package = self.packages.get(&case.matter)?.clone();
        Some(CaseView { unconfirmed: state.unconfirmed.get(&id).cloned(), case, package })
    }

    /// The cases of this handler, newest first.
    pub fn case_ids(&self) -> Vec<CaseId> {
        let state = self.lock();
        let mut ids: Vec<_> = state.cases.values().map(|c| (c.opened_ms, c.id)).collect();
        ids.sort_by(|a, b| b.cmp(a));
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// The packages this node handles.
    pub fn packages(&self) -> Vec<&Package> {
        self.packages.values().collect()
    }

    /// A published resource.
    pub fn resource(&self, id: &ResourceId) -> Option<Resource> {
        self.lock().published.resources.get(id).map(|r| r.1.clone())
    }

    /// Whether the matter and version is on the ledger as this node knows it.
    pub fn is_published(&self, package: &Package) -> bool {
        self.lock().published.matters.contains_key(&(package.id.clone(), package.version))
    }
}
