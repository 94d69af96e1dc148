//! What people do: apply, identify, sign, think again, pay, and see it through; and what officers do to the consortium.

use crate::{
    plan::{AUDIT, GAS, Shift},
    run::{City, Context, REST_WITHIN_MS, answered, ms, note_told, until, wait},
    world::{Kind, Sale, Thinks, name},
};
use flow::{CaseError, CaseView, NewCase, case::StepState};
use identity::Identified;
use model::*;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

/// A clerk looks so often, every 40 ms, before they have a list proposed that gathers.
const LOOKS_BEFORE_A_LIST: u32 = 6;

/// A refusal that only says that it was done before.
fn before(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::AlreadyUsed | Refusal::ConsentRepeated | Refusal::ConsentWithdrawn | Refusal::CaseClosed
    )
}

fn done_or_again(result: Result<(), CaseError>) -> Option<Result<(), String>> {
    match result {
        Ok(()) => Some(Ok(())),
        Err(CaseError::Refused(refusal)) if before(refusal) => Some(Ok(())),
        // a crashed node's answers, or a clock that is off: ask again
        Err(CaseError::Refused(Refusal::Expired | Refusal::NotIdentified)) => None,
        Err(CaseError::Refused(refusal)) => Some(Err(format!("refused: {}", refusal.code()))),
        Err(_) => None,
    }
}

/// The people of one sale and their clerk: apply, identify, sign, and see it through to rest.
pub(crate) async fn carry(context: &Context, city: &Arc<City>, i: usize, sale: &Sale) -> Result<(), String> {
    let flat = |e: Result<Result<(), String>, String>| e.and_then(|r| r);
    let id = open(context, city, i, sale).await?;
    if sale.kind == Kind::Twice {
        // the same again: refused while the first is open
        if let Some(flow) = city.flow("bureau")
            && let Some(Ok(second)) = answered(context, flow.open_case(application(sale))).await
        {
            note_case(city, i, second);
        }
    }
    for role in ["seller", "buyer"] {
        let identified = until(context, city, "identification", REST_WITHIN_MS, || async {
            let flow = city.flow("bureau")?;
            let view = flow.case(id)?;
            let role: RoleId = name(role);
            let party = view.case.parties.iter().find(|p| p.role == role)?;
            let chain = flow.chain().rules().chain;
            let at_ms = flow.chain().host().now_ms();
            let who = Identified { chain, case: id, role: &role, subject: party.subject, at_ms };
            let (assertion, signature) = city.world.terminal.vouch_at_counter(&who);
            done_or_again(flow.identify(assertion, signature).await)
        });
        flat(identified.await)?;
    }
    let ready = |view: &CaseView| {
        view.case.settled.is_some()
            || view.unconfirmed.is_some()
            || matches!(view.case.state(&name("precheck")), StepState::Done(_))
    };
    see(context, city, id, "the pre-check", ready).await?;
    let pad = city.world.terminal.pad();
    for role in ["seller", "buyer"] {
        let view = case(context, city, id).await?;
        if view.case.settled.is_some() || view.unconfirmed.is_some() {
            break;
        }
        let signed = until(context, city, "a signature", REST_WITHIN_MS, || async {
            let flow = city.flow("bureau")?;
            let (_, terms) = flow.consent_draft(id, &name(role), Language::Chinese).ok()?;
            let signature = pad.sign(&terms.signing_bytes());
            done_or_again(flow.give_consent(terms, signature).await.map(drop))
        });
        flat(signed.await)?;
    }
    if sale.kind == Kind::Withdrawn {
        think(context, city, id, sale.thinks).await;
        withdraw(context, city, id).await?;
    }
    settle(context, city, id, sale).await
}

fn application(sale: &Sale) -> NewCase {
    let person = |p: &crate::world::Person| flow::Person { id: p.id.clone(), name: p.name.clone() };
    NewCase {
        matter: name("sale"),
        form: BTreeMap::from([(name("unit"), sale.unit.clone())]),
        parties: BTreeMap::from([
            (name("seller"), person(&sale.seller)),
            (name("buyer"), person(&sale.buyer)),
        ]),
    }
}

fn note_case(city: &City, sale: usize, id: CaseId) {
    let mut cases = city.seen.cases.lock().expect("no holder panics");
    let cases = cases.entry(sale).or_default();
    if !cases.contains(&id) {
        cases.push(id);
    }
}

