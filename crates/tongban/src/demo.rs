//! `tongban demo`: a whole consortium on this machine, and cases carried through it.

use crate::say;
use crate::{
    city::{City, Exception, Sale},
    client::{Client, Refused},
    setup::{self, ELEMENTS, Made, Plan, PlannedDepartment, node_dir},
};
use anyhow::{Context as _, Result, bail};
use crypto::SigningKey;
use flow::Package;
use identity::{Identified, Terminal};
use indicatif::{ProgressBar, ProgressStyle};
use model::*;
use node::{Config, DemoDoor, Node, Persona};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, Semaphore};

/// The demo's passphrase: its keys guard nothing but invented people.
pub const PASSPHRASE: &str = "demo";
const PATIENCE: Duration = Duration::from_secs(60);
const MARKER: &str = ".tongban-demo";
/// How many cases run at once.
const AT_ONCE: usize = 4;

/// The departments: ID, Chinese name, English name, validator, connector.
const DEPARTMENTS: [(&str, &str, &str, bool, &str); 11] = [
    (
        "audit",
        "审计局",
        "Audit office",
        true,
        "# 审计局: votes and audits; it holds no data that others call.\nformat: 1\ndepartment: audit\n",
    ),
    (
        "bureau",
        "政务服务局",
        "Government service bureau",
        true,
        include_str!("../../../demo/departments/bureau.yaml"),
    ),
    ("civil", "民政局", "Civil affairs", false, include_str!("../../../demo/departments/civil.yaml")),
    ("court", "人民法院", "People's court", false, include_str!("../../../demo/departments/court.yaml")),
    ("gas", "燃气公司", "Gas company", false, include_str!("../../../demo/departments/gas.yaml")),
    (
        "housing",
        "住房和城乡建设局",
        "Housing contracts",
        false,
        include_str!("../../../demo/departments/housing.yaml"),
    ),
    ("police", "公安局", "Police (population)", true, include_str!("../../../demo/departments/police.yaml")),
    ("power", "供电公司", "Power company", false, include_str!("../../../demo/departments/power.yaml")),
    (
        "registry",
        "不动产登记中心",
        "Real-estate registry",
        true,
        include_str!("../../../demo/departments/registry.yaml"),
    ),
    ("tax", "税务局", "Tax", false, include_str!("../../../demo/departments/tax.yaml")),
    ("water", "自来水公司", "Water company", false, include_str!("../../../demo/departments/water.yaml")),
];
const HOUSE_TRANSFER: &str = include_str!("../../../matters/house-transfer/matter.yaml");

/// What the command line asks of the demo.
pub struct Options {
    /// Stop after the cases.
    pub headless: bool,
    /// The matter.
    pub matter: String,
    /// How many cases.
    pub cases: usize,
    /// The cryptographic suite.
    pub suite: Suite,
    /// The city's seed.
    pub seed: u64,
    /// The folder everything is written to.
    pub data: PathBuf,
    /// The portal's port.
    pub port: u16,
    /// Whether to print JSON.
    pub json: bool,
}

/// One case of the report.
#[derive(Serialize)]
pub struct CaseReport {
    /// The case.
    pub id: String,
    matter: String,
    /// Its outcome.
    pub outcome: String,
    reason: String,
    signatures: u32,
    documents_uploaded: u32,
    calls: u64,
    actions: u64,
    elapsed_ms: u64,
    waited_ms: u64,
    steps: Vec<Value>,
    /// Its receipts' files.
    pub receipts: Vec<String>,
    exception: Option<String>,
}

