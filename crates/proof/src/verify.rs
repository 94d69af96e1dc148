//! The checks, in the order `docs/receipt.md` gives them.

use crate::{
    Facts,
    receipt::{Decoded, EventProof, Finality, Kind, Receipt, Role, RosterChange},
};
use crypto::{command_id, header_hash};
use model::*;

/// The largest receipt file that is read, in bytes.
const RECEIPT_BYTES_MAX: usize = 8 << 20;
/// The longest walk from a block to a certified one.
const WALK_MAX: usize = 1024;

/// The most events a receipt can have, and an access log.
const EVENTS_MAX: usize = 16;
const LOG_EVENTS_MAX: usize = 1024;
/// The most changes of the roster a receipt can have.
const ROSTERS_MAX: usize = 4096;

/// A receipt does not prove what it says, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Rejected(pub String);

pub(crate) fn reject<T>(reason: impl Into<String>) -> Result<T, Rejected> {
    Err(Rejected(reason.into()))
}

pub(crate) fn ensure(holds: bool, reason: &str) -> Result<(), Rejected> {
    if holds { Ok(()) } else { reject(reason) }
}

/// Verifies the bytes of a receipt file against a genesis and says what they prove.
pub fn verify(file: &[u8], genesis: &Genesis) -> Result<Facts, Rejected> {
    ensure(file.len() <= RECEIPT_BYTES_MAX, "the file is larger than any receipt")?;
    genesis.check().map_err(|e| Rejected(format!("the genesis is not valid: {e}")))?;
    let receipt: Receipt =
        serde_json::from_slice(file).map_err(|e| Rejected(format!("not a receipt: {e}")))?;
    ensure(receipt.format == 1, "the receipt's format is not 1")?;
    ensure(receipt.to_bytes() == file, "the file is not canonical: it was changed or re-formatted")?;
    let most = if receipt.kind == Kind::AccessLog { LOG_EVENTS_MAX } else { EVENTS_MAX };
    ensure(receipt.events.len() <= most, "the receipt has more events than its kind")?;
    let chain = crypto::chain_id(genesis);
    ensure(receipt.chain_id == chain, "the receipt is of another ledger than this genesis")?;
    let rosters = Rosters::check(&receipt.rosters, chain, genesis)?;
    let events = receipt
        .events
        .iter()
        .map(|proof| check_event(proof, chain, genesis, &rosters))
        .collect::<Result<Vec<_>, _>>()?;
    let newest = events.iter().map(|e| e.header.epoch).max().unwrap_or(0);
    ensure(rosters.last().epoch <= newest, "the receipt has a change of the roster that no event needs")?;
    check_order(&events)?;
    link(&receipt, &events)
}

/// The rosters a ledger had, from its genesis on: each named by a header that the one before it made final.
pub struct Rosters(Vec<(Roster, Digest)>);

impl Rosters {
    /// The first roster.
    pub fn genesis(genesis: &Genesis) -> Self {
        let roster = genesis.roster();
        let hash = crypto::roster_hash(genesis.suite, &roster);
        Self(vec![(roster, hash)])
    }

    pub(crate) fn check(
        changes: &[RosterChange],
        chain: ChainId,
        genesis: &Genesis,
    ) -> Result<Self, Rejected> {
        ensure(changes.len() <= ROSTERS_MAX, "the receipt has more changes of the roster than any ledger")?;
        let mut rosters = Self::genesis(genesis);
        for change in changes {
            let at = |e: DecodeError| Rejected(format!("a change of the roster: {e}"));
            let header: Header = decode(&change.header).map_err(at)?;
            let roster: Roster = decode(&change.roster).map_err(at)?;
            verify_finality(&change.finality, chain, genesis, &rosters, &header)?;
            let next = EpochEnd { roster, blocks: change.blocks, past: change.past };
            ensure(next.roster.epoch > header.epoch, "a change of the roster changes nothing")?;
            rosters.follow(genesis, &header, &next)?;
        }
        Ok(rosters)
    }

    /// The newest.
    pub fn last(&self) -> &Roster {
        &self.0.last().expect("there is always the genesis'").0
    }

