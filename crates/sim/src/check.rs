//! What must hold at the end of every run, judged from the blocks everybody saw and the departments' databases, by rules
//! written a second time here and not by the ledger's own.

use crate::{
    plan::Plan,
    run::City,
    world::{Kind, Sale},
};
use chain::BlockEvents;
use model::*;
use proof::audit::{Audit, Openings, openings_context};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering::SeqCst,
};

/// How far a block's time may be ahead of the true time: the drift validators bear, and their own clocks' error.
pub const AHEAD_MS_MAX: u64 = 3_000;
/// A follower learns of a final block this much after the node itself, at most.
const FOLLOWER_LAG_MS: u64 = 5;

/// The blocks as first seen, with the time of that.
fn blocks(city: &City) -> Vec<(BlockEvents, u64)> {
    city.seen.blocks.lock().expect("no holder panics").values().cloned().collect()
}

fn accepted(blocks: &[(BlockEvents, u64)]) -> impl Iterator<Item = (&Event, u64)> {
    let events = blocks.iter().flat_map(|(block, seen)| block.events.iter().map(move |e| (e, *seen)));
    events.filter(|(e, _)| matches!(e.outcome, Outcome::Accepted(_)))
}

/// A call whose data was answered and that nobody confirmed, disputed or let lapse.
pub fn unconfirmed(city: &City) -> Option<String> {
    let blocks = blocks(city);
    let mut open = BTreeSet::new();
    for (event, _) in accepted(&blocks) {
        match &event.command.command.body {
            Body::Answer(Answer { call, reply: Reply::Data { .. } }) => drop(open.insert(*call)),
            Body::Confirm(c) => drop(open.remove(&c.call)),
            Body::Lapse(c) => drop(open.remove(&c.call)),
            _ => {}
        }
    }
    open.first().map(|call| format!("{} answered calls, the first {}", open.len(), call.short()))
}

/// Checks everything and notes what does not hold.
pub async fn all(city: &City, plan: &Plan) {
    let blocks = blocks(city);
    let wrong = |what: String| city.seen.wrong(what);
    chain_holds(city, &blocks, &wrong);
    ledger_holds(&blocks, &wrong);
    changes_hold(city, &blocks, &wrong);
    departments_hold(city, &blocks, plan, &wrong);
    payloads_came_late_enough(city, &blocks, &wrong);
    nobody_was_exposed(city, &wrong);
    receipts_hold(city, &blocks, &wrong).await;
    statements_hold(city, &wrong).await;
}

/// Every height once, in order of time, with commands of members only, each once; what a client was told is there.
fn chain_holds(city: &City, blocks: &[(BlockEvents, u64)], wrong: &impl Fn(String)) {
    // nobody's command key changes here, and nobody leaves
    let roster = city.world.genesis.roster();
    let (mut height, mut time, mut ids) = (0, 0, BTreeMap::new());
    for (block, seen) in blocks {
        if block.height != height + 1 {
            wrong(format!("no block is known at height {}", height + 1));
        }
        if block.time_ms < time {
            wrong(format!("time runs back at height {}", block.height));
        }
        if block.time_ms > seen + AHEAD_MS_MAX {
            wrong(format!("block {} is {} ms ahead of the time", block.height, block.time_ms - seen));
        }
        (height, time) = (block.height, block.time_ms);
        for event in &block.events {
            if ids.insert(event.id, block.height).is_some() {
                wrong(format!("command {} was ordered twice", event.id.short()));
            }
            let signer = roster.member(&event.command.command.signer);
            let signed = signer.is_some_and(|m| crypto::verify_command(&m.command_key, &event.command));
            if !signed {
                wrong(format!("command {} at height {} is not its signer's", event.id.short(), block.height));
            }
        }
    }
    for (id, at) in city.seen.told.lock().expect("no holder panics").iter() {
        if ids.get(id) != Some(at) {
            wrong(format!("command {} was final at height {at} and is lost", id.short()));
        }
    }
}