/// A running demo consortium.
pub struct Demo {
    dir: PathBuf,
    made: Made,
    nodes: BTreeMap<DepartmentId, Node>,
    city: Arc<City>,
    door: DemoDoor,
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Addresses that are free now, below the range (32768 and up) that outgoing connections take their ports from: one of
/// those could be taken between this call and its use. This process gets each once, and others that start beside it get others.
pub fn free_addresses(n: usize) -> Result<Vec<SocketAddr>> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = (std::process::id() % 200) as u16 * 100;
    let mut listeners = Vec::with_capacity(n);
    for _ in 0..20_000 {
        if listeners.len() == n {
            break;
        }
        let port = 12_000 + (base + NEXT.fetch_add(1, SeqCst) % 20_000) % 20_000;
        listeners.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    anyhow::ensure!(listeners.len() == n, "there are not enough free ports on this machine");
    Ok(listeners.iter().map(|l| l.local_addr()).collect::<Result<_, _>>()?)
}

fn empty_dir(dir: &Path) -> Result<()> {
    if dir.join(MARKER).exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("clearing {}", dir.display()))?;
    } else if dir.exists() && std::fs::read_dir(dir)?.next().is_some() {
        bail!("{} is not empty and no earlier demo's folder; choose another with --data", dir.display());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    std::fs::write(dir.join(MARKER), "the folder of `tongban demo`; the next demo clears it\n")?;
    Ok(())
}

/// Writes the whole consortium to disk: departments' databases, keys, genesis, configurations. `dir` is cleared first.
pub async fn write_consortium(
    dir: &Path,
    port: u16,
    suite: Suite,
    epoch_blocks: u64,
    city: &Arc<City>,
) -> Result<Made> {
    empty_dir(dir)?;
    let free = free_addresses(DEPARTMENTS.len() * 2)?;
    let departments =
        DEPARTMENTS.iter().enumerate().map(|(i, (id, zh, en, validator, _))| PlannedDepartment {
            id: id.parse().expect("a name"),
            title: Text { zh: (*zh).into(), en: (*en).into() },
            validator: *validator,
            listen: free[i],
            http: if *id == "bureau" { ([127, 0, 0, 1], port).into() } else { free[DEPARTMENTS.len() + i] },
        });
    let plan = Plan { epoch_blocks, ..Plan::new("通办演示联盟", suite, departments.collect()) };
    let matter = dir.join("matters/house-transfer");
    std::fs::create_dir_all(&matter)?;
    std::fs::write(matter.join("matter.yaml"), HOUSE_TRANSFER)?;
    std::fs::write(dir.join("elements.yaml"), ELEMENTS)?;
    let root = dir.canonicalize()?;
    let made = setup::make(&plan, dir, PASSPHRASE, now_ms(), |config: &mut Config| {
        let home = root.join("departments").join(config.department.as_str());
        config.database = home.join("department.db").to_string_lossy().into_owned();
        config.connector = home.join("connector.yaml");
        config.standard = root.join("elements.yaml");
        if config.department.as_str() == "bureau" {
            config.matters = vec![root.join("matters/house-transfer")];
        }
    })?;
    let mut writes = Vec::new();
    for (id, _, _, _, connector) in DEPARTMENTS {
        let home = dir.join("departments").join(id);
        std::fs::create_dir_all(&home)?;
        std::fs::write(home.join("connector.yaml"), connector)?;
        let city = city.clone();
        writes.push(tokio::spawn(async move { city.write(id, &home.join("department.db")).await }));
    }
    for write in writes {
        write.await??;
    }
    std::fs::create_dir_all(dir.join("receipts"))?;
    Ok(made)
}

fn personas(city: &City) -> Vec<Persona> {
    let plain = city.sales.iter().rev().filter(|s| s.exception.is_none()).take(12);
    plain
        .flat_map(|s| {
            let persona = |role: &str, me: &crate::city::Citizen, other: &crate::city::Citizen| Persona {
                id: me.id.clone(),
                name: me.name.clone(),
                role: role.into(),
                unit: s.unit.clone(),
                contract: s.contract.clone(),
                other_id: other.id.clone(),
                other_name: other.name.clone(),
            };
            [persona("seller", &s.seller, &s.buyer), persona("buyer", &s.buyer, &s.seller)]
        })
        .collect()
}

/// A door with a fresh terminal for the people of a city.
pub fn door(city: &City, suite: Suite) -> DemoDoor {
    DemoDoor {
        personas: Arc::new(personas(city)),
        terminal: Arc::new(Terminal::new(SigningKey::random(suite))),
        device_seed: crypto::random(),
    }
}

/// How many calls a day the demo's bureau asks its holders for.
const CALLS_A_DAY: u32 = 5_000;