    /// The roster in force at a header: the last that began by its epoch, and the one the header names.
    pub fn of(&self, header: &Header) -> Result<&Roster, Rejected> {
        let found = self.0.iter().rev().find(|(roster, _)| roster.epoch <= header.epoch);
        let (roster, hash) = found.expect("the first is in force from epoch 0");
        ensure(header.roster == *hash, "a header names another roster than the one in force")?;
        Ok(roster)
    }

    /// Takes in what the last header of an epoch names. The header itself must have been checked to be final.
    pub fn follow(&mut self, genesis: &Genesis, last: &Header, end: &EpochEnd) -> Result<(), Rejected> {
        let ends = genesis.ends_epoch(last.height) && genesis.epoch_of(last.height) == last.epoch;
        ensure(ends, "a header that ends no epoch changes the roster")?;
        let hash = crypto::roster_hash(genesis.suite, &end.roster);
        let named = crypto::epoch_end_hash(genesis.suite, &hash, &end.blocks, &end.past);
        ensure(named == last.epoch_end, "a roster is not the one its header names")?;
        if hash == last.roster {
            return Ok(());
        }
        ensure(Some(end.roster.epoch) == last.epoch.checked_add(1), "a roster is of another epoch")?;
        ensure(end.roster.epoch > self.last().epoch, "a change of the roster stands twice")?;
        end.roster.check(genesis.suite).map_err(|e| Rejected(format!("a roster is not valid: {e}")))?;
        self.0.push((end.roster.clone(), hash));
        Ok(())
    }
}

/// Pairs of events of which the first must have been ordered before the second.
const CHRONICLE: [(Role, Role); 15] = [
    (Role::Matter, Role::Case),
    (Role::Case, Role::Identify),
    (Role::Case, Role::Ask),
    (Role::Case, Role::Request),
    (Role::Case, Role::Decide),
    (Role::Identify, Role::Consent),
    (Role::Identify, Role::Ask),
    (Role::Consent, Role::Ask),
    (Role::Ask, Role::Answer),
    (Role::Answer, Role::Confirm),
    (Role::Consent, Role::Withdraw),
    (Role::Request, Role::Report),
    (Role::Case, Role::Settle),
    (Role::Resource, Role::Ask),
    (Role::Approval, Role::Ask),
];

/// What rests on another event must have been ordered after it.
fn check_order(events: &[Decoded]) -> Result<(), Rejected> {
    let place = |role| events.iter().find(|e| e.role == role).map(|e| (e.header.height, e.index));
    for (first, second) in CHRONICLE {
        if let (Some(a), Some(b)) = (place(first), place(second)) {
            ensure(a < b, "an event was ordered before one it rests on")?;
        }
    }
    Ok(())
}

/// Checks that one event is on the ledger: signature, inclusion, header walk, finality.
pub(crate) fn check_event(
    proof: &EventProof,
    chain: ChainId,
    genesis: &Genesis,
    rosters: &Rosters,
) -> Result<Decoded, Rejected> {
    let role = proof.role;
    let at = |e: DecodeError| Rejected(format!("{role:?}: {e}"));
    let signed: SignedCommand = decode(&proof.command).map_err(at)?;
    let outcome: Outcome = decode(&proof.outcome).map_err(at)?;
    let header: Header = decode(&proof.header).map_err(at)?;
    ensure(
        signed.command.chain == chain && signed.suite == genesis.suite,
        "a command is of another ledger or suite",
    )?;
    let Some(member) = rosters.of(&header)?.member(&signed.command.signer) else {
        return reject("a command's signer was no member of this consortium");
    };
    ensure(crypto::verify_command(&member.command_key, &signed), "a command's signature does not verify")?;

    let tree = crypto::tree(genesis.suite);
    let leaf = Event::leaf(proof.index, &proof.command, &proof.outcome);
    let leaf = merkle::leaf(tree, &leaf);
    let root = merkle::root_from_path(tree, leaf, proof.index as usize, proof.size as usize, &proof.path);
    ensure(root == Some(header.event_root), "an event is not in its block")?;

    ensure(proof.walk.len() <= WALK_MAX, "the walk of headers is too long")?;
    ensure(header.chain.0 == chain.0, "a header is of another ledger")?;
    let mut last = header.clone();
    for bytes in &proof.walk {
        let next: Header = decode(bytes).map_err(at)?;
        let follows = next.parent == header_hash(genesis.suite, &last)
            && Some(next.height) == last.height.checked_add(1)
            && next.chain == last.chain
            && next.epoch == last.epoch;
        ensure(follows, "a header does not follow the one before it")?;
        last = next;
    }
    verify_finality(&proof.finality, chain, genesis, rosters, &last)?;
    Ok(Decoded { role, signed, outcome, header, index: proof.index })
}