/// The rules of consent, numbering, duplicates and the pivot.
fn ledger_holds(blocks: &[(BlockEvents, u64)], wrong: &impl Fn(String)) {
    let mut calls: BTreeMap<CallId, Ask> = BTreeMap::new();
    let mut withdrawn = BTreeSet::new();
    let mut revoked = false;
    let mut numbers: BTreeMap<(bool, DepartmentId), u64> = BTreeMap::new();
    let mut tags: BTreeMap<Digest, CaseId> = BTreeMap::new();
    let mut open: BTreeMap<CaseId, bool> = BTreeMap::new();
    let mut acting: BTreeMap<CaseId, i32> = BTreeMap::new();
    let mut actions: BTreeMap<ActionId, (CaseId, StepId)> = BTreeMap::new();
    let mut held: BTreeMap<CaseId, i32> = BTreeMap::new();
    let mut listed: BTreeSet<StepId> = BTreeSet::new();
    let mut lists: BTreeMap<ListId, ProposeList> = BTreeMap::new();
    let mut agreed: BTreeMap<(CaseId, StepId), u64> = BTreeMap::new();
    for (event, _) in accepted(blocks) {
        let signer = event.command.command.signer.clone();
        let number = match &event.outcome {
            Outcome::Accepted(Fact::Granted(n, _)) => Some((true, *n)),
            Outcome::Accepted(Fact::Answered(n)) => Some((false, *n)),
            _ => None,
        };
        if let Some((granted, n)) = number {
            let last = numbers.entry((granted, signer.clone())).or_default();
            if n != *last + 1 {
                wrong(format!("{signer} has number {n} after {last}"));
            }
            *last = n;
        }
        match &event.command.command.body {
            Body::OpenCase(c) => {
                let case = CaseId(event.id.0);
                let before = tags.insert(c.tag, case);
                if before.is_some_and(|b| open[&b]) {
                    wrong("the same application is open twice".into());
                }
                open.insert(case, true);
            }
            Body::SettleCase(c) => {
                open.insert(c.case, !c.outcome.is_final());
                let undone = matches!(c.outcome, CaseOutcome::Withdrawn | CaseOutcome::Refused);
                if undone && acting.get(&c.case).is_some_and(|n| *n > 0) {
                    wrong(format!("case {} was undone after something was done", c.case.short()));
                }
                if undone && held.get(&c.case).is_some_and(|n| *n > 0) {
                    wrong(format!("case {} was undone and something is still held", c.case.short()));
                }
            }
            Body::WithdrawConsent(c) => drop(withdrawn.insert(c.consent)),
            Body::RevokeBasis(_) => revoked = true,
            Body::DeclareListed(c) => listed.extend(c.steps.iter().cloned()),
            Body::ProposeList(c) => drop(lists.insert(ListId(event.id.0), c.clone())),
            Body::AnswerList(c) => {
                let list = &lists[&c.list];
                let cases = list.cases.iter().filter(|_| c.refused.is_none());
                agreed.extend(cases.map(|case| ((*case, list.step.clone()), list.until_ms)));
            }
            Body::Ask(c) => {
                let until_ms = agreed.get(&(c.case, c.step.clone())).copied().unwrap_or(0);
                if listed.contains(&c.step) && until_ms < event.time_ms {
                    wrong(format!("case {} was asked about outside of an agreed list", c.case.short()));
                }
                calls.insert(CallId(event.id.0), c.clone());
            }
            Body::Answer(c) => {
                // the one step that rests on a statutory duty
                let data = matches!(c.reply, Reply::Data { .. });
                if data && revoked && calls.get(&c.call).is_some_and(|ask| ask.step.as_str() == "seizure") {
                    wrong(format!("call {} was answered after its basis was taken back", c.call.short()));
                }
                let consent = calls.get(&c.call).and_then(|ask| ask.consent);
                if consent.is_some_and(|consent| withdrawn.contains(&consent)) {
                    wrong(format!("call {} was answered after the consent was withdrawn", c.call.short()));
                }
            }
            Body::RequestAction(c) => {
                actions.insert(ActionId(event.id.0), (c.case, c.step.clone()));
                match c.step.as_str() {
                    "hold" => *held.entry(c.case).or_default() += 1,
                    "undo_hold" if acting.get(&c.case).is_some_and(|n| *n > 0) => {
                        wrong(format!("in case {} something is undone after the pivot", c.case.short()));
                    }
                    "undo_hold" => {}
                    _ => *acting.entry(c.case).or_default() += 1,
                }
            }
            Body::ReportAction(c) => {
                let Some((case, step)) = actions.get(&c.action) else { continue };
                match (step.as_str(), c.failure.is_some()) {
                    ("hold", true) | ("undo_hold", false) => *held.entry(*case).or_default() -= 1,
                    ("hold" | "undo_hold", _) | (_, false) => {}
                    (_, true) => *acting.entry(*case).or_default() -= 1,
                }
            }
            _ => {}
        }
    }
}