/// What the departments of the demo put on the ledger before the first case, round by round: catalogue entries; the bureau's project;
/// the requests for what it needs, with one of another department that still waits; the holders' approvals, the bureau's terminal
/// and its matter.
pub fn publications(
    resources: Vec<(DepartmentId, Resource)>,
    terminal: PublicKey,
) -> Result<[Vec<(DepartmentId, Body)>; 4]> {
    let catalogue =
        resources.into_iter().map(|(id, resource)| (id, Body::PublishResource(resource))).collect();
    fn name<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
        text.parse().expect("a name")
    }
    let text = |zh: &str, en: &str| Text { zh: zh.into(), en: en.into() };
    let until_ms = now_ms() + 365 * 24 * 3_600_000;
    let request = |id: &str, holder: &str, resource: &str, names: &[&str], citation: &str, purpose: Text| {
        RequestShare {
            id: name(id),
            holder: name(holder),
            resource: name(resource),
            names: names.iter().map(|n| name(n)).collect(),
            matter: name("house-transfer"),
            project: Some(name("one-stop-transfer")),
            citation: citation.into(),
            purpose,
            per_day: CALLS_A_DAY,
            until_ms,
        }
    };
    let requests = [
        request(
            "restriction-check",
            "registry",
            "registry.restriction",
            &["seized", "objected"],
            "不动产登记暂行条例第二十二条",
            text("受理前核验查封与异议", "to check for seizures and objections before acceptance"),
        ),
        request(
            "execution-check",
            "court",
            "court.dishonest",
            &["listed"],
            "民事诉讼法第二百六十六条",
            text("依法协助执行", "to assist execution, as the law demands"),
        ),
    ];
    let project = RegisterProject {
        id: name("one-stop-transfer"),
        title: text("不动产登记与水电气过户“一件事”", "House transfer with its utilities, in one go"),
        purpose: text(
            "一次申请、一次签署、各部门并联办理",
            "one application, one signature, all departments at once",
        ),
        citation: "优化营商环境条例第三十六条".into(),
        needs: requests
            .iter()
            .map(|r| Use {
                holder: r.holder.clone(),
                resource: r.resource.clone(),
                names: r.names.clone(),
                matter: r.matter.clone(),
                per_day: r.per_day,
            })
            .collect(),
        until_ms,
    };
    let waits = RequestShare {
        project: None,
        per_day: 200,
        ..request(
            "signing-check",
            "police",
            "police.identity",
            &["name_matches"],
            "城市房地产管理法第四十一条",
            text("网签时核验当事人姓名", "to verify the parties' names when a contract is registered"),
        )
    };
    let approvals = requests.iter().map(|r| {
        let approval = ApproveBasis {
            id: r.id.clone(),
            asker: name("bureau"),
            matter: r.matter.clone(),
            resource: r.resource.clone(),
            names: r.names.clone(),
            citation: r.citation.clone(),
            expires_ms: r.until_ms,
        };
        (r.holder.clone(), Body::ApproveBasis(approval))
    });
    let package = Package::parse("house-transfer", HOUSE_TRANSFER)?;
    let own = [
        (name("bureau"), Body::EnrolTerminal(EnrolTerminal { key: terminal, active: true })),
        (name("bureau"), Body::PublishMatter(package.publication(terminal.suite()))),
    ];
    let last = approvals.chain(own).collect();
    let asked = requests.iter().cloned().map(|r| (name("bureau"), Body::RequestShare(r)));
    let asked = asked.chain([(name("housing"), Body::RequestShare(waits))]).collect();
    Ok([catalogue, vec![(name("bureau"), Body::RegisterProject(project))], asked, last])
}

impl Demo {
    /// Writes and starts the whole consortium and publishes its catalogue, bases and matter.
    pub async fn start(dir: &Path, port: u16, suite: Suite, seed: u64) -> Result<Self> {
        let city = Arc::new(City::new(seed));
        let made = write_consortium(dir, port, suite, setup::EPOCH_BLOCKS, &city).await?;
        let door = door(&city, suite);
        let mut demo = Self { dir: dir.to_owned(), made, nodes: BTreeMap::new(), city, door };
        for id in demo.made.keys.keys().cloned().collect::<Vec<_>>() {
            demo.start_node(&id).await?;
        }
        demo.publish().await?;
        Ok(demo)
    }

