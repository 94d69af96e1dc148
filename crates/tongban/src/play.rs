//! Scenarios played on a running consortium: people are drawn from the city, departments' databases are changed as the scenario
//! says, and the case goes through the API as citizens, a clerk and a terminal would take it.

use crate::{
    city::{Citizen, City, credit_code, stranger},
    client::{Client, Refused},
    stage::Matter,
};
use anyhow::{Context as _, Result, bail, ensure};
use crypto::SigningKey;
use flow::scenario::{Doing, Scenario, fill, pieces};
use identity::Identified;
use model::*;
use node::DemoDoor;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a case may take from one change to the next.
const PATIENCE: Duration = Duration::from_secs(180);
/// How the demo's clerk is named.
const OFFICER: &str = "窗口 07";

/// A scenario with the people and things it is played with.
#[derive(Clone)]
pub struct Play {
    /// The matter.
    pub matter: MatterId,
    /// The scenario's name.
    pub name: String,
    /// The scenario.
    pub scenario: Scenario,
    /// The people by the scenario's names for them.
    pub people: BTreeMap<String, Citizen>,
    things: BTreeMap<String, String>,
}

/// Draws people and things from the city, each once.
pub struct Casting {
    city: Arc<City>,
    people: usize,
    sales: usize,
    shops: usize,
    plays: usize,
}

impl Casting {
    /// Nobody is drawn yet.
    pub fn new(city: Arc<City>) -> Self {
        Self { city, people: 0, sales: 0, shops: 0, plays: 0 }
    }

    /// The city they are drawn from.
    pub fn city(&self) -> &Arc<City> {
        &self.city
    }

    /// A play of a scenario.
    pub fn cast(&mut self, matter: &Matter, name: &str) -> Result<Play> {
        let id = &matter.package.id;
        let scenario =
            matter.scenarios.get(name).with_context(|| format!("{id} has no scenario {name}"))?.clone();
        self.plays += 1;
        let mut people = BTreeMap::new();
        let mut things = BTreeMap::from([("n".to_owned(), (100_000 + self.plays).to_string())]);
        match scenario.setting.as_ref().map(Code::as_str) {
            None => {}
            Some("sale") => {
                let sale = self.city.sales.get(self.sales).context("every sale of the city is taken")?;
                self.sales += 1;
                people.insert("seller".to_owned(), sale.seller.clone());
                people.insert("buyer".to_owned(), sale.buyer.clone());
                things.insert("sale.unit".into(), sale.unit.clone());
                things.insert("sale.contract".into(), sale.contract.clone());
                things.insert("sale.power".into(), sale.power_account.clone());
            }
            Some("shop") => {
                let unit = self.city.unsold_unit(self.shops).context("every shop of the city is taken")?;
                things.insert("shop.unit".into(), unit.to_owned());
                things.insert("shop.credit_code".into(), credit_code(self.shops));
                self.shops += 1;
            }
            Some(other) => bail!("{id}: {name}: the city has no setting `{other}`; there are sale and shop"),
        }
        for (i, (who, special)) in scenario.people.iter().enumerate() {
            people.insert(who.to_string(), stranger(&special.born, self.plays + i)?);
        }
        for who in scenario.parties.values().map(ToString::to_string) {
            if let Entry::Vacant(place) = people.entry(who) {
                let drawn = self.city.person(self.people).context("everybody in the city is taken")?;
                self.people += 1;
                place.insert(drawn.clone());
            }
        }
        Ok(Play { matter: id.clone(), name: name.to_owned(), scenario, people, things })
    }
}

impl Play {
    fn known(&self, name: &str) -> Option<String> {
        if let Some(thing) = self.things.get(name) {
            return Some(thing.clone());
        }
        let (who, what) = name.split_once('.')?;
        let person = self.people.get(who)?;
        match what {
            "id" => Some(person.id.clone()),
            "name" => Some(person.name.clone()),
            _ => None,
        }
    }