/// Checks that a quorum of the validators of a header's epoch signed it as final.
pub fn verify_finality(
    finality: &Finality,
    chain: ChainId,
    genesis: &Genesis,
    rosters: &Rosters,
    last: &Header,
) -> Result<(), Rejected> {
    let of_epoch = last.chain.0 == chain.0 && last.epoch == genesis.epoch_of(last.height);
    ensure(of_epoch, "a header is of another ledger, or its height is of another epoch")?;
    let validators = rosters.of(last)?.validators();
    ensure(finality.epoch == last.epoch, "the finality proof is of another epoch")?;
    ensure(finality.votes.len() >= Quorum::of(validators.len()), "too few validators signed")?;
    let message = crypto::finalize_message(
        &chain,
        finality.epoch,
        finality.view,
        finality.parent_view,
        &header_hash(genesis.suite, last),
    );
    let mut before = None;
    for vote in &finality.votes {
        ensure(
            before.is_none_or(|b| b < vote.signer),
            "validators must be listed in ascending order, each once",
        )?;
        before = Some(vote.signer);
        let validator =
            validators.get(vote.signer as usize).ok_or(Rejected("there is no such validator".into()))?;
        let signature: [u8; 64] = vote.signature[..]
            .try_into()
            .map_err(|_| Rejected("a vote's signature has a wrong length".into()))?;
        let signed = crypto::verify(&validator.vote_key, &message, &signature);
        ensure(signed, "a validator's signature does not verify")?;
    }
    Ok(())
}

/// The events of a receipt, taken one by one in their fixed order.
struct Reader<'a> {
    events: &'a [Decoded],
}

impl<'a> Reader<'a> {
    fn optional(&mut self, role: Role) -> Option<&'a Decoded> {
        let (first, rest) = self.events.split_first()?;
        if first.role != role {
            return None;
        }
        self.events = rest;
        Some(first)
    }

    fn next(&mut self, role: Role) -> Result<&'a Decoded, Rejected> {
        self.optional(role)
            .ok_or_else(|| Rejected(format!("the receipt lacks its {role:?} event, or has it out of place")))
    }

    fn accepted(&mut self, role: Role) -> Result<&'a Decoded, Rejected> {
        let event = self.next(role)?;
        ensure(matches!(event.outcome, Outcome::Accepted(_)), "an event it rests on was refused")?;
        Ok(event)
    }
}

/// Checks that the events belong together, as the kind demands, and draws the facts from them.
fn link(receipt: &Receipt, events: &[Decoded]) -> Result<Facts, Rejected> {
    ensure(receipt.kind == Kind::Consent || receipt.text.is_empty(), "only a consent has a text")?;
    let mut reader = Reader { events };
    let matter_event = reader.accepted(Role::Matter)?;
    let Body::PublishMatter(matter) = &matter_event.command().body else {
        return reject("the Matter event publishes no matter");
    };
    let case_event = reader.accepted(Role::Case)?;
    let Body::OpenCase(open) = &case_event.command().body else {
        return reject("the Case event opens no case");
    };
    let of_matter = open.matter == matter.id
        && open.version == matter.version
        && case_event.command().signer == matter_event.command().signer;
    ensure(of_matter, "the case is of another matter")?;
    let case = CaseId(command_id(&case_event.signed).0);
    let base = Facts {
        kind: receipt.kind,
        asker: String::new(),
        holder: String::new(),
        purpose: String::new(),
        basis: String::new(),
        assurance: String::new(),
        matter: matter.id.to_string(),
        case: case.to_string(),
        step: String::new(),
        fields: vec![],
        status: String::new(),
        objections: vec![],
        height: 0,
        time: 0,
    };
    let facts = match receipt.kind {
        Kind::Call => link_call(&mut reader, matter, open, case, base)?,
        Kind::Consent => link_consent(&mut reader, receipt, open, case, base)?,
        Kind::Action => link_action(&mut reader, matter, case, base)?,
        Kind::Decision => link_decision(&mut reader, case, base)?,
        Kind::AccessLog => link_access_log(&mut reader, matter, &case_event.command().signer, case, base)?,
        Kind::Statement => return reject("a statement is no receipt"),
        Kind::Publication => return reject("a publication is no receipt"),
    };
    ensure(reader.events.is_empty(), "the receipt has an event too many")?;
    Ok(facts)
}