    async fn start_node(&mut self, id: &DepartmentId) -> Result<()> {
        let config = Config::read(&node_dir(&self.dir, id).join("node.toml"))?;
        let door = (id.as_str() == "bureau").then(|| self.door.clone());
        let node = Node::start(config, PASSPHRASE, door)
            .await
            .with_context(|| format!("starting the node of {id}"))?;
        self.nodes.insert(id.clone(), node);
        Ok(())
    }

    fn node(&self, id: &str) -> &Node {
        &self.nodes[&id.parse::<DepartmentId>().expect("a name")]
    }

    async fn publish(&self) -> Result<()> {
        let resources = self.nodes.iter().flat_map(|(id, node)| {
            node.gateway().resources().iter().map(move |resource| (id.clone(), resource.clone()))
        });
        for round in publications(resources.collect(), self.door.terminal.public())? {
            self.submit_all(round).await?;
        }
        Ok(())
    }

    async fn submit_all(&self, commands: Vec<(DepartmentId, Body)>) -> Result<()> {
        let tasks = commands.into_iter().map(|(id, body)| {
            let flow = self.nodes[&id].flow.clone();
            tokio::spawn(async move { (id, flow.submit_and_wait(body, PATIENCE).await) })
        });
        let mut highest = 0;
        for task in tasks.collect::<Vec<_>>() {
            let (id, event) = task.await?;
            let event = event.with_context(|| format!("a command of {id}"))?;
            if let Outcome::Refused(refusal) = event.outcome {
                bail!("the ledger refused a command of {id}: {}", refusal.code());
            }
            highest = highest.max(event.height);
        }
        for node in self.nodes.values() {
            tokio::time::timeout(PATIENCE, node.flow.caught_up(highest)).await?;
        }
        Ok(())
    }

    fn client(&self) -> Client {
        let bureau = self.node("bureau");
        Client::new(bureau.http, bureau.config.api_token.as_deref().unwrap_or_default())
    }

    /// Stops every node.
    pub async fn stop(self) {
        for node in self.nodes.into_values() {
            node.stop().await;
        }
    }
}

/// Carries sales through the API as citizens, a clerk and a terminal would.
#[derive(Clone)]
pub struct Driver {
    client: Client,
    chain: ChainId,
    door: DemoDoor,
    receipts: PathBuf,
}

impl Driver {
    /// A driver that works through a bureau's API and saves receipts to a folder.
    pub fn new(client: Client, chain: ChainId, door: DemoDoor, receipts: PathBuf) -> Self {
        Self { client, chain, door, receipts }
    }

    /// Runs one sale to its named state, and a second submission of it where the sale is one submitted twice.
    pub async fn run(&self, sale: &Sale) -> Result<Vec<CaseReport>> {
        let begun = Instant::now();
        let id = self.client.open_case("house-transfer", self.form(sale), self.parties(sale)).await?;
        let mut reports = Vec::new();
        if sale.exception == Some(Exception::Twice) {
            reports.push(self.submit_again(sale, &id).await?);
        }
        let mut report = self.carry(sale, &id, begun).await?;
        report.receipts = self.save_receipts(&id).await?;
        reports.insert(0, report);
        Ok(reports)
    }

    fn form(&self, sale: &Sale) -> Value {
        json!({ "unit": sale.unit, "contract": sale.contract })
    }

    fn parties(&self, sale: &Sale) -> Value {
        let person = |c: &crate::city::Citizen| json!({ "id": c.id, "name": c.name });
        json!({ "seller": person(&sale.seller), "buyer": person(&sale.buyer) })
    }

