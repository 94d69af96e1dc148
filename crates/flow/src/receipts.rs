//! Putting receipts together from the events of a case.

use crate::{
    case::Case,
    package::{Basis, Package},
    run::{Flow, FlowError},
};
use gateway::Source;
use model::*;
use proof::{EventProof, Kind, Receipt, Role};

impl<S: Source> Flow<S> {
    /// The names of a case's receipts: `call-deed`, `consent-seller`, `action-transfer`, `decision-review`, `access-log`.
    pub fn receipt_names(&self, id: CaseId) -> Vec<String> {
        self.plans(id).into_iter().map(|(name, ..)| name).collect()
    }

    /// One receipt of a case.
    pub async fn receipt(&self, id: CaseId, name: &str) -> Result<Option<Receipt>, chain::ChainError> {
        let plan = self.plans(id).into_iter().find(|(n, ..)| n == name);
        let Some((_, kind, terms, events)) = plan else { return Ok(None) };
        let text = match &terms {
            Some(terms) => match self.consent_text_of(terms).await {
                Some(text) => text,
                None => return Ok(None),
            },
            None => String::new(),
        };
        let mut proofs = Vec::with_capacity(events.len());
        for (role, id) in events {
            proofs.push(self.proof(role, id).await?);
        }
        let epochs = proofs.iter().filter_map(|p| decode::<Header>(&p.header).ok()).map(|h| h.epoch);
        let rosters = self.chain.roster_changes(epochs.max().unwrap_or(0)).await?;
        let chain_id = self.chain.rules().chain;
        Ok(Some(Receipt { format: 1, kind, chain_id, text, rosters, events: proofs }))
    }

    /// A proof, remembered: the matter and the catalogue stand in every receipt.
    async fn proof(&self, role: Role, id: CommandId) -> Result<EventProof, chain::ChainError> {
        if let Some(proof) = self.lock().proofs.get(&id) {
            return Ok(EventProof { role, ..proof.clone() });
        }
        let proof = self.chain.prove(id, role).await?;
        let mut state = self.lock();
        if state.proofs.len() >= PROOFS_REMEMBERED {
            state.proofs.clear();
        }
        state.proofs.insert(id, proof.clone());
        Ok(proof)
    }

    fn plans(&self, id: CaseId) -> Vec<Plan> {
        let state = self.lock();
        let Some(case) = state.cases.get(&id) else { return Vec::new() };
        let Some(package) = self.packages.get(&case.matter) else { return Vec::new() };
        let Some((matter, _)) = state.published.matters.get(&case.matter).copied() else { return Vec::new() };
        plan(case, &package, matter)
    }
}

/// The name of a step's receipt, after so many earlier tries: `call-tax`, `call-tax-try2`.
pub fn receipt_name(kind: &str, step: &StepId, earlier: u32) -> String {
    if earlier == 0 { format!("{kind}-{step}") } else { format!("{kind}-{step}-try{}", earlier + 1) }
}

/// How many objections and answers to them a receipt has room for.
const OBJECTIONS_MAX: usize = 8;

/// The objections a receipt shows, with their answers. Where there is no room for all, the oldest that were answered are left out,
/// each with its answer: nothing that is shown looks as if it waited.
fn objections(all: &[(Role, FieldId, CommandId)]) -> Vec<(Role, CommandId)> {
    let mut shown = all.to_vec();
    while shown.len() > OBJECTIONS_MAX {
        let Some(reply) = shown.iter().position(|(role, ..)| *role == Role::Reply) else { break };
        let (_, name, _) = shown.remove(reply);
        // it answers the one objection to its name that came before it
        shown.retain({
            let mut left = reply;
            move |(role, of, _)| {
                let before = left > 0;
                left = left.saturating_sub(1);
                !(before && *role == Role::Objection && *of == name)
            }
        });
    }
    shown.truncate(OBJECTIONS_MAX);
    shown.into_iter().map(|(role, _, id)| (role, id)).collect()
}
/// How many proofs are kept in memory.
const PROOFS_REMEMBERED: usize = 2048;

type Plan = (String, Kind, Option<ConsentTerms>, Vec<(Role, CommandId)>);