fn link_call(
    reader: &mut Reader<'_>,
    matter: &PublishMatter,
    open: &OpenCase,
    case: CaseId,
    base: Facts,
) -> Result<Facts, Rejected> {
    let resource_event = reader.accepted(Role::Resource)?;
    let Body::PublishResource(resource) = &resource_event.command().body else {
        return reject("the Resource event publishes no resource");
    };
    let identify = reader.optional(Role::Identify);
    let consent_event = reader.optional(Role::Consent);
    let approval_event = reader.optional(Role::Approval);
    let ask_event = reader.next(Role::Ask)?;
    let Body::Ask(ask) = &ask_event.command().body else { return reject("the Ask event asks nothing") };
    ensure(ask.case == case, "the call is of another case")?;
    let asker = &ask_event.command().signer;
    let declared = matter.needs.iter().find(|n| n.step == ask.step && &n.recipient == asker);
    let Some(need) = declared else { return reject("the matter declares no such need") };
    let of_resource = resource.id == need.resource
        && resource.holder == need.holder
        && resource_event.command().signer == need.holder;
    ensure(of_resource, "the catalogue entry is of another resource")?;
    let (basis, assurance) = match &need.basis {
        NeedBasis::Consent => {
            let assurance = check_consent_event(consent_event, identify, ask, need, open, case)?;
            ("consent".to_string(), assurance)
        }
        NeedBasis::Statutory(id) => {
            ensure(identify.is_none() && consent_event.is_none(), "a statutory call rests on no consent")?;
            let citation = match approval_event.map(|e| (&e.command().body, &e.command().signer, &e.outcome))
            {
                Some((Body::ApproveBasis(a), signer, Outcome::Accepted(_)))
                    if &a.id == id
                        && signer == &need.holder
                        && &a.asker == asker
                        && a.resource == need.resource =>
                {
                    let names = need.what.names().iter().all(|n| a.names.contains(n));
                    ensure(names && a.matter == matter.id, "the approval covers something else")?;
                    let refused = matches!(ask_event.outcome, Outcome::Refused(_));
                    ensure(refused || a.expires_ms >= ask_event.header.time_ms, "the approval had expired")?;
                    &a.citation
                }
                None if matches!(ask_event.outcome, Outcome::Refused(_)) => {
                    return refused(ask_event, need, base);
                }
                _ => return reject("the approval of the statutory basis is missing or another's"),
            };
            (format!("statutory: {citation}"), String::new())
        }
        NeedBasis::SelfAccess => {
            ensure(consent_event.is_none(), "self-access rests on no consent")?;
            ("self_access".to_string(), identified(identify, open, case, &need.party)?)
        }
    };
    if !matches!(need.basis, NeedBasis::Statutory(_)) {
        ensure(approval_event.is_none(), "only a statutory basis has an approval")?;
    }
    let mut facts = Facts { basis, assurance, ..call_facts(ask_event, need, base) };
    if let Outcome::Refused(refusal) = ask_event.outcome {
        facts.status = format!("refused: {}", refusal.code());
        return Ok(facts);
    }
    facts.status = "granted".into();
    let Some(answer_event) = reader.optional(Role::Answer) else { return Ok(facts) };
    let call = CallId(command_id(&ask_event.signed).0);
    let Body::Answer(answer) = &answer_event.command().body else {
        return reject("the Answer event answers nothing");
    };
    ensure(
        answer.call == call && answer_event.command().signer == need.holder,
        "the answer is of another call",
    )?;
    facts.status = match (&answer_event.outcome, &answer.reply) {
        (Outcome::Refused(refusal), _) => format!("answer refused: {}", refusal.code()),
        (_, Reply::Declined(code)) => format!("declined: {code}"),
        (_, Reply::Data { .. }) => "answered".into(),
    };
    let answered =
        matches!((&answer_event.outcome, &answer.reply), (Outcome::Accepted(_), Reply::Data { .. }));
    if let Some(confirm_event) = reader.optional(Role::Confirm) {
        let Body::Confirm(confirm) = &confirm_event.command().body else {
            return reject("the Confirm event confirms nothing");
        };
        let confirms = answered
            && confirm.call == call
            && &confirm_event.command().signer == asker
            && matches!(confirm_event.outcome, Outcome::Accepted(_));
        ensure(confirms, "the confirmation is of another call")?;
        facts.status = if confirm.dispute.is_some() { "disputed" } else { "opened" }.into();
    }
    facts.objections = objections(reader, need, call, answer_event)?;
    ensure(answered || facts.objections.is_empty(), "an objection to a call that gave nothing")?;
    Ok(facts)
}