/// What was adopted had been approved by as many departments as the genesis says, each once, with its officer's signature;
/// and the roster everybody ends with is the one those changes make.
fn changes_hold(city: &City, blocks: &[(BlockEvents, u64)], wrong: &impl Fn(String)) {
    let genesis = &city.world.genesis;
    let chain = crypto::chain_id(genesis);
    let (mut proposed, mut approved) =
        (BTreeMap::new(), BTreeMap::<ProposalId, BTreeSet<DepartmentId>>::new());
    let (mut validators, mut votes) = (BTreeMap::new(), BTreeMap::new());
    for member in &genesis.members {
        validators.insert(member.id.clone(), member.validator);
        votes.insert(member.id.clone(), member.vote_key);
    }
    let mut due: (Vec<Change>, Vec<(DepartmentId, PublicKey)>) = Default::default();
    let mut protocol = genesis.protocol;
    for (block, _) in blocks {
        for event in &block.events {
            let signer = &event.command.command.signer;
            let Outcome::Accepted(fact) = &event.outcome else { continue };
            match &event.command.command.body {
                Body::Propose(p) => drop(proposed.insert(ProposalId(event.id.0), p.change.clone())),
                Body::Approve(a) => {
                    let officer = &city.world.department(signer.as_str()).own.security.public();
                    let message = Approve::signing_bytes(&chain, signer, &a.proposal);
                    if !crypto::verify(officer, &message, &a.officer) {
                        wrong(format!("{signer} approved something without its security officer"));
                    }
                    let by = approved.entry(a.proposal).or_default();
                    if !by.insert(signer.clone()) {
                        wrong(format!("{signer} approved the same twice"));
                    }
                    if matches!(fact, Fact::Adopted(_)) {
                        if by.len() < genesis.approvals as usize {
                            wrong(format!("a change was adopted with {} approvals", by.len()));
                        }
                        due.0.extend(proposed.get(&a.proposal).cloned());
                    }
                }
                Body::RotateVote(r) => due.1.push((signer.clone(), r.vote_key)),
                _ => {}
            }
        }
        if genesis.ends_epoch(block.height) {
            for change in std::mem::take(&mut due.0) {
                match change {
                    Change::Put(member, _) => drop(validators.insert(member.id.clone(), member.validator)),
                    Change::SetProtocol(version) => protocol = version,
                    Change::Remove(_) | Change::SetApprovals(_) | Change::SetSharing(_) => {
                        wrong("nobody proposed this".into())
                    }
                }
            }
            votes.extend(std::mem::take(&mut due.1));
        }
    }
    let last = blocks.last().map_or(0, |(block, _)| block.height);
    for department in &city.world.departments {
        let Some(flow) = city.flow(department.id.as_str()) else { continue };
        let (epoch, roster) = flow.chain().roster();
        if epoch != genesis.epoch_of(last + 1) {
            // it has followed further than what is judged here, or the epoch ended with the very last block
            continue;
        }
        for member in &roster.members {
            if validators[&member.id] != member.validator || votes[&member.id] != member.vote_key {
                wrong(format!("{} has another roster in epoch {epoch}: {}", department.id, member.id));
            }
        }
        if roster.protocol != protocol {
            wrong(format!("{} follows protocol {} and not {protocol}", department.id, roster.protocol));
        }
    }
}