    async fn submit_again(&self, sale: &Sale, first: &str) -> Result<CaseReport> {
        let begun = Instant::now();
        let again = self.client.open_case("house-transfer", self.form(sale), self.parties(sale)).await;
        let refused = again.err().context("the same application was taken twice")?;
        let code = refused.downcast_ref::<Refused>().map(|r| r.code.clone()).unwrap_or_default();
        Ok(CaseReport {
            id: first.into(),
            matter: "house-transfer".into(),
            outcome: if code == "duplicate" {
                "duplicate".into()
            } else {
                bail!("expected a duplicate, got {refused}")
            },
            reason: "already_open".into(),
            signatures: 0,
            documents_uploaded: 0,
            calls: 0,
            actions: 0,
            elapsed_ms: begun.elapsed().as_millis() as u64,
            waited_ms: 0,
            steps: vec![],
            receipts: vec![],
            exception: Some("Twice".into()),
        })
    }

    async fn carry(&self, sale: &Sale, id: &str, begun: Instant) -> Result<CaseReport> {
        let case = self.case(id).await?;
        // the seller has a key on a device, the buyer signs on the counter's pad
        let device = self.door.device(&sale.seller.id);
        self.identify(id, &case, "seller", Some(device.public())).await?;
        self.identify(id, &case, "buyer", None).await?;
        let mut signatures = 0;
        let mut state = self
            .wait(id, |c| step_status(c, "precheck") == "done" || rests(c) || c["unconfirmed"].is_string())
            .await?;
        if state["unconfirmed"].is_string() {
            self.client.post(&format!("/api/v1/cases/{id}/confirm"), json!({ "officer": "窗口 07" })).await?;
            state = self.wait(id, rests).await?;
        }
        if !rests(&state) {
            let consent = self.sign(id, "seller", &device).await?;
            signatures = 1;
            if sale.exception == Some(Exception::Withdrawn) {
                let message =
                    WithdrawConsent::signing_bytes(self.chain, consent.parse().map_err(anyhow::Error::msg)?);
                let body = json!({ "consent": consent, "signature": hex::encode(device.sign(&message)) });
                self.client.post(&format!("/api/v1/cases/{id}/withdraw"), body).await?;
            } else {
                self.sign(id, "buyer", self.door.terminal.pad()).await?;
            }
            state = self.wait(id, rests).await?;
        }
        Ok(CaseReport {
            id: id.into(),
            matter: "house-transfer".into(),
            outcome: state["outcome"].as_str().unwrap_or_default().into(),
            reason: state["reason"].as_str().unwrap_or_default().into(),
            signatures,
            documents_uploaded: 0,
            calls: state["calls"].as_u64().unwrap_or_default(),
            actions: state["actions"].as_u64().unwrap_or_default(),
            elapsed_ms: begun.elapsed().as_millis() as u64,
            waited_ms: 0,
            steps: state["steps"].as_array().cloned().unwrap_or_default(),
            receipts: vec![],
            exception: sale.exception.map(|e| format!("{e:?}")),
        })
    }

    async fn case(&self, id: &str) -> Result<Value> {
        self.client.get(&format!("/api/v1/cases/{id}")).await
    }

    /// Waits until something holds of a case.
    async fn wait(&self, id: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(180);
        let mut case = self.case(id).await?;
        while !holds(&case) {
            if Instant::now() > deadline {
                bail!("case {id} came to no end: {}", serde_json::to_string(&case)?);
            }
            case = self.client.get(&format!("/api/v1/cases/{id}/next")).await?;
        }
        Ok(case)
    }

    async fn identify(&self, id: &str, case: &Value, role: &str, device: Option<PublicKey>) -> Result<()> {
        let parties = case["parties"].as_array().context("a case has parties")?;
        let party = parties.iter().find(|p| p["role"] == role).context("the role is there")?;
        let subject = party["subject"].as_str().unwrap_or_default().parse().map_err(anyhow::Error::msg)?;
        let role: RoleId = role.parse().map_err(anyhow::Error::msg)?;
        let case = id.parse().map_err(anyhow::Error::msg)?;
        let who = Identified { chain: self.chain, case, role: &role, subject, at_ms: now_ms() };
        let (assertion, signature) = match device {
            Some(device) => self.door.terminal.vouch_for_passkey(&who, device),
            None => self.door.terminal.vouch_at_counter(&who),
        };
        let body =
            json!({ "assertion": hex::encode(encode(&assertion)), "signature": hex::encode(signature) });
        self.client.post(&format!("/api/v1/cases/{id}/identify"), body).await.map(drop)
    }