/// The objections to values of a call and the holder's answers to them, in the order they were made.
fn objections(
    reader: &mut Reader<'_>,
    need: &Need,
    call: CallId,
    answer: &Decoded,
) -> Result<Vec<String>, Rejected> {
    // the name, and what came of it: none while it waits
    let mut said: Vec<(FieldId, Wrong, Option<Verdict>)> = Vec::new();
    let mut before = (answer.header.height, answer.index);
    while let Some(event) = reader.optional(Role::Objection).or_else(|| reader.optional(Role::Reply)) {
        ensure((event.header.height, event.index) > before, "an objection was ordered before its cause")?;
        before = (event.header.height, event.index);
        ensure(matches!(event.outcome, Outcome::Accepted(_)), "an objection or its answer was refused")?;
        let command = event.command();
        match (event.role, &command.body) {
            (Role::Objection, Body::Object(o)) => {
                let fits = o.call == call
                    && command.signer == need.recipient
                    && need.what.names().contains(&o.name)
                    && !said.iter().any(|(name, _, reply)| name == &o.name && reply.is_none());
                ensure(fits, "an objection is to another call or value")?;
                said.push((o.name.clone(), o.wrong, None));
            }
            (Role::Reply, Body::AnswerObjection(a)) => {
                let open = said.iter_mut().find(|(name, _, reply)| name == &a.name && reply.is_none());
                let Some((_, _, reply)) = open.filter(|_| a.call == call && command.signer == need.holder)
                else {
                    return reject("an answer is to no objection of the receipt");
                };
                *reply = Some(a.verdict);
            }
            _ => return reject("an objection's event is of another kind"),
        }
    }
    let word = |wrong: Wrong, reply: Option<Verdict>| reply.map_or(wrong.as_str(), Verdict::as_str);
    Ok(said.into_iter().map(|(name, wrong, reply)| format!("{name}: {}", word(wrong, reply))).collect())
}

fn call_facts(ask: &Decoded, need: &Need, base: Facts) -> Facts {
    Facts {
        asker: need.recipient.to_string(),
        holder: need.holder.to_string(),
        purpose: need.purpose.zh.clone(),
        step: need.step.to_string(),
        fields: need.what.names().iter().map(ToString::to_string).collect(),
        height: ask.header.height,
        time: ask.header.time_ms,
        ..base
    }
}

fn refused(ask: &Decoded, need: &Need, base: Facts) -> Result<Facts, Rejected> {
    let Outcome::Refused(refusal) = ask.outcome else { return reject("the call was not refused") };
    Ok(Facts { status: format!("refused: {}", refusal.code()), ..call_facts(ask, need, base) })
}

/// Checks the consent a call rests on and returns its assurance.
fn check_consent_event(
    consent: Option<&Decoded>,
    identify: Option<&Decoded>,
    ask: &Ask,
    need: &Need,
    open: &OpenCase,
    case: CaseId,
) -> Result<String, Rejected> {
    let Some(event) = consent else { return reject("the consent it rests on is missing") };
    let Body::GiveConsent(given) = &event.command().body else {
        return reject("the Consent event gives no consent");
    };
    let id = ConsentId(command_id(&event.signed).0);
    ensure(ask.consent == Some(id) && given.terms.case == case, "the consent is of another call or case")?;
    ensure(matches!(event.outcome, Outcome::Accepted(_)), "the consent was refused")?;
    let covered = given.terms.role == need.party
        && given.terms.items.iter().any(|i| {
            i.step == need.step
                && i.recipient == need.recipient
                && i.holder == need.holder
                && i.resource == need.resource
                && i.what == need.what
        });
    ensure(covered, "the consent does not cover this call")?;
    let assurance = identified(identify, open, case, &need.party)?;
    check_consent_signature(identify, given)?;
    Ok(assurance)
}