/// Departments' own systems agree with how the cases ended, and nothing was done twice.
fn departments_hold(city: &City, blocks: &[(BlockEvents, u64)], plan: &Plan, wrong: &impl Fn(String)) {
    for department in &city.world.departments {
        for (key, times) in department.source.tables.performed() {
            if times != 1 {
                wrong(format!("{} did {times} times what {key} asked once", department.id));
            }
        }
    }
    let done = reported_done(blocks);
    let last_outcome: BTreeMap<CaseId, CaseOutcome> = accepted(blocks)
        .filter_map(|(e, _)| match &e.command.command.body {
            Body::SettleCase(c) => Some((c.case, c.outcome)),
            _ => None,
        })
        .collect();
    let cases = city.seen.cases.lock().expect("no holder panics");
    for (i, ids) in cases.iter() {
        let sale = &city.world.sales[*i];
        let of_sale = |step: &str| ids.iter().any(|id| done.contains(&(*id, step.to_owned())));
        for (step, changed) in [
            ("transfer", holder_of(city, "registry", sale)),
            ("power", holder_of(city, "power", sale)),
            ("gas", holder_of(city, "gas", sale)),
        ] {
            let changed = changed.as_ref() == Some(&sale.buyer.id);
            if changed != of_sale(step) {
                wrong(format!(
                    "sale {i}: {step} is {changed} in its department and {} on the ledger",
                    !changed
                ));
            }
        }
        let ended = ids.first().and_then(|id| last_outcome.get(id)).copied();
        let holds = city.world.department("registry").source.tables.rows("holds");
        let held = holds.iter().filter(|row| row["unit"] == sale.unit && row["state"] == "held").count();
        let reported = ids.iter().filter(|id| done.contains(&(**id, "hold".to_owned()))).count();
        let released = ids.iter().filter(|id| done.contains(&(**id, "undo_hold".to_owned()))).count();
        if held + released != reported {
            wrong(format!("sale {i}: {held} held and {released} released of {reported}"));
        }
        if matches!(ended, Some(CaseOutcome::Withdrawn | CaseOutcome::Refused)) && held > 0 {
            wrong(format!("sale {i} ended as {ended:?} and its home is still held"));
        }
        let right = match sale.kind {
            Kind::Plain | Kind::Twice | Kind::Arrears => ended == Some(CaseOutcome::Closed),
            Kind::Seized => ended == Some(CaseOutcome::Refused),
            Kind::GasClosed => ended == Some(CaseOutcome::ClosedPartly),
            Kind::Withdrawn => matches!(ended, Some(CaseOutcome::Withdrawn | CaseOutcome::Closed)),
        };
        // a handler that lies gets no answers, and a person has to look into it
        let lied = !plan.lies.is_empty() && ended == Some(CaseOutcome::NeedsHuman);
        // what may not be asked any more is a person's to look into
        let revoked = plan.revokes() && ended == Some(CaseOutcome::NeedsHuman);
        if !right && !lied && !revoked {
            wrong(format!("sale {i} ({:?}) ended as {ended:?}", sale.kind));
        }
        if ended == Some(CaseOutcome::Closed) && !(of_sale("transfer") && of_sale("power") && of_sale("gas"))
        {
            wrong(format!("sale {i} is closed and not everything was done"));
        }
    }
}

fn reported_done(blocks: &[(BlockEvents, u64)]) -> BTreeSet<(CaseId, String)> {
    let mut requests = BTreeMap::new();
    let mut done = BTreeSet::new();
    for (event, _) in accepted(blocks) {
        match &event.command.command.body {
            Body::RequestAction(c) => {
                drop(requests.insert(ActionId(event.id.0), (c.case, c.step.to_string())))
            }
            Body::ReportAction(c) if c.failure.is_none() => done.extend(requests.get(&c.action).cloned()),
            _ => {}
        }
    }
    done
}

fn holder_of(city: &City, department: &str, sale: &Sale) -> Option<String> {
    let tables = &city.world.department(department).source.tables;
    let (table, column) = if department == "registry" { ("deeds", "person") } else { ("accounts", "holder") };
    let current = |row: &&BTreeMap<String, String>| {
        row["unit"] == sale.unit && (department != "registry" || row["state"] == "current")
    };
    tables.rows(table).iter().find(current).map(|row| row[column].clone())
}

/// No payload reached its asker before its answer was final somewhere.
fn payloads_came_late_enough(city: &City, blocks: &[(BlockEvents, u64)], wrong: &impl Fn(String)) {
    let final_at: BTreeMap<CallId, u64> = accepted(blocks)
        .filter_map(|(e, seen)| match &e.command.command.body {
            Body::Answer(c) => Some((c.call, seen)),
            _ => None,
        })
        .collect();
    for (call, came) in city.seen.arrivals.lock().expect("no holder panics").iter() {
        match final_at.get(call) {
            None => wrong(format!("a payload came for call {}, which was never answered", call.short())),
            Some(at) if came + FOLLOWER_LAG_MS < *at => {
                wrong(format!(
                    "the payload of call {} came {} ms before its answer was final",
                    call.short(),
                    at - came
                ));
            }
            Some(_) => {}
        }
    }
}

/// No source was asked about somebody who is party to no sale, and nobody's identifier reached a ledger's disk.
fn nobody_was_exposed(city: &City, wrong: &impl Fn(String)) {
    let known: BTreeSet<&str> =
        city.world.sales.iter().flat_map(|s| [s.seller.id.as_str(), s.buyer.id.as_str()]).collect();
    for department in &city.world.departments {
        for asked in department.source.subjects.lock().expect("no holder panics").iter() {
            if identifier::resident(asked).is_ok_and(|person| !known.contains(person.as_str())) {
                wrong(format!("{} was asked about a stranger", department.id));
            }
        }
        if let Some(place) = department.fuse.leaked.lock().expect("no holder panics").first() {
            wrong(format!("an identifier reached the disk of {} ({place})", department.id));
        }
    }
}

