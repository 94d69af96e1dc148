//! `tongban demo`: a whole consortium on this machine, and cases carried through it.

use crate::{
    city::{Citizen, City},
    client::Client,
    play::{CaseReport, Casting, Driver, Play},
    say,
    setup::{self, ELEMENTS, Made, Plan, PlannedDepartment, node_dir},
    stage::{self, Matter},
};
use anyhow::{Context as _, Result, bail};
use crypto::SigningKey;
use flow::Package;
use identity::Terminal;
use indicatif::{ProgressBar, ProgressStyle};
use model::*;
use node::{Config, DemoDoor, Node, Persona};
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
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
/// How many cases of the demo run at once.
pub const AT_ONCE: usize = 4;
/// The department that handles the demo's cases and serves its portal.
pub const HANDLER: &str = "bureau";
/// The scenario in which all goes well; every shipped matter has one.
pub const PLAIN: &str = "plain";

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

/// A running demo consortium.
pub struct Demo {
    dir: PathBuf,
    made: Made,
    nodes: BTreeMap<DepartmentId, Node>,
    matters: Vec<Matter>,
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

/// Writes the whole consortium that these matters take to disk: departments' databases, keys, genesis, configurations. `dir` is
/// cleared first.
pub async fn write_consortium(
    dir: &Path,
    port: u16,
    suite: Suite,
    epoch_blocks: u64,
    city: &Arc<City>,
    matters: &[Matter],
) -> Result<Made> {
    empty_dir(dir)?;
    let departments = stage::departments(matters)?;
    let free = free_addresses(departments.len() * 2)?;
    let planned = departments.iter().enumerate().map(|(i, d)| PlannedDepartment {
        id: d.id.clone(),
        title: d.title.clone(),
        validator: d.validator,
        listen: free[i],
        http: match d.id.as_str() {
            HANDLER => ([127, 0, 0, 1], port).into(),
            _ => free[departments.len() + i],
        },
    });
    let plan = Plan { epoch_blocks, ..Plan::new("通办演示联盟", suite, planned.collect()) };
    for matter in matters {
        let home = dir.join("matters").join(matter.package.id.as_str());
        std::fs::create_dir_all(&home)?;
        std::fs::write(home.join("matter.yaml"), &matter.package.text)?;
    }
    std::fs::write(dir.join("elements.yaml"), ELEMENTS)?;
    let root = dir.canonicalize()?;
    let made = setup::make(&plan, dir, PASSPHRASE, now_ms(), |config: &mut Config| {
        let home = root.join("departments").join(config.department.as_str());
        config.database = home.join("department.db").to_string_lossy().into_owned();
        config.connector = home.join("connector.yaml");
        config.standard = root.join("elements.yaml");
        // one terminal serves hundreds of cases here within minutes
        config.terminal_per_day = 0;
        // somebody trying it out does not wait for a minute
        config.watch_seconds = 5;
        let handled = matters.iter().filter(|m| m.package.handler == config.department);
        config.matters = handled.map(|m| root.join("matters").join(m.package.id.as_str())).collect();
    })?;
    let mut writes = Vec::new();
    for department in departments {
        let home = dir.join("departments").join(department.id.as_str());
        std::fs::create_dir_all(&home)?;
        std::fs::write(home.join("connector.yaml"), stage::connector(&department.id)?)?;
        let city = city.clone();
        writes.push(tokio::spawn(async move {
            city.write(department.id.as_str(), &home.join("department.db")).await
        }));
    }
    for write in writes {
        write.await??;
    }
    std::fs::create_dir_all(dir.join("receipts"))?;
    Ok(made)
}

/// How many applications of each matter wait for visitors of the portal.
const APPLICATIONS: usize = 2;

/// The people one can be on the portal, each with an application that waits for them; departments' databases are prepared for it.
async fn personas(dir: &Path, casting: &mut Casting, matters: &[Matter]) -> Result<Vec<Persona>> {
    let mut personas = Vec::new();
    for matter in matters {
        for _ in 0..APPLICATIONS {
            let play = casting.cast(matter, PLAIN)?;
            play.prepare(&dir.join("departments")).await?;
            let (form, parties) = (play.form()?, play.parties());
            let person = |c: &Citizen| flow::Person { id: c.id.clone(), name: c.name.clone() };
            let all: BTreeMap<_, _> = parties.iter().map(|(role, c)| (role.clone(), person(c))).collect();
            // in the order of the matter: whoever comes first there is offered first
            for role in matter.package.parties.iter().map(|p| &p.id).filter(|r| parties.contains_key(*r)) {
                personas.push(Persona {
                    who: person(&parties[role]),
                    matter: matter.package.id.clone(),
                    role: role.clone(),
                    form: form.clone(),
                    parties: all.clone(),
                });
            }
        }
    }
    Ok(personas)
}

/// A door with a fresh terminal for these people.
pub fn door(personas: Vec<Persona>, suite: Suite) -> DemoDoor {
    DemoDoor {
        personas: Arc::new(personas),
        terminal: Arc::new(Terminal::new(SigningKey::random(suite))),
        device_seed: crypto::random(),
    }
}

/// How many calls a day the demo's bureau asks its holders for.
const CALLS_A_DAY: u32 = 5_000;

/// What the departments of the demo put on the ledger before the first case, round by round: catalogue entries; what these are
/// described as, and a project for each matter; the requests for what it needs under a statute, with one of another department that
/// still waits; the holders' approvals, the handler's terminal and the matters; what of them may be subscribed to and undone.
pub fn publications(
    resources: Vec<(DepartmentId, Resource)>,
    terminal: PublicKey,
    matters: &[Matter],
) -> Result<[Vec<(DepartmentId, Body)>; 5]> {
    let departments: BTreeSet<_> = stage::departments(matters)?.into_iter().map(|d| d.id).collect();
    fn name<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
        text.parse().expect("a name")
    }
    let until_ms = now_ms() + 365 * 24 * 3_600_000;
    let (mut projects, mut asked, mut last) = (Vec::new(), Vec::new(), Vec::new());
    let mut declared = Vec::new();
    let holders: BTreeSet<DepartmentId> = resources.iter().map(|(id, _)| id.clone()).collect();
    for id in holders {
        let connector = gateway::Connector::parse(id.as_str(), &stage::connector(&id)?)?;
        let described = connector.descriptions.into_iter().map(|(resource, description)| {
            let body = DescribeResource { resource, version: 1, description };
            (id.clone(), Body::DescribeResource(body))
        });
        projects.extend(described);
    }
    let catalogue =
        resources.into_iter().map(|(id, resource)| (id, Body::PublishResource(resource))).collect();
    for Matter { package, .. } in matters {
        let requests = requests(package, until_ms);
        let title = &package.title;
        let needs = requests.iter().map(|r| Use {
            holder: r.holder.clone(),
            resource: r.resource.clone(),
            names: r.names.clone(),
            matter: r.matter.clone(),
            per_day: r.per_day,
        });
        let project = RegisterProject {
            id: name(package.id.as_str()),
            title: title.clone(),
            purpose: package.summary.clone().unwrap_or_else(|| title.clone()),
            citation: "优化营商环境条例第三十六条".into(),
            needs: needs.collect(),
            until_ms,
        };
        if !requests.is_empty() {
            projects.push((package.handler.clone(), Body::RegisterProject(project)));
        }
        for r in &requests {
            let approval = ApproveBasis {
                id: r.id.clone(),
                asker: package.handler.clone(),
                matter: r.matter.clone(),
                resource: r.resource.clone(),
                names: r.names.clone(),
                citation: r.citation.clone(),
                expires_ms: r.until_ms,
            };
            last.push((r.holder.clone(), Body::ApproveBasis(approval)));
        }
        asked.extend(requests.into_iter().map(|r| (package.handler.clone(), Body::RequestShare(r))));
        let publication = package.publication(terminal.suite());
        last.push((package.handler.clone(), Body::PublishMatter(publication)));
        declared.extend(package.declarations().into_iter().map(|body| (package.handler.clone(), body)));
    }
    let waits = RequestShare {
        id: name("signing-check"),
        holder: name("police"),
        resource: name("police.identity"),
        names: vec![name("name_matches")],
        matter: name("house-transfer"),
        project: None,
        citation: "城市房地产管理法第四十一条".into(),
        purpose: Text {
            zh: "网签时核验当事人姓名".into(),
            en: "to verify the parties' names when a contract is registered".into(),
        },
        per_day: 200,
        until_ms,
    };
    if departments.contains(&name::<DepartmentId>("housing")) {
        asked.push((name("housing"), Body::RequestShare(waits)));
    }
    last.push((name(HANDLER), Body::EnrolTerminal(EnrolTerminal { key: terminal, active: true })));
    Ok([catalogue, projects, asked, last, declared])
}