/// Opens the case; where the answer was lost in a crash, finds it again.
async fn open(context: &Context, city: &Arc<City>, i: usize, sale: &Sale) -> Result<CaseId, String> {
    let opened = until(context, city, "opening", REST_WITHIN_MS, || async {
        let flow = city.flow("bureau")?;
        match flow.open_case(application(sale)).await {
            Ok(id) => Some(Ok(id)),
            Err(CaseError::Refused(Refusal::Duplicate)) => {
                let same = |id: &CaseId| {
                    flow.case(*id).is_some_and(|v| v.case.value("form.unit") == Some(&sale.unit))
                };
                flow.case_ids().into_iter().find(same).map(Ok)
            }
            Err(CaseError::Refused(Refusal::Expired)) => None,
            Err(e @ (CaseError::Refused(_) | CaseError::Invalid { .. })) => Some(Err(e.to_string())),
            Err(_) => None,
        }
    });
    let id = opened.await??;
    note_case(city, i, id);
    Ok(id)
}

async fn case(context: &Context, city: &Arc<City>, id: CaseId) -> Result<CaseView, String> {
    until(context, city, "the case", REST_WITHIN_MS, || async { city.flow("bureau")?.case(id) }).await
}

async fn see(
    context: &Context,
    city: &Arc<City>,
    id: CaseId,
    what: &str,
    holds: impl Fn(&CaseView) -> bool,
) -> Result<(), String> {
    let told = || {
        let view = city.flow("bureau").and_then(|f| f.case(id));
        view.map(|v| format!("{:?} {:?}", v.case.settled, v.case.steps)).unwrap_or_default()
    };
    let looks = AtomicU32::new(1);
    until(context, city, what, REST_WITHIN_MS, || async {
        let flow = city.flow("bureau")?;
        let view = flow.case(id)?;
        // a list need not be full for a clerk
        let looked = looks.fetch_add(1, SeqCst);
        if looked.is_multiple_of(LOOKS_BEFORE_A_LIST) && !view.waits.is_empty() {
            flow.propose_now(&name("sale"), &name("bills")).ok();
        }
        holds(&view).then_some(())
    })
    .await
    .map_err(|e| format!("{e}; it stands at {}", told()))
}

/// Waits for the moment a seller thinks again, or until it has passed.
async fn think(context: &Context, city: &Arc<City>, id: CaseId, thinks: Thinks) {
    if let Thinks::After(after) = thinks {
        return wait(context, after).await;
    }
    let steps = ["seller_identity", "buyer_identity", "bills"].map(name::<StepId>);
    for _ in 0..2_000 {
        let view = city.flow("bureau").and_then(|f| f.case(id));
        let come = view.is_some_and(|v| match thinks {
            Thinks::OnceAsked => steps.iter().any(|s| v.case.calls.contains_key(s)),
            _ => steps.iter().all(|s| v.case.values.contains_key(s.as_str())),
        });
        if come {
            if let Thinks::OnceOpened(after) = thinks {
                wait(context, after).await;
            }
            return;
        }
        wait(context, 2).await;
    }
}

async fn withdraw(context: &Context, city: &Arc<City>, id: CaseId) -> Result<(), String> {
    until(context, city, "withdrawal", REST_WITHIN_MS, || async {
        let flow = city.flow("bureau")?;
        let view = flow.case(id)?;
        let Some((consent, ..)) = view.case.consents.get(&name::<RoleId>("seller")) else {
            return view.case.settled.is_some().then_some(Ok(()));
        };
        let consent = ConsentId(consent.0);
        let message = WithdrawConsent::signing_bytes(flow.chain().rules().chain, consent);
        let signature = city.world.terminal.pad().sign(&message);
        done_or_again(flow.withdraw_consent(consent, signature).await)
    })
    .await
    .and_then(|r| r)
}

/// Sees a case to its end: confirms what a person must, pays and goes on where that helps.
async fn settle(context: &Context, city: &Arc<City>, id: CaseId, sale: &Sale) -> Result<(), String> {
    // a node that reads its blocks again after a crash shows for a while what was so before
    let mut paid_at = None;
    loop {
        let rests = |v: &CaseView| v.case.settled.as_ref().is_some_and(|s| Some(s.at_ms) != paid_at);
        see(context, city, id, "rest", |v| rests(v) || v.unconfirmed.is_some()).await?;
        let view = case(context, city, id).await?;
        let Some(settled) = view.case.settled.clone().filter(|_| rests(&view)) else {
            if let Some(flow) = city.flow("bureau") {
                let confirmed = flow.confirm_decision(id, "officer");
                answered(context, confirmed).await;
            }
            wait(context, 50).await;
            continue;
        };
        if settled.outcome == CaseOutcome::Parked && settled.reason == "arrears" && paid_at.is_none() {
            pay(city, sale);
            paid_at = Some(settled.at_ms);
            let resumed = until(context, city, "resumption", REST_WITHIN_MS, || async {
                match city.flow("bureau")?.resume_case(id, "seller", "paid").await {
                    Err(CaseError::Refused(Refusal::WrongState)) | Ok(()) => Some(()),
                    Err(CaseError::Refused(refusal)) if before(refusal) => Some(()),
                    Err(_) => None,
                }
            });
            resumed.await?;
            continue;
        }
        return Ok(());
    }
}