/// Every call of every case has a receipt, and every receipt verifies from the genesis alone.
async fn receipts_hold(city: &City, blocks: &[(BlockEvents, u64)], wrong: &impl Fn(String)) {
    let Some(flow) = city.flow("bureau") else { return wrong("the bureau's node is down at the end".into()) };
    let cases: Vec<CaseId> =
        city.seen.cases.lock().expect("no holder panics").values().flatten().copied().collect();
    for id in cases {
        let names = flow.receipt_names(id);
        let asked =
            accepted(blocks).filter(|(e, _)| matches!(&e.command.command.body, Body::Ask(c) if c.case == id));
        let steps: Vec<_> = asked
            .filter_map(|(e, _)| match &e.command.command.body {
                Body::Ask(c) => Some(format!("{} {}", c.step, c.attempt)),
                _ => None,
            })
            .collect();
        if steps.len() != names.iter().filter(|n| n.starts_with("call-")).count() {
            wrong(format!("case {} has the calls {steps:?} and the receipts {names:?}", id.short()));
        }
        let settled = accepted(blocks)
            .filter(|(e, _)| matches!(&e.command.command.body, Body::SettleCase(c) if c.case == id))
            .map(|(e, _)| (e.height, e.index))
            .max();
        let counted = accepted(blocks)
            .filter(|(e, _)| matches!(&e.command.command.body, Body::Ask(c) if c.case == id))
            .filter(|(e, _)| Some((e.height, e.index)) < settled)
            .count();
        for name in names {
            match flow.receipt(id, &name).await {
                Ok(Some(receipt)) => match proof::verify(&receipt.to_bytes(), &city.world.genesis) {
                    Ok(facts) if name == "access-log" && facts.fields.len() != counted => {
                        wrong(format!(
                            "the log of case {} has {} of {counted} calls",
                            id.short(),
                            facts.fields.len()
                        ));
                    }
                    Ok(_) => {}
                    Err(e) => wrong(format!("receipt {name}: {e}")),
                },
                other => wrong(format!("receipt {name} cannot be had: {:?}", other.err())),
            }
        }
    }
}

/// What holders state of people holds before an auditor who has the ledger and the openings they owe.
async fn statements_hold(city: &City, wrong: &impl Fn(String)) {
    let (genesis, auditor) = (&city.world.genesis, city.world.department("audit"));
    let (first, last) = (city.world.sales.first(), city.world.sales.last());
    // calls about a home are statutory, and withheld
    let subjects = [first.map(|s| &s.seller.id), last.map(|s| &s.buyer.id), first.map(|s| &s.unit)];
    // the others have cut off whoever voted twice
    for department in city.world.departments.iter().skip(usize::from(city.twin.load(SeqCst))) {
        let holder = &department.id;
        let Some(flow) = city.flow(holder.as_str()) else { continue };
        let mut statements = Vec::new();
        for subject in subjects.into_iter().flatten() {
            match flow.state(subject).await {
                Ok(statement) => statements.push((subject, statement)),
                Err(e) => wrong(format!("{holder} cannot state its answers: {e}")),
            }
        }
        let context = openings_context(&crypto::chain_id(genesis), holder, &auditor.id);
        let openings = match flow.openings_for(&auditor.id).await {
            Ok(sealed) => crypto::open(&auditor.own.keys.seal, &context, &sealed).ok(),
            Err(_) => None,
        };
        let Some(openings) = openings.and_then(|plain| decode::<Openings>(&plain).ok()) else {
            wrong(format!("{holder} does not open its answers to the auditor"));
            continue;
        };
        let mut audit = Audit::of(genesis.suite, holder.clone());
        blocks(city).iter().flat_map(|(block, _)| &block.events).for_each(|event| audit.follow(event));
        let mut findings = audit.check_openings(&openings);
        for (subject, statement) in statements {
            match proof::verify_statement(&statement.to_bytes(), genesis) {
                Ok((verified, facts)) if verified.is_about(genesis.suite, subject) => {
                    findings.extend(audit.check_statement(&verified, facts.time, &openings));
                }
                Ok(_) => wrong(format!("a statement of {holder} is about somebody else")),
                Err(e) => wrong(format!("a statement of {holder} does not verify: {e}")),
            }
        }
        if !findings.is_empty() {
            wrong(format!("an audit convicts {holder}: {findings:?}"));
        }
    }
}