/// What a matter needs under statutes: one request for each, of each holder's resource.
fn requests(package: &Package, until_ms: u64) -> Vec<RequestShare> {
    let mut all: BTreeMap<(ApprovalId, ResourceId), RequestShare> = BTreeMap::new();
    for step in &package.steps {
        let Some(flow::Basis::Statutory(id)) = &step.basis else { continue };
        let need = package.need(step);
        let request = all.entry((id.clone(), need.resource.clone())).or_insert_with(|| RequestShare {
            id: id.clone(),
            holder: need.holder.clone(),
            resource: need.resource.clone(),
            names: vec![],
            matter: package.id.clone(),
            project: Some(package.id.as_str().parse().expect("a name")),
            citation: package.bases[id].zh.clone(),
            purpose: need.purpose.clone(),
            per_day: CALLS_A_DAY,
            until_ms,
        });
        for name in need.what.names() {
            if !request.names.contains(&name) {
                request.names.push(name);
            }
        }
    }
    all.into_values().collect()
}

impl Demo {
    /// Writes and starts the whole consortium that these matters take, and publishes its catalogue, bases and matters.
    pub async fn start(
        dir: &Path,
        port: u16,
        suite: Suite,
        casting: &mut Casting,
        matters: Vec<Matter>,
    ) -> Result<Self> {
        let made = write_consortium(dir, port, suite, setup::EPOCH_BLOCKS, casting.city(), &matters).await?;
        let door = door(personas(dir, casting, &matters).await?, suite);
        let mut demo = Self { dir: dir.to_owned(), made, nodes: BTreeMap::new(), matters, door };
        for id in demo.made.keys.keys().cloned().collect::<Vec<_>>() {
            demo.start_node(&id).await?;
        }
        demo.publish().await?;
        Ok(demo)
    }