/// Checks who identified a party, and returns method and level.
fn identified(
    identify: Option<&Decoded>,
    open: &OpenCase,
    case: CaseId,
    role: &RoleId,
) -> Result<String, Rejected> {
    let Some(event) = identify else { return reject("the identification it rests on is missing") };
    let Body::Identify(identify) = &event.command().body else {
        return reject("the Identify event identifies nobody");
    };
    let said = &identify.assertion;
    let fits = said.case == case && &said.role == role && matches!(event.outcome, Outcome::Accepted(_));
    ensure(fits, "the identification is of another case or party")?;
    let party = open.parties.iter().find(|p| &p.role == role);
    ensure(party.is_some_and(|p| p.subject == said.subject), "nobody in this case was identified")?;
    let signed = crypto::verify(&said.terminal, &said.signing_bytes(), &identify.signature);
    ensure(signed, "the terminal's signature does not verify")?;
    Ok(format!("{:?}/{:?}", said.method, said.level).to_lowercase())
}

fn check_consent_signature(identify: Option<&Decoded>, given: &GiveConsent) -> Result<(), Rejected> {
    let Some(Body::Identify(identify)) = identify.map(|e| &e.command().body) else {
        return reject("the identification it rests on is missing");
    };
    let said = &identify.assertion;
    ensure(said.subject == given.terms.subject, "the consent is of another person than was identified")?;
    let signed = crypto::verify(&said.signer, &given.terms.signing_bytes(), &given.signature);
    ensure(signed, "the person's signature does not verify")
}

fn link_consent(
    reader: &mut Reader<'_>,
    receipt: &Receipt,
    open: &OpenCase,
    case: CaseId,
    base: Facts,
) -> Result<Facts, Rejected> {
    let identify = reader.accepted(Role::Identify)?;
    let event = reader.accepted(Role::Consent)?;
    let Body::GiveConsent(given) = &event.command().body else {
        return reject("the Consent event gives no consent");
    };
    ensure(given.terms.case == case, "the consent is of another case")?;
    let assurance = identified(Some(identify), open, case, &given.terms.role)?;
    check_consent_signature(Some(identify), given)?;
    let text = crypto::hash(event.signed.suite, "tongban/text/1", &[receipt.text.as_bytes()]);
    ensure(text == given.terms.text, "the text is not the one that was signed")?;
    let mut status = "given".to_string();
    if let Some(withdraw) = reader.optional(Role::Withdraw) {
        let Body::WithdrawConsent(w) = &withdraw.command().body else {
            return reject("nothing is withdrawn");
        };
        let of_this =
            w.consent.0 == command_id(&event.signed).0 && matches!(withdraw.outcome, Outcome::Accepted(_));
        ensure(of_this, "another consent was withdrawn")?;
        let Body::Identify(i) = &identify.command().body else { return reject("nobody was identified") };
        let message = WithdrawConsent::signing_bytes(receipt.chain_id, w.consent);
        let signed = crypto::verify(&i.assertion.signer, &message, &w.signature);
        ensure(signed, "the withdrawal's signature does not verify")?;
        status = "withdrawn".into();
    }
    let names = given.terms.items.iter().flat_map(|i| {
        i.what
            .names()
            .into_iter()
            .map(move |n| format!("{} <- {}: {}.{n}", i.recipient, i.holder, i.resource))
    });
    Ok(Facts {
        asker: event.command().signer.to_string(),
        basis: "consent".into(),
        assurance,
        step: given.terms.role.to_string(),
        fields: names.collect(),
        status,
        height: event.header.height,
        time: event.header.time_ms,
        ..base
    })
}