    /// Something it is played with: `sale.contract`.
    pub fn thing(&self, name: &str) -> &str {
        self.things.get(name).map(String::as_str).unwrap_or_default()
    }

    /// What is filled in.
    pub fn form(&self) -> Result<BTreeMap<FieldId, String>> {
        let filled = |(id, text): (&FieldId, &String)| Ok((id.clone(), fill(text, &|n| self.known(n))?));
        self.scenario.form.iter().map(filled).collect::<Result<_, String>>().map_err(anyhow::Error::msg)
    }

    /// Everybody by role.
    pub fn parties(&self) -> BTreeMap<RoleId, Citizen> {
        let parties = self.scenario.parties.iter();
        parties.map(|(role, who)| (role.clone(), self.people[who.as_str()].clone())).collect()
    }

    /// Changes departments' own databases as the scenario says; `departments` is the folder of their folders.
    pub async fn prepare(&self, departments: &Path) -> Result<()> {
        self.change(departments, &self.scenario.data).await
    }

    async fn change(&self, departments: &Path, data: &BTreeMap<DepartmentId, Vec<String>>) -> Result<()> {
        for (department, statements) in data {
            let file = departments.join(department.as_str()).join("department.db");
            let options = SqliteConnectOptions::new().filename(&file).busy_timeout(Duration::from_secs(30));
            let mut db = SqliteConnection::connect_with(&options)
                .await
                .with_context(|| format!("opening the database of {department}"))?;
            for statement in statements {
                let (parts, values) = pieces(statement, &|n| self.known(n)).map_err(anyhow::Error::msg)?;
                let mut quotes = 0;
                for part in &parts[..parts.len() - 1] {
                    quotes += part.matches('\'').count();
                    ensure!(
                        quotes % 2 == 0,
                        "a `{{…}}` stands within quotes in `{statement}`; join texts with ||"
                    );
                }
                let mut query = sqlx::query(AssertSqlSafe(parts.join("?")));
                for value in values {
                    query = query.bind(value);
                }
                query.execute(&mut db).await.with_context(|| format!("{department}: {statement}"))?;
            }
            db.close().await?;
        }
        Ok(())
    }
}

/// One case of the report.
#[derive(Clone, Serialize)]
pub struct CaseReport {
    /// The case.
    pub id: String,
    /// The matter.
    pub matter: String,
    /// The scenario that was played.
    pub scenario: String,
    /// Its outcome.
    pub outcome: String,
    /// The code of why.
    pub reason: String,
    /// The most signatures that any one person gave.
    pub signatures: usize,
    /// Documents that had to be handed in.
    pub documents_uploaded: u32,
    /// Calls asked.
    pub calls: u64,
    /// Actions requested.
    pub actions: u64,
    /// From application to end, without the time it waited for a node that was down.
    pub elapsed_ms: u64,
    /// How long it waited for a node that was down.
    pub waited_ms: u64,
    /// The steps.
    pub steps: Vec<Value>,
    /// Its receipts' files.
    pub receipts: Vec<String>,
    /// What differs from what the scenario expects.
    pub differs: Vec<String>,
}

/// Carries plays through the API.
#[derive(Clone)]
pub struct Driver {
    /// The handler's API.
    pub client: Client,
    chain: ChainId,
    door: DemoDoor,
    /// The demo's folder.
    dir: PathBuf,
}

impl Driver {
    /// A driver that works through a handler's API, changes the databases under `dir/departments` and saves receipts to `dir/receipts`.
    pub fn new(client: Client, chain: ChainId, door: DemoDoor, dir: PathBuf) -> Self {
        Self { client, chain, door, dir }
    }

    /// Plays a scenario to its end, and a second application where it is made twice.
    pub async fn run(&self, play: &Play) -> Result<Vec<CaseReport>> {
        play.prepare(&self.dir.join("departments")).await?;
        let begun = Instant::now();
        let id = self.open(play).await?;
        let mut reports = Vec::new();
        if play.scenario.twice {
            reports.push(self.submit_again(play, &id).await?);
        }
        let mut report = self.carry(play, &id, begun).await?;
        report.receipts = self.save_receipts(&id).await?;
        reports.insert(0, report);
        Ok(reports)
    }