    async fn start_node(&mut self, id: &DepartmentId) -> Result<()> {
        let config = Config::read(&node_dir(&self.dir, id).join("node.toml"))?;
        let door = (id.as_str() == HANDLER).then(|| self.door.clone());
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
        for round in publications(resources.collect(), self.door.terminal.public(), &self.matters)? {
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
        let bureau = self.node(HANDLER);
        Client::new(bureau.http, bureau.config.api_token.as_deref().unwrap_or_default())
    }

    /// Who carries cases through this consortium's API.
    pub fn driver(&self) -> Driver {
        Driver::new(self.client(), self.made.chain, self.door.clone(), self.dir.clone())
    }

    /// Stops every node.
    pub async fn stop(self) {
        for node in self.nodes.into_values() {
            node.stop().await;
        }
    }
}

fn progress(len: usize, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} cases {msg}").expect("a valid template");
    ProgressBar::new(len as u64).with_style(style)
}

/// Draws scenarios of a matter as often as they say, dealt like cards so that a few dozen cases show every kind, until so many
/// cases come of them. The first is the plain one: it is what a newcomer sees.
pub fn draw(matter: &Matter, casting: &mut Casting, wanted: usize, seed: u64) -> Result<Vec<Play>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut deck: Vec<&String> = Vec::new();
    let (mut plays, mut count) = (Vec::new(), 0);
    while count < wanted {
        if deck.is_empty() {
            let cards = matter.scenarios.iter();
            deck = cards.flat_map(|(name, s)| std::iter::repeat_n(name, s.share as usize)).collect();
            deck.shuffle(&mut rng);
            anyhow::ensure!(!deck.is_empty(), "{}: no scenario has a share", matter.package.id);
        }
        let name = if count == 0 { PLAIN } else { deck.pop().expect("just filled") };
        // what makes two cases of one application does not fit in where one is wanted
        let name = if count + 1 == wanted && matter.scenarios[name].twice { PLAIN } else { name };
        let play = casting.cast(matter, name)?;
        count += if play.scenario.twice { 2 } else { 1 };
        plays.push(play);
    }
    Ok(plays)
}