fn pay(city: &City, sale: &Sale) {
    let tables = &city.world.department("power").source.tables;
    let rows: Vec<Vec<String>> = tables
        .rows("accounts")
        .into_iter()
        .map(|row| {
            let mut row = row;
            if row["unit"] == sale.unit {
                row.insert("owed".into(), "0".into());
            }
            ["unit", "holder", "name", "state", "owed"].iter().map(|c| row[*c].clone()).collect()
        })
        .collect();
    tables.table("accounts", &["unit", "holder", "name", "state", "owed"], &rows);
}

/// Begins a change of the consortium and sees it on the ledger.
pub(crate) async fn change(context: &Context, city: &Arc<City>, shift: Shift) -> Result<(), String> {
    let suite = city.world.genesis.suite;
    let chain = crypto::chain_id(&city.world.genesis);
    let put = |i: usize, validator: bool| {
        let department = &city.world.departments[i];
        let flow = city.flow(department.id.as_str())?;
        // the entry of today, but for the vote
        let mut member = flow.chain().roster().1.member(&department.id)?.clone();
        member.validator = validator;
        Some(department.own.put(&chain, member))
    };
    match shift {
        Shift::Rotate(i) => {
            let department = &city.world.departments[i];
            let key = department.votes.fresh(suite);
            let rotation = crypto::Credentials::rotation(&chain, &department.id, &key);
            until(context, city, "a new vote key", REST_WITHIN_MS, || async {
                let flow = city.flow(department.id.as_str())?;
                let body = Body::RotateVote(rotation.clone());
                let event = flow.submit_and_wait(body, Duration::from_secs(20)).await.ok()?;
                note_told(city, &event);
                // refused where its entry was renewed just now: then it keeps the key it has
                (event.outcome != Outcome::Refused(Refusal::Expired)).then_some(())
            })
            .await
        }
        Shift::Swap => {
            adopt(context, city, || put(GAS, true)).await?;
            adopt(context, city, || put(AUDIT, false)).await
        }
        Shift::Protocol => {
            let next = || {
                let now = city.flow("bureau")?.chain().roster().1.protocol;
                // the newest again is refused, as what was done before
                Some(Change::SetProtocol((now + 1).min(*PROTOCOLS.end())))
            };
            adopt(context, city, next).await
        }
        Shift::Revoke => {
            until(context, city, "a revocation", REST_WITHIN_MS, || async {
                let revoke = RevokeBasis { id: name("duty"), note: "the duty has ended".into() };
                let flow = city.flow("registry")?;
                let event =
                    flow.submit_and_wait(Body::RevokeBasis(revoke), Duration::from_secs(20)).await.ok()?;
                note_told(city, &event);
                (event.outcome != Outcome::Refused(Refusal::Expired)).then_some(())
            })
            .await
        }
    }
}

/// Proposes a change and lets three departments approve it.
async fn adopt(
    context: &Context,
    city: &Arc<City>,
    change: impl Fn() -> Option<Change>,
) -> Result<(), String> {
    let chain = crypto::chain_id(&city.world.genesis);
    let submit = |who: &'static str, body: Body| async move {
        let event = city.flow(who)?.submit_and_wait(body, Duration::from_secs(20)).await.ok()?;
        note_told(city, &event);
        Some(event)
    };
    let proposal = until(context, city, "a proposal", REST_WITHIN_MS, || async {
        let (change, expires_ms) = (change()?, ms(context) + 3_600_000);
        let message = Propose::signing_bytes(&chain, &name("bureau"), &change, expires_ms);
        let officer = city.world.department("bureau").own.system.sign(&message);
        let event = submit("bureau", Body::Propose(Propose { change, expires_ms, officer })).await?;
        match event.outcome {
            Outcome::Accepted(_) => Some(Some(ProposalId(event.id.0))),
            // done before, by another of these
            Outcome::Refused(Refusal::UnfitChange) => Some(None),
            Outcome::Refused(_) => None,
        }
    });
    let Some(proposal) = proposal.await? else { return Ok(()) };
    for who in ["bureau", "police", "registry"] {
        let message = Approve::signing_bytes(&chain, &name(who), &proposal);
        let officer = city.world.department(who).own.security.sign(&message);
        until(context, city, "an approval", REST_WITHIN_MS, || async {
            let event = submit(who, Body::Approve(Approve { proposal, officer })).await?;
            (event.outcome != Outcome::Refused(Refusal::Expired)).then_some(())
        })
        .await?;
    }
    Ok(())
}