    /// Opens the case of a play, identifies its first party, and waits for the calls that need no more: how long they took from then
    /// on, and each from its grant by the ledger's clock, in milliseconds.
    pub async fn calls_before_signing(&self, play: &Play) -> Result<(u64, Vec<u64>)> {
        let id = self.open(play).await?;
        let mut case = self.case(&id).await?;
        let first = ready(&case).context("somebody can be identified")?;
        let role: RoleId = text(first, "party").parse().map_err(anyhow::Error::msg)?;
        self.identify(&id, &case, &role, None).await?;
        let begun = Instant::now();
        case = self.case(&id).await?;
        loop {
            let steps = case["steps"].as_array().cloned().unwrap_or_default();
            let calls: Vec<_> = steps
                .iter()
                .filter(|s| text(s, "kind") == "call" && text(s, "status") != "not_started")
                .collect();
            if !calls.is_empty() && calls.iter().all(|s| text(s, "status") == "done") {
                let each = calls.iter().filter_map(|s| s["ms"].as_u64());
                return Ok((begun.elapsed().as_millis() as u64, each.collect()));
            }
            ensure!(begun.elapsed() < PATIENCE, "the calls of case {id} were not answered: {case}");
            case = self.next(&case).await?;
        }
    }

    /// Opens the case of a play, identifies everybody, and waits until somebody can sign.
    pub async fn until_signing(&self, play: &Play) -> Result<String> {
        play.prepare(&self.dir.join("departments")).await?;
        let id = self.open(play).await?;
        let begun = Instant::now();
        let mut case = self.case(&id).await?;
        loop {
            match ready(&case) {
                Some(step) if text(step, "kind") == "identify" => {
                    let role: RoleId = text(step, "party").parse().map_err(anyhow::Error::msg)?;
                    let parties = play.parties();
                    let person = parties.get(&role).with_context(|| format!("nobody is {role}"))?;
                    let device = (parties.keys().next() == Some(&role)).then(|| self.door.device(&person.id));
                    self.identify(&id, &case, &role, device.as_ref().map(SigningKey::public)).await?;
                    case = self.case(&id).await?;
                }
                Some(_) => return Ok(id),
                None => {
                    ensure!(begun.elapsed() < PATIENCE, "nobody came to sign in case {id}: {case}");
                    case = self.next(&case).await?;
                }
            }
        }
    }

    /// Carries an opened case of a play to its end, and saves its receipts.
    pub async fn finish(&self, play: &Play, id: &str) -> Result<CaseReport> {
        let mut report = self.carry(play, id, Instant::now()).await?;
        report.receipts = self.save_receipts(id).await?;
        Ok(report)
    }

    /// Withdraws the consent of a play's first party, who signed with the key of their device.
    pub async fn withdraw_first(&self, play: &Play, id: &str) -> Result<()> {
        let parties = play.parties();
        let (role, person) = parties.iter().next().context("a case has parties")?;
        let case = self.case(id).await?;
        let party =
            case["parties"].as_array().into_iter().flatten().find(|p| text(p, "role") == role.as_str());
        let consent = party.and_then(|p| p["consent"].as_str()).context("a consent is in force")?;
        self.withdraw(id, consent, &self.door.device(&person.id)).await
    }

    async fn open(&self, play: &Play) -> Result<String> {
        let person = |c: &Citizen| json!({ "id": c.id, "name": c.name });
        let parties: BTreeMap<_, _> =
            play.parties().iter().map(|(role, c)| (role.clone(), person(c))).collect();
        self.client.open_case(play.matter.as_str(), json!(play.form()?), json!(parties)).await
    }

