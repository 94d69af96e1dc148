//! Reading cases: for the API and pages.

use crate::{
    case::{Case, Due, Settled},
    catalogue::Catalogue,
    handler::CaseError,
    lists::ListWait,
    package::{Package, StepKind, alternatives},
    run::Flow,
};
use gateway::Source;
use model::*;
use std::{collections::BTreeMap, sync::Arc};

/// A case as it stands, with its package.
pub struct CaseView {
    /// The case.
    pub case: Case,
    /// The package it runs.
    pub package: Arc<Package>,
    /// The step and result of an adverse decision that waits for a person.
    pub unconfirmed: Option<(StepId, Code)>,
    /// What steps wait for that are asked by lists.
    pub waits: BTreeMap<StepId, ListWait>,
}

impl CaseView {
    /// Whether a party (none: the handler's own people) is concerned by why the case rests: the parties whose data the
    /// rule reads, or all of them where that cannot be told.
    pub fn concerns(&self, role: Option<&RoleId>, settled: &Settled) -> bool {
        let (Some(role), Some(step)) = (role, self.package.step(&settled.step)) else { return true };
        let why = settled.before.as_ref().unwrap_or(&settled.reason);
        let rule = step.rules.iter().find(|r| r.result.as_str() == why);
        let read: Vec<_> = match rule {
            Some(rule) => self.package.calls_read_by(rule),
            None => vec![step.id.clone()],
        };
        let parties: Vec<_> =
            read.iter().filter_map(|s| self.package.step(s)).filter_map(|s| s.party.as_ref()).collect();
        parties.is_empty() || parties.contains(&role)
    }

    /// What a party (none: the handler's own people) has in the end, of this reference. What is about one party, or was answered about
    /// them, is for that party alone, and masked for a clerk; what an action returned is everybody's.
    pub fn output(&self, role: Option<&RoleId>, from: &str) -> Option<String> {
        let found = |(group, name)| Some((group, self.case.values.get(group)?.get(name)?));
        let (group, value): (&str, &String) = alternatives(from).find_map(found)?;
        let calls = self.package.steps.iter().filter(|s| s.kind == StepKind::Call);
        let call = calls.filter(|s| s.id.as_str() == group).find_map(|s| s.party.as_ref());
        let party = self.package.parties.iter().map(|p| &p.id).find(|id| id.as_str() == group);
        match (call.or(party), role) {
            (None, _) => Some(value.clone()),
            (Some(_), None) => Some(identifier::mask(value)),
            (Some(of), Some(role)) => (of == role).then(|| value.clone()),
        }
    }

    /// The rule of the package that a case rests on or was refused by.
    pub fn rule(&self, settled: &Settled) -> Option<&crate::Rule> {
        let step = self.package.step(&settled.step)?;
        step.rules.iter().find(|r| r.result.as_str() == settled.reason)
    }

    /// The departments whose answers a rule reads, the handler where it reads none.
    pub fn responsible(&self, rule: &crate::Rule) -> Vec<DepartmentId> {
        let read = self.package.calls_read_by(rule);
        let holders = read.iter().filter_map(|s| self.package.step(s)?.holder.clone());
        let holders: std::collections::BTreeSet<_> = holders.collect();
        if holders.is_empty() { vec![self.package.handler.clone()] } else { holders.into_iter().collect() }
    }

    /// Whether a party (none: the handler's own people) may see a receipt: those of calls about them, of their own
    /// consent, and of what was decided and done in the case.
    pub fn may_see_receipt(&self, role: Option<&RoleId>, name: &str) -> bool {
        let Some(role) = role else { return true };
        let name = name.rsplit_once("-try").map_or(name, |(first, _)| first);
        match name.split_once('-') {
            Some(("consent", of)) => of == role.as_str(),
            Some(("call", step)) => {
                let step = self.package.steps.iter().find(|s| s.id.as_str() == step);
                step.is_some_and(|s| s.party.as_ref() == Some(role))
            }
            _ => true,
        }
    }
}

impl<S: Source> Flow<S> {
    /// One case of this handler.
    pub fn case(&self, id: CaseId) -> Option<CaseView> {
        let state = self.lock();
        let case = state.cases.get(&id)?.clone();
        let package = self.packages.get(&case.matter)?;
        let now_ms = self.host.now_ms();
        let due = match package.steps.iter().any(|s| s.list.is_some()) {
            true => case.due(&package, now_ms),
            false => Vec::new(),
        };
        let calls =
            due.iter().filter_map(|due| if let Due::Call(step) = due { package.step(step) } else { None });
        let turned_away = |step: &&crate::Step| state.lists.turned_away(id, &step.id, now_ms).is_some();
        let waits = calls
            .filter(|step| !turned_away(step))
            .filter_map(|step| Some((step.id.clone(), state.lists.wait(&case, step, &package, now_ms)?)));
        let waits = waits.collect();
        Some(CaseView { unconfirmed: state.unconfirmed.get(&id).cloned(), waits, case, package })
    }

    /// The cases of this handler, newest first.
    pub fn case_ids(&self) -> Vec<CaseId> {
        let state = self.lock();
        let mut ids: Vec<_> = state.cases.values().map(|c| (c.opened_ms, c.id)).collect();
        ids.sort_by(|a, b| b.cmp(a));
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// The newest version of every matter this node handles.
    pub fn packages(&self) -> Vec<Arc<Package>> {
        self.packages.newest()
    }

    /// The newest version of a matter this node handles.
    pub fn package(&self, matter: &MatterId) -> Option<Arc<Package>> {
        self.packages().into_iter().find(|p| &p.id == matter)
    }

    /// Takes in a package that was published on the ledger, byte for byte as it was published; cases can be opened from then on.
    pub fn take_package(&self, package: Package) -> Result<(), CaseError> {
        if package.handler != self.me {
            return Err(CaseError::Unknown("matter"));
        }
        if !self.is_published(&package) {
            return Err(CaseError::Refused(Refusal::UnknownMatter));
        }
        self.packages.put(package);
        Ok(())
    }

    /// The catalogue.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// A published resource.
    pub fn resource(&self, id: &ResourceId) -> Option<Arc<Resource>> {
        self.catalogue.get(id)
    }

    /// Whether this very package is on the ledger, as far as this node knows it.
    pub fn is_published(&self, package: &Package) -> bool {
        let key = (package.id.clone(), package.version);
        let hash = package.hash(self.suite());
        let state = self.lock();
        // what its acts are undone by has to be known to the ledger before the first case
        state.published.matters.get(&key).is_some_and(|(_, published)| *published == hash)
            && (package.undone().is_none() || state.published.undone.contains(&key))
            && (package.listed().is_none() || state.lists.are_declared(&key))
    }
}

/// A time as local minute in China (UTC+8): `2026-11-23 10:05`.
pub fn local_minute(ms: u64) -> String {
    let day = Day::of(ms);
    let minutes = (ms.saturating_sub(day.begins_ms())) / 60_000;
    format!("{day} {:02}:{:02}", minutes / 60, minutes % 60)
}