fn link_action(
    reader: &mut Reader<'_>,
    matter: &PublishMatter,
    case: CaseId,
    base: Facts,
) -> Result<Facts, Rejected> {
    let event = reader.next(Role::Request)?;
    let Body::RequestAction(request) = &event.command().body else { return reject("nothing is requested") };
    ensure(request.case == case, "the action is of another case")?;
    let declared = matter.actions.iter().find(|a| a.0 == request.step);
    let Some((_, performer, operation)) = declared else {
        return reject("the matter declares no such action");
    };
    let mut facts = Facts {
        asker: event.command().signer.to_string(),
        holder: performer.to_string(),
        purpose: operation.to_string(),
        step: request.step.to_string(),
        status: "requested".into(),
        height: event.header.height,
        time: event.header.time_ms,
        ..base
    };
    if let Outcome::Refused(refusal) = event.outcome {
        facts.status = format!("refused: {}", refusal.code());
        return Ok(facts);
    }
    if let Some(report_event) = reader.optional(Role::Report) {
        let Body::ReportAction(report) = &report_event.command().body else {
            return reject("nothing is reported");
        };
        let of_this = report.action.0 == command_id(&event.signed).0
            && &report_event.command().signer == performer
            && matches!(report_event.outcome, Outcome::Accepted(_));
        ensure(of_this, "the report is of another action")?;
        facts.status = report.failure.as_ref().map_or("done".into(), |code| format!("failed: {code}"));
    }
    Ok(facts)
}

/// The calls of a case are numbered without gaps, and the settlement says how many there were: none can be left out.
fn link_access_log(
    reader: &mut Reader<'_>,
    matter: &PublishMatter,
    handler: &DepartmentId,
    case: CaseId,
    base: Facts,
) -> Result<Facts, Rejected> {
    let event = reader.next(Role::Settle)?;
    // once more after its end, where a subscription outlasted the case
    let (counted, step, complete) = match &event.command().body {
        Body::SettleCase(settle) => (settle.case, settle.step.to_string(), settle.outcome.is_final()),
        Body::CountCase(count) => (count.case, String::new(), false),
        _ => return reject("nothing is settled"),
    };
    let Outcome::Accepted(Fact::Settled(granted, refused)) = event.outcome else {
        return reject("the settlement was refused");
    };
    ensure(counted == case && &event.command().signer == handler, "another case was settled")?;
    let mut fields = Vec::new();
    for number in 1..=granted {
        let ask_event = reader.next(Role::Ask)?;
        let Body::Ask(ask) = &ask_event.command().body else { return reject("the Ask event asks nothing") };
        ensure(ask.case == case, "a call is of another case")?;
        let numbered = matches!(ask_event.outcome, Outcome::Accepted(Fact::Granted(_, n)) if n == number);
        ensure(numbered, "a call is missing from the log, or out of its order")?;
        let before = (ask_event.header.height, ask_event.index) < (event.header.height, event.index);
        ensure(before, "a call came after the settlement that counts it")?;
        let asker = &ask_event.command().signer;
        let declared = matter.needs.iter().find(|n| n.step == ask.step && &n.recipient == asker);
        let Some(need) = declared else { return reject("the matter declares no such need") };
        let names: Vec<_> = need.what.names().iter().map(ToString::to_string).collect();
        fields.push(format!("{asker} <- {}: {}.{}", need.holder, need.resource, names.join(",")));
    }
    Ok(Facts {
        asker: handler.to_string(),
        step,
        fields,
        status: format!(
            "{}: {granted} granted, {refused} refused",
            if complete { "complete" } else { "so far" }
        ),
        height: event.header.height,
        time: event.header.time_ms,
        ..base
    })
}

fn link_decision(reader: &mut Reader<'_>, case: CaseId, base: Facts) -> Result<Facts, Rejected> {
    let event = reader.accepted(Role::Decide)?;
    let Body::Decide(decide) = &event.command().body else { return reject("nothing is decided") };
    ensure(decide.case == case, "the decision is of another case")?;
    Ok(Facts {
        asker: event.command().signer.to_string(),
        step: decide.step.to_string(),
        status: if decide.passed { "passed" } else { "not_passed" }.into(),
        height: event.header.height,
        time: event.header.time_ms,
        ..base
    })
}