    async fn submit_again(&self, play: &Play, first: &str) -> Result<CaseReport> {
        let begun = Instant::now();
        let refused = self.open(play).await.err().context("the same application was taken twice")?;
        let code = refused.downcast_ref::<Refused>().map(|r| r.code.clone()).unwrap_or_default();
        ensure!(code == "duplicate", "expected a duplicate, got {refused}");
        Ok(CaseReport {
            id: first.into(),
            matter: play.matter.to_string(),
            scenario: play.name.clone(),
            outcome: "duplicate".into(),
            reason: "already_open".into(),
            signatures: 0,
            documents_uploaded: 0,
            calls: 0,
            actions: 0,
            elapsed_ms: begun.elapsed().as_millis() as u64,
            waited_ms: 0,
            steps: vec![],
            receipts: vec![],
            differs: vec![],
        })
    }

    async fn carry(&self, play: &Play, id: &str, begun: Instant) -> Result<CaseReport> {
        let parties = play.parties();
        let mut signed: BTreeMap<String, usize> = BTreeMap::new();
        let mut withdraws = play.scenario.withdraws.clone();
        let mut then = play.scenario.then.iter();
        let (mut last, mut withdrawn) = (Instant::now(), false);
        let mut case = self.case(id).await?;
        loop {
            if case["unconfirmed"].is_string() {
                self.client
                    .post(&format!("/api/v1/cases/{id}/confirm"), json!({ "officer": OFFICER }))
                    .await?;
            } else if let Some(step) = ready(&case).filter(|_| !withdrawn) {
                let role: RoleId = text(step, "party").parse().map_err(anyhow::Error::msg)?;
                let person = parties.get(&role).with_context(|| format!("nobody is {role}"))?;
                // the first party has a key on a device, the others sign on the counter's pad
                let device = (parties.keys().next() == Some(&role)).then(|| self.door.device(&person.id));
                if text(step, "kind") == "identify" {
                    self.identify(id, &case, &role, device.as_ref().map(SigningKey::public)).await?;
                } else {
                    let key = device.as_ref().unwrap_or(self.door.terminal.pad());
                    let consent = self.sign(id, &role, key).await?;
                    *signed.entry(person.id.clone()).or_default() += 1;
                    if withdraws.take_if(|w| *w == role).is_some() {
                        self.withdraw(id, &consent, key).await?;
                        withdrawn = true;
                    }
                }
            } else if rests(&case) {
                let over = !matches!(case["outcome"].as_str(), Some("parked" | "needs_human"));
                let Some(doing) = then.next().filter(|_| !over) else { break };
                self.done_at_rest(play, id, doing).await?;
            } else {
                ensure!(last.elapsed() < PATIENCE, "case {id} came to no end: {case}");
                case = self.next(&case).await?;
                continue;
            }
            last = Instant::now();
            case = self.case(id).await?;
        }
        let expected = play.scenario.expect.as_ref().context("a scenario says what to expect")?;
        let steps = case["steps"].as_array().cloned().unwrap_or_default();
        let of = |id: &StepId| {
            let found = steps.iter().find(|s| text(s, "step") == id.as_str())?;
            Some(text(found, "status").to_owned())
        };
        let (outcome, reason) = (text(&case, "outcome"), text(&case, "reason"));
        Ok(CaseReport {
            id: id.into(),
            matter: play.matter.to_string(),
            scenario: play.name.clone(),
            outcome: outcome.into(),
            reason: reason.into(),
            signatures: signed.values().copied().max().unwrap_or(0),
            documents_uploaded: 0,
            calls: case["calls"].as_u64().unwrap_or_default(),
            actions: case["actions"].as_u64().unwrap_or_default(),
            elapsed_ms: begun.elapsed().as_millis() as u64,
            waited_ms: 0,
            receipts: vec![],
            differs: flow::simulate::differs(expected, outcome, reason, &of),
            steps,
        })
    }