/// Which events each receipt of a case holds, in the order of `docs/receipt.md`.
fn plan(case: &Case, package: &Package, matter: CommandId) -> Vec<Plan> {
    let base = || vec![(Role::Matter, matter), (Role::Case, CommandId(case.id.0))];
    let mut plans: Vec<Plan> = Vec::new();
    for (role, (consent, terms, withdrawn)) in &case.consents {
        let Some((identify, _)) = case.identified.get(role) else { continue };
        let mut events = base();
        events.extend([(Role::Identify, *identify), (Role::Consent, *consent)]);
        events.extend(withdrawn.map(|w| (Role::Withdraw, w)));
        plans.push((format!("consent-{role}"), Kind::Consent, Some(terms.clone()), events));
    }
    for (step_id, call) in case
        .earlier
        .calls
        .iter()
        .map(|(s, c)| (s, c))
        .chain(&case.calls)
        .chain(case.deliveries.iter().map(|d| (&d.step, &d.call)))
    {
        let call_events = || {
            let step = package.step(step_id)?;
            let mut events = base();
            events.push((Role::Resource, call.resource?));
            let party = step.party.as_ref()?;
            match step.basis.as_ref()? {
                Basis::Consent => {
                    events.push((Role::Identify, case.identified.get(party)?.0));
                    events.push((Role::Consent, CommandId(call.consent?.0)));
                }
                Basis::SelfAccess => events.push((Role::Identify, case.identified.get(party)?.0)),
                Basis::Statutory(_) => events.push((Role::Approval, call.approval?)),
            }
            events.push((Role::Ask, CommandId(call.id.0)));
            events.extend(call.answer.as_ref().map(|(id, _)| (Role::Answer, *id)));
            events.extend(call.confirm.map(|id| (Role::Confirm, id)));
            events.extend(objections(&call.objections));
            Some(events)
        };
        if let Some(events) = call_events() {
            plans.push((receipt_name("call", step_id, call.attempt), Kind::Call, None, events));
        }
    }
    let tried = |steps: Vec<&StepId>, step: &StepId| steps.into_iter().filter(|s| *s == step).count() as u32;
    let earlier = &case.earlier.actions;
    for (i, (step, action)) in earlier.iter().map(|(s, a)| (s, a)).chain(&case.actions).enumerate() {
        let before = tried(earlier.iter().take(i).map(|(s, _)| s).collect(), step);
        let mut events = base();
        events.push((Role::Request, CommandId(action.id.0)));
        events.extend(action.report.as_ref().map(|(id, _)| (Role::Report, *id)));
        plans.push((receipt_name("action", step, before), Kind::Action, None, events));
    }
    let earlier = &case.earlier.decisions;
    let newest = case.decisions.iter();
    for (i, (step, id)) in earlier.iter().map(|(s, id)| (s, id)).chain(newest).enumerate() {
        let before = tried(earlier.iter().take(i).map(|(s, _)| s).collect(), step);
        let mut events = base();
        events.push((Role::Decide, *id));
        plans.push((receipt_name("decision", step, before), Kind::Decision, None, events));
    }
    if let Some((settle, counted)) = case.counted {
        let mut events = base();
        events.push((Role::Settle, settle));
        events.extend(case.log.iter().take(counted).map(|id| (Role::Ask, *id)));
        plans.push(("access-log".to_owned(), Kind::AccessLog, None, events));
    }
    plans
}

impl From<FlowError> for chain::ChainError {
    fn from(error: FlowError) -> Self {
        match error {
            FlowError::Chain(e) => e,
            _ => Self::Unknown,
        }
    }
}

impl From<FlowError> for crate::CaseError {
    fn from(error: FlowError) -> Self {
        match error {
            FlowError::Chain(e) => Self::Chain(e),
            FlowError::Vault(e) => Self::Vault(e),
            FlowError::Seal(_) | FlowError::Inconsistent(_) => Self::Unknown("step"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_without_room_leaves_out_the_oldest_answered_objections_whole() {
        let event = |role, name: &str, n: u8| (role, name.parse::<FieldId>().unwrap(), CommandId([n; 32]));
        let (object, reply) = (Role::Objection, Role::Reply);
        // five values objected to, and all answered; then the first once more
        let mut all: Vec<_> =
            ["a", "b", "c", "d", "e"].iter().zip(0..).map(|(n, i)| event(object, n, i)).collect();
        all.extend(["b", "a", "c", "d", "e"].iter().zip(5..).map(|(n, i)| event(reply, n, i)));
        all.push(event(object, "b", 10));
        let shown: Vec<u8> = objections(&all).iter().map(|(_, id)| id.0[0]).collect();
        assert_eq!(shown, [2, 3, 4, 7, 8, 9, 10], "b's first round and a's are left out");
        assert_eq!(objections(&all[..5]).len(), 5);
        let open: Vec<_> = (0..12).map(|i| event(object, &format!("n{i}"), i)).collect();
        assert_eq!(objections(&open).len(), OBJECTIONS_MAX);
    }
}