/// Plays all, so many at once; those with a department whose node is down run together at the end, while it is.
pub async fn run_plays(
    demo: &mut Demo,
    plays: Vec<Play>,
    at_once: usize,
    quiet: bool,
) -> Result<Vec<CaseReport>> {
    let driver = demo.driver();
    let wanted = plays.iter().map(|p| if p.scenario.twice { 2 } else { 1 }).sum();
    let (outages, plain): (Vec<_>, Vec<_>) = plays.into_iter().partition(|p| p.scenario.down.is_some());
    let bar = progress(wanted, quiet);
    let reports = Arc::new(Mutex::new(Vec::new()));
    let gate = Arc::new(Semaphore::new(at_once));
    let spawn = |play: Play| {
        let (driver, reports, gate, bar) = (driver.clone(), reports.clone(), gate.clone(), bar.clone());
        tokio::spawn(async move {
            let _permit = gate.acquire_owned().await?;
            let done = driver.run(&play).await.with_context(|| format!("scenario {}", play.name))?;
            bar.inc(done.len() as u64);
            reports.lock().await.extend(done.iter().cloned());
            anyhow::Ok(done)
        })
    };
    for task in plain.into_iter().map(&spawn).collect::<Vec<_>>() {
        task.await??;
    }
    let mut by_department: BTreeMap<DepartmentId, Vec<Play>> = BTreeMap::new();
    for play in outages {
        by_department.entry(play.scenario.down.clone().context("it has one")?).or_default().push(play);
    }
    for (department, plays) in by_department {
        bar.set_message(format!("(the node of {department} is down)"));
        demo.nodes.remove(&department).context("the node runs")?.stop().await;
        let down = Instant::now();
        let tasks: Vec<_> = plays.into_iter().map(&spawn).collect();
        wait_until_blocked(&driver, &department, at_once).await?;
        demo.start_node(&department).await?;
        let waited = down.elapsed().as_millis() as u64;
        let mut ids = BTreeSet::new();
        for task in tasks {
            ids.extend(task.await??.into_iter().map(|r| r.id));
        }
        for report in reports.lock().await.iter_mut().filter(|r| ids.contains(&r.id)) {
            report.waited_ms = waited.min(report.elapsed_ms);
            report.elapsed_ms -= report.waited_ms;
        }
    }
    bar.finish_and_clear();
    let mut reports = reports.lock().await;
    Ok(std::mem::take(&mut *reports))
}

/// Waits until a case says that it is blocked, and by this department.
async fn wait_until_blocked(driver: &Driver, department: &DepartmentId, at_once: usize) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let ids: Vec<String> = driver.client.get("/api/v1/cases").await?;
        for id in ids.iter().take(at_once) {
            let case = driver.case(id).await?;
            if case["outcome"] == "blocked" && case["waits_for"] == department.as_str() {
                return Ok(());
            }
        }
        if Instant::now() > deadline {
            bail!("no case said that it waits for {department} while its node was down");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn percentile(sorted: &[u64], p: f64) -> u64 {
    sorted.get(((sorted.len() as f64 - 1.0) * p).round() as usize).copied().unwrap_or_default()
}

/// The latency of finality, measured with a few commands of the bureau's.
async fn finality_ms(demo: &Demo) -> Result<(u64, u64)> {
    let flow = &demo.node(HANDLER).flow;
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
    let widest =
        report.steps.iter().filter_map(|s| s["step"].as_str()).map(str::len).max().unwrap_or_default();
    for step in &report.steps {
        let text = |key: &str| step[key].as_str().unwrap_or_default();
        let mark = match text("status") {
            "done" => "✓",
            "failed" => "✗",
            "skipped" => "–",
            "waiting" => "…",
            _ => "·",
        };
        say!(
            "  {mark} {:<widest$} {:<9} {:<9} {:>6} ms  {}",
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
    let names = match options.headless {
        true => vec![options.matter.clone()],
        // whoever looks at the portal finds every service there
        false => stage::matter_names(),
    };
    let played = stage::matter(&options.matter)?;
    let matters = stage::matters(&names)?;
    let begun = Instant::now();
    let count = stage::departments(&matters)?.len();
    if !options.json {
        say!("Starting a consortium of {count} departments, 4 of them validators …");
    }
    let mut casting = Casting::new(Arc::new(City::new(options.seed)));
    let plays = draw(&played, &mut casting, options.cases, options.seed)?;
    let mut demo = Demo::start(&options.data, options.port, options.suite, &mut casting, matters).await?;
    if !options.json {
        say!(
            "Ready after {:.1} s; running {} case(s) of {} …",
            begun.elapsed().as_secs_f64(),
            options.cases,
            options.matter
        );
    }
    let (p50, p99) = finality_ms(&demo).await?;
    let reports = run_plays(&mut demo, plays, AT_ONCE, options.json).await?;
    let bureau = demo.node(HANDLER);
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