    async fn sign(&self, id: &str, role: &str, key: &SigningKey) -> Result<String> {
        let draft: Value = self.client.get(&format!("/api/v1/cases/{id}/consent/{role}?lang=zh-CN")).await?;
        let to_sign = hex::decode(draft["to_sign"].as_str().unwrap_or_default())?;
        let body = json!({ "terms": draft["terms"], "signature": hex::encode(key.sign(&to_sign)) });
        let given = self.client.post(&format!("/api/v1/cases/{id}/consent"), body).await?;
        Ok(given["id"].as_str().context("a consent has an ID")?.to_owned())
    }

    async fn save_receipts(&self, id: &str) -> Result<Vec<String>> {
        let names: Vec<String> = self.client.get(&format!("/api/v1/cases/{id}/receipts")).await?;
        let dir = self.receipts.join(&id[..16]);
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

fn rests(case: &Value) -> bool {
    !matches!(case["outcome"].as_str(), Some("open" | "blocked"))
}

fn step_status<'a>(case: &'a Value, step: &str) -> &'a str {
    let steps = case["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    steps.iter().find(|s| s["step"] == step).and_then(|s| s["status"].as_str()).unwrap_or_default()
}

fn progress(len: usize, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} cases {msg}").expect("a valid template");
    ProgressBar::new(len as u64).with_style(style)
}

/// Draws as many reports as wanted from the city's sales, in its own mix; cases with an outage run together, at the end,
/// while the power company's node is down.
async fn run_cases(demo: &mut Demo, wanted: usize, quiet: bool) -> Result<Vec<CaseReport>> {
    let driver = Driver::new(demo.client(), demo.made.chain, demo.door.clone(), demo.dir.join("receipts"));
    let (mut plain, mut outage, mut count) = (Vec::new(), Vec::new(), 0);
    for sale in &demo.city.sales {
        let weight = if sale.exception == Some(Exception::Twice) { 2 } else { 1 };
        if count + weight > wanted {
            if count == wanted {
                break;
            }
            continue;
        }
        count += weight;
        let list = if sale.exception == Some(Exception::PowerDown) { &mut outage } else { &mut plain };
        list.push(sale.clone());
    }
    let bar = progress(wanted, quiet);
    let reports = Arc::new(Mutex::new(Vec::new()));
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let spawn = |sale: Sale| {
        let (driver, reports, gate, bar) = (driver.clone(), reports.clone(), gate.clone(), bar.clone());
        tokio::spawn(async move {
            let _permit = gate.acquire_owned().await?;
            let done = driver.run(&sale).await?;
            bar.inc(done.len() as u64);
            reports.lock().await.extend(done);
            anyhow::Ok(())
        })
    };
    for task in plain.into_iter().map(&spawn).collect::<Vec<_>>() {
        task.await??;
    }
    if !outage.is_empty() {
        bar.set_message("(the power company's node is down)");
        let power: DepartmentId = "power".parse().expect("a name");
        demo.nodes.remove(&power).context("the power company's node runs")?.stop().await;
        let down = Instant::now();
        let tasks: Vec<_> = outage.into_iter().map(&spawn).collect();
        wait_until_blocked(&driver).await?;
        demo.start_node(&power).await?;
        let waited = down.elapsed().as_millis() as u64;
        for task in tasks {
            task.await??;
        }
        for report in reports.lock().await.iter_mut().filter(|r| r.exception.as_deref() == Some("PowerDown"))
        {
            report.waited_ms = waited.min(report.elapsed_ms);
            report.elapsed_ms -= report.waited_ms;
        }
    }
    bar.finish_and_clear();
    let mut reports = reports.lock().await;
    Ok(std::mem::take(&mut *reports))
}