    async fn done_at_rest(&self, play: &Play, id: &str, doing: &Doing) -> Result<()> {
        play.change(&self.dir.join("departments"), &doing.data).await?;
        let (what, who, reason) = match doing {
            Doing { pass: Some(reason), .. } => ("pass", OFFICER, reason),
            Doing { refuse: Some(reason), .. } => ("refuse", OFFICER, reason),
            Doing { resume: Some(reason), .. } => ("resume", "applicant", reason),
            _ => bail!("nothing is said to be done"),
        };
        let body = json!({ "who": who, "reason": reason });
        self.client.post(&format!("/api/v1/cases/{id}/{what}"), body).await.map(drop)
    }

    /// A case again once anything changed since it was read.
    async fn next(&self, case: &Value) -> Result<Value> {
        self.client.get(&format!("/api/v1/cases/{}/next?after={}", text(case, "id"), case["change"])).await
    }

    /// A case as the API tells it.
    pub async fn case(&self, id: &str) -> Result<Value> {
        self.client.get(&format!("/api/v1/cases/{id}")).await
    }

    async fn identify(&self, id: &str, case: &Value, role: &RoleId, device: Option<PublicKey>) -> Result<()> {
        let parties = case["parties"].as_array().context("a case has parties")?;
        let party = parties.iter().find(|p| text(p, "role") == role.as_str()).context("the role is there")?;
        let subject = text(party, "subject").parse().map_err(anyhow::Error::msg)?;
        let case = id.parse().map_err(anyhow::Error::msg)?;
        let at_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
        let who = Identified { chain: self.chain, case, role, subject, at_ms };
        let (assertion, signature) = match device {
            Some(device) => self.door.terminal.vouch_for_passkey(&who, device),
            None => self.door.terminal.vouch_at_counter(&who),
        };
        let body =
            json!({ "assertion": hex::encode(encode(&assertion)), "signature": hex::encode(signature) });
        self.client.post(&format!("/api/v1/cases/{id}/identify"), body).await.map(drop)
    }

    async fn sign(&self, id: &str, role: &RoleId, key: &SigningKey) -> Result<String> {
        let draft: Value = self.client.get(&format!("/api/v1/cases/{id}/consent/{role}?lang=zh-CN")).await?;
        let to_sign = hex::decode(text(&draft, "to_sign"))?;
        let body = json!({ "terms": draft["terms"], "signature": hex::encode(key.sign(&to_sign)) });
        let given = self.client.post(&format!("/api/v1/cases/{id}/consent"), body).await?;
        Ok(given["id"].as_str().context("a consent has an ID")?.to_owned())
    }

    async fn withdraw(&self, id: &str, consent: &str, key: &SigningKey) -> Result<()> {
        let message =
            WithdrawConsent::signing_bytes(self.chain, consent.parse().map_err(anyhow::Error::msg)?);
        let body = json!({ "consent": consent, "signature": hex::encode(key.sign(&message)) });
        self.client.post(&format!("/api/v1/cases/{id}/withdraw"), body).await.map(drop)
    }

    async fn save_receipts(&self, id: &str) -> Result<Vec<String>> {
        let names: Vec<String> = self.client.get(&format!("/api/v1/cases/{id}/receipts")).await?;
        let dir = self.dir.join("receipts").join(&id[..16]);
        std::fs::create_dir_all(&dir)?;
        let mut files = Vec::new();
        for name in names {
            let receipt = self.client.get_bytes(&format!("/api/v1/cases/{id}/receipts/{name}")).await?;
            let path = dir.join(format!("{name}.json"));
            std::fs::write(&path, receipt)?;
            files.push(path.display().to_string());
        }
        Ok(files)
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The first step a person can do now.
fn ready(case: &Value) -> Option<&Value> {
    case["steps"].as_array()?.iter().find(|s| s["ready"] == true)
}

fn rests(case: &Value) -> bool {
    !matches!(case["outcome"].as_str(), Some("open" | "blocked"))
}