/// Waits until a case says that it is blocked, and by the power company.
async fn wait_until_blocked(driver: &Driver) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let ids: Vec<String> = driver.client.get("/api/v1/cases").await?;
        for id in ids.iter().take(AT_ONCE) {
            let case = driver.case(id).await?;
            if case["outcome"] == "blocked" && case["waits_for"] == "power" {
                return Ok(());
            }
        }
        if Instant::now() > deadline {
            bail!("no case said that it waits for the power company while its node was down");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn percentile(sorted: &[u64], p: f64) -> u64 {
    sorted.get(((sorted.len() as f64 - 1.0) * p).round() as usize).copied().unwrap_or_default()
}

/// The latency of finality, measured with a few commands of the bureau's.
async fn finality_ms(demo: &Demo) -> Result<(u64, u64)> {
    let flow = &demo.node("bureau").flow;
    let mut samples = Vec::new();
    for i in 0..20u8 {
        let begun = Instant::now();
        let body = Body::Anchor(Anchor { topic: "probe".parse().expect("a name"), data: vec![i] });
        flow.submit_and_wait(body, PATIENCE).await?;
        samples.push(begun.elapsed().as_millis() as u64);
    }
    samples.sort_unstable();
    Ok((percentile(&samples, 0.5), percentile(&samples, 0.99)))
}

fn print_timeline(report: &CaseReport) {
    say!("\n办件 {}  {} → {}", &report.id[..8], report.matter, report.outcome);
    for step in &report.steps {
        let text = |key: &str| step[key].as_str().unwrap_or_default();
        let mark = match text("status") {
            "done" => "✓",
            "failed" => "✗",
            "waiting" => "…",
            _ => "·",
        };
        say!(
            "  {mark} {:<16} {:<9} {:<9} {:>6} ms  {}",
            text("step"),
            text("department"),
            text("kind"),
            step["ms"],
            text("code")
        );
    }
    say!(
        "  {} ms in all, {} calls, {} actions, {} receipts\n",
        report.elapsed_ms,
        report.calls,
        report.actions,
        report.receipts.len()
    );
}

/// Runs the demo.
pub async fn run(options: Options) -> Result<()> {
    if options.matter != "house-transfer" {
        bail!("there is no matter `{}` in the demo yet; it has: house-transfer", options.matter);
    }
    let begun = Instant::now();
    if !options.json {
        say!("Starting a consortium of {} departments, 4 of them validators …", DEPARTMENTS.len());
    }
    let mut demo = Demo::start(&options.data, options.port, options.suite, options.seed).await?;
    if !options.json {
        say!(
            "Ready after {:.1} s; running {} case(s) of {} …",
            begun.elapsed().as_secs_f64(),
            options.cases,
            options.matter
        );
    }
    let (p50, p99) = finality_ms(&demo).await?;
    let reports = run_cases(&mut demo, options.cases, options.json).await?;
    let bureau = demo.node("bureau");
    let document = json!({
        "consortium": {
            "chain_id": demo.made.chain,
            "departments": demo.made.genesis.members.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(),
            "validators": demo.made.genesis.roster().validators().len(),
            "suite": options.suite.as_str(),
            "height": bureau.chain().height(),
        },
        "cases": reports,
        "genesis": options.data.join("genesis.json").display().to_string(),
        "finality_ms": { "p50": p50, "p99": p99 },
    });
    if options.json {
        say!("{}", serde_json::to_string(&document)?);
    } else {
        if let Some(first) = reports.first() {
            print_timeline(first);
        }
        let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
        for report in &reports {
            *outcomes.entry(&report.outcome).or_default() += 1;
        }
        let mut elapsed: Vec<_> = reports.iter().map(|r| r.elapsed_ms).collect();
        elapsed.sort_unstable();
        say!(
            "{} case(s): {outcomes:?}; p50 {} ms, p95 {} ms; finality p50 {p50} ms",
            reports.len(),
            percentile(&elapsed, 0.5),
            percentile(&elapsed, 0.95)
        );
        say!(
            "Receipts: {}\nCheck one: tongban verify {} --genesis {}",
            options.data.join("receipts").display(),
            reports.first().and_then(|r| r.receipts.first()).map_or("RECEIPT", String::as_str),
            options.data.join("genesis.json").display()
        );
    }
    if !options.headless {
        say!("\nThe portal is open at http://{} – press Ctrl-C to stop.", bureau.http);
        tokio::signal::ctrl_c().await?;
    }
    demo.stop().await;
    Ok(())
}
