//! The simulated city: six departments with their keys and databases, and the people who sell and buy.

use crate::{disk::Fuse, plan::Plan};
use crypto::{Credentials, SigningKey, VoteKeys};
use flow::{Package, Vault, VaultFuture, Withholding};
use gateway::{Connector, Memory, Source, SourceError, Standard};
use identity::Terminal;
use model::*;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicI64},
};

/// When every simulated ledger begins: 2026-11-24 in China.
pub const START_MS: u64 = 1_795_449_600_000;

/// A department: name, whether it votes, its connector.
const DEPARTMENTS: [(&str, bool, &str); 6] = [
    ("audit", true, include_str!("../world/audit.yaml")),
    ("bureau", true, include_str!("../world/bureau.yaml")),
    ("gas", false, include_str!("../world/gas.yaml")),
    ("police", true, include_str!("../world/police.yaml")),
    ("power", false, include_str!("../world/power.yaml")),
    ("registry", true, include_str!("../world/registry.yaml")),
];

/// A name, which must be one.
pub fn name<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
    text.parse().expect("a name")
}

/// What is special about a sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// The seller owes for electricity, pays later and asks to go on.
    Arrears,
    /// The home is seized.
    Seized,
    /// The seller withdraws at some moment, before or after the pivot.
    Withdrawn,
    /// The application is sent twice at once.
    Twice,
    /// The gas company's account is closed: its part fails after the pivot.
    GasClosed,
}

/// When a seller who withdraws does so.
#[derive(Clone, Copy, Debug)]
pub enum Thinks {
    /// So many milliseconds after both have signed.
    After(u64),
    /// As soon as a call under the consent is asked.
    OnceAsked,
    /// So many milliseconds after everything is answered, with the decision or the registration under way.
    OnceOpened(u64),
}

/// Somebody.
#[derive(Clone, Debug)]
pub struct Person {
    /// Resident identity number.
    pub id: String,
    /// Name.
    pub name: String,
}

/// A sale.
#[derive(Clone, Debug)]
pub struct Sale {
    /// The home.
    pub unit: String,
    /// Who sells.
    pub seller: Person,
    /// Who buys.
    pub buyer: Person,
    /// What is special.
    pub kind: Kind,
    /// When a withdrawing seller thinks again.
    pub thinks: Thinks,
}

/// A department's part that outlives its node's crashes.
pub struct Department {
    /// Its name.
    pub id: DepartmentId,
    /// Whether it votes.
    pub validator: bool,
    /// Its keys.
    pub own: Credentials,
    /// Its vote keys.
    pub votes: Arc<MemoryVotes>,
    /// Its declared files.
    pub connector: Connector,
    /// Its own database.
    pub source: Database,
    /// Its vault.
    pub vault: Arc<MemoryVault>,
    /// Its node's persistence points.
    pub fuse: Arc<Fuse>,
    /// How far its clock is off.
    pub skew_ms: Arc<AtomicI64>,
}

impl Department {
    /// Its entry in the roster.
    pub fn member(&self, validator: bool) -> Member {
        let title = Text { zh: self.id.to_string(), en: self.id.to_string() };
        self.own.member(self.id.clone(), title, validator, "simulated:1".into())
    }
}

/// Vote keys in memory.
#[derive(Default)]
pub struct MemoryVotes(Mutex<Vec<SigningKey>>);

impl MemoryVotes {
    /// Makes and keeps a fresh key.
    pub fn fresh(&self, suite: Suite) -> SigningKey {
        let key = SigningKey::random(suite);
        self.0.lock().expect("no holder panics").push(key.clone());
        key
    }
}

impl VoteKeys for MemoryVotes {
    fn find(&self, public: &PublicKey) -> Option<SigningKey> {
        self.0.lock().expect("no holder panics").iter().find(|k| k.public() == *public).cloned()
    }
}

/// The city.
pub struct World {
    /// Departments in the order of their names.
    pub departments: Vec<Department>,
    /// The genesis.
    pub genesis: Genesis,
    /// The shared standard.
    pub standard: Standard,
    /// The matter.
    pub package: Package,
    /// The counter's terminal.
    pub terminal: Terminal,
    /// The sales.
    pub sales: Vec<Sale>,
}

/// The matter, without what the rules it begins with do not know.
fn sale(protocol: u32) -> String {
    let all = include_str!("../world/sale.yaml");
    let text = match all.split_once("    # from protocol 7 on: ").expect("marked in the file") {
        (before, rest) if protocol < LIST_PROTOCOL => {
            format!("{before}{}", rest.split_once('\n').expect("a line of its own").1)
        }
        (before, rest) => format!("{before}    {rest}"),
    };
    if protocol >= UNDO_PROTOCOL {
        return text;
    }
    let (before, rest) = text.split_once("  # from protocol 6 on").expect("marked in the file");
    let (_, after) = rest.split_once("  # end\n").expect("marked in the file");
    format!("{before}{after}").replace(", bills, hold]", ", bills]")
}

fn person(rng: &mut ChaCha8Rng, i: usize) -> Person {
    let (year, month, day) =
        (rng.random_range(1950..2000), rng.random_range(1..=12), rng.random_range(1..=28));
    let first = format!("110101{year}{month:02}{day:02}{:03}", 900 + i);
    let check = identifier::resident_check(first.as_bytes()).expect("seventeen digits") as char;
    Person { id: format!("{first}{check}"), name: format!("王小{}", ["甲", "乙", "丙", "丁"][i % 4]) }
}

impl World {
    /// The city of a seed.
    pub fn new(seed: u64, plan: &Plan) -> Self {
        let (sales, suite) = (plan.sales, plan.suite);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let kinds = [Kind::Arrears, Kind::Seized, Kind::Withdrawn, Kind::Twice, Kind::GasClosed];
        let sales: Vec<_> = (0..sales)
            .map(|i| Sale {
                unit: format!("110108001001GB00001F0001{i:04}"),
                seller: person(&mut rng, 2 * i),
                buyer: person(&mut rng, 2 * i + 1),
                kind: if rng.random_range(0..3) == 0 { Kind::Plain } else { kinds[rng.random_range(0..5)] },
                thinks: match rng.random_range(0..3) {
                    0 => Thinks::After(rng.random_range(0..800)),
                    1 => Thinks::OnceAsked,
                    _ => Thinks::OnceOpened(rng.random_range(0..150)),
                },
            })
            .collect();
        // the window for this bug is narrow: everybody thinks again at the one moment that tempts it
        let tempted = model::planted("undo_after_pivot") || model::planted("left_standing");
        let sales: Vec<Sale> = sales
            .into_iter()
            .map(|sale| match sale.thinks {
                // and for this one everybody's case rests and goes on
                _ if model::planted("half_past") => Sale { kind: Kind::Arrears, ..sale },
                _ if !tempted => sale,
                Thinks::OnceOpened(after) | Thinks::After(after) => {
                    Sale { kind: Kind::Withdrawn, thinks: Thinks::OnceOpened(after % 150), ..sale }
                }
                Thinks::OnceAsked => Sale { kind: Kind::Withdrawn, thinks: Thinks::OnceOpened(0), ..sale },
            })
            .collect();
        let canaries: Vec<Vec<u8>> = sales
            .iter()
            .flat_map(|s| [&s.seller.id, &s.buyer.id, &s.unit])
            .flat_map(|c| [c.as_bytes().to_vec(), crypto::digest(suite, &[c.as_bytes()]).0.to_vec()])
            .collect();
        let departments: Vec<_> = DEPARTMENTS
            .iter()
            .map(|(id, validator, connector)| {
                let fuse = Arc::new(Fuse::new(&canaries));
                let own = Credentials::random(suite);
                let votes = Arc::new(MemoryVotes(Mutex::new(vec![own.vote.clone()])));
                Department {
                    id: name(id),
                    validator: *validator,
                    own,
                    votes,
                    connector: Connector::parse(id, connector).expect("the simulation's connector"),
                    source: database(id, &sales, fuse.clone()),
                    vault: Arc::new(MemoryVault::new(fuse.clone())),
                    fuse,
                    skew_ms: Arc::default(),
                }
            })
            .collect();
        let genesis = Genesis {
            format: 1,
            name: "simulation".into(),
            suite,
            time_ms: START_MS,
            epoch_blocks: plan.epoch_blocks,
            protocol: plan.protocol,
            approvals: 3,
            members: departments.iter().map(|d| d.member(d.validator)).collect(),
        };
        let standard = Standard::parse("elements.yaml", include_str!("../../../standards/elements.yaml"));
        Self {
            departments,
            genesis,
            standard: standard.expect("the shared standard"),
            package: Package::parse("sale.yaml", &sale(plan.protocol)).expect("the matter"),
            terminal: Terminal::new(SigningKey::random(suite)),
            sales,
        }
    }

    /// A department by its name.
    pub fn department(&self, id: &str) -> &Department {
        self.departments.iter().find(|d| d.id.as_str() == id).expect("a department of the simulation")
    }

    /// What a department withholds from its statements: the registry, checks of a statutory duty.
    pub fn withholdings(&self, department: &DepartmentId) -> Vec<Withholding> {
        let withholding =
            Withholding { basis: name("duty"), ground: "law".into(), until_ms: START_MS + 86_400_000 };
        if department.as_str() == "registry" { vec![withholding] } else { vec![] }
    }

    /// What the departments publish before the first case, in order.
    pub fn publications(&self) -> Vec<(DepartmentId, Body)> {
        let resources = self.departments.iter().flat_map(|d| {
            d.connector.resources.iter().map(|r| (d.id.clone(), Body::PublishResource(r.clone())))
        });
        let approval = ApproveBasis {
            id: name("duty"),
            asker: name("bureau"),
            matter: name("sale"),
            resource: name("registry.restriction"),
            names: vec![name("seized")],
            citation: "law".into(),
            expires_ms: START_MS + 86_400_000,
        };
        let terminal = EnrolTerminal { key: self.terminal.public(), active: true };
        let rest = [
            (name("registry"), Body::ApproveBasis(approval)),
            (name("bureau"), Body::EnrolTerminal(terminal)),
            (name("bureau"), Body::PublishMatter(self.package.publication(self.genesis.suite))),
        ];
        let declared = self.package.declarations().into_iter().map(|body| (name("bureau"), body));
        resources.chain(rest).chain(declared).collect()
    }
}

fn database(id: &str, sales: &[Sale], fuse: Arc<Fuse>) -> Database {
    let tables = Memory::default();
    let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
    match id {
        "police" => {
            let people = sales.iter().flat_map(|s| [&s.seller, &s.buyer]);
            let rows: Vec<_> = people.map(|p| row(&[&p.id, &p.name])).collect();
            tables.table("people", &["id", "name"], &rows);
        }
        "registry" => {
            let rows: Vec<_> = sales
                .iter()
                .enumerate()
                .map(|(i, s)| row(&[&s.unit, &format!("D{i}"), &s.seller.id, &s.seller.name, "current"]))
                .collect();
            tables.table("deeds", &["unit", "number", "person", "name", "state"], &rows);
            let seized: Vec<_> =
                sales.iter().filter(|s| s.kind == Kind::Seized).map(|s| row(&[&s.unit])).collect();
            tables.table("limits", &["unit"], &seized);
            tables.table("holds", &["number", "unit", "state"], &[]);
        }
        "power" | "gas" => {
            let rows: Vec<_> = sales
                .iter()
                .map(|s| {
                    let owed = if id == "power" && s.kind == Kind::Arrears { "500" } else { "0" };
                    let closed = id == "gas" && s.kind == Kind::GasClosed;
                    let state = if closed { "closed" } else { "open" };
                    row(&[&s.unit, &s.seller.id, &s.seller.name, state, owed])
                })
                .collect();
            tables.table("accounts", &["unit", "holder", "name", "state", "owed"], &rows);
        }
        _ => {}
    }
    Database { tables, fuse, subjects: Arc::default() }
}

/// A department's own database: writes are persistence points, and what was asked about is noted.
#[derive(Clone)]
pub struct Database {
    /// Its tables.
    pub tables: Memory,
    fuse: Arc<Fuse>,
    /// Every value a read was bound to.
    pub subjects: Arc<Mutex<Vec<String>>>,
}

impl Source for Database {
    async fn columns(&self, table: &str) -> Result<Vec<(String, String)>, SourceError> {
        self.tables.columns(table).await
    }

    async fn distinct(
        &self,
        table: &str,
        column: &str,
        bytes: bool,
        limit: u64,
    ) -> Result<Vec<gateway::Stored>, SourceError> {
        self.tables.distinct(table, column, bytes, limit).await
    }

    async fn select(
        &self,
        select: &gateway::Select,
        binds: &[gateway::Stored],
    ) -> Result<Vec<Vec<Option<gateway::Stored>>>, SourceError> {
        let texts = binds.iter().filter_map(|b| match b {
            gateway::Stored::Text(text) => Some(text.clone()),
            gateway::Stored::Bytes(_) => None,
        });
        self.subjects.lock().expect("no holder panics").extend(texts);
        self.tables.select(select, binds).await
    }

    async fn write_once(
        &self,
        key: &str,
        writes: &[gateway::Write],
        result: &BTreeMap<FieldId, String>,
    ) -> Result<gateway::Written, SourceError> {
        self.fuse.point().await;
        let written = self.tables.write_once(key, writes, result).await;
        self.fuse.named_point("acted").await;
        written
    }
}

/// Called with every place a vault keeps something at.
pub type Watch = Box<dyn Fn(&str) + Send>;

/// A vault in memory that outlives its node's crashes. Writes are persistence points.
pub struct MemoryVault {
    kept: Mutex<BTreeMap<String, Vec<u8>>>,
    fuse: Arc<Fuse>,
    /// Called with every place written.
    pub watch: Mutex<Option<Watch>>,
}

impl MemoryVault {
    fn new(fuse: Arc<Fuse>) -> Self {
        Self { kept: Mutex::default(), fuse, watch: Mutex::default() }
    }
}

impl Vault for MemoryVault {
    fn put<'a>(&'a self, place: &'a str, value: &'a [u8]) -> VaultFuture<'a, ()> {
        Box::pin(async move {
            if let Some(watch) = &*self.watch.lock().expect("no holder panics") {
                watch(place);
            }
            self.fuse.point().await;
            self.kept.lock().expect("no holder panics").insert(place.to_owned(), value.to_vec());
            self.fuse.named_point(if place.starts_with("opened/") { "opened" } else { "kept" }).await;
            Ok(())
        })
    }

    fn get<'a>(&'a self, place: &'a str) -> VaultFuture<'a, Option<Vec<u8>>> {
        Box::pin(async move { Ok(self.kept.lock().expect("no holder panics").get(place).cloned()) })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> VaultFuture<'a, Vec<String>> {
        Box::pin(async move {
            let kept = self.kept.lock().expect("no holder panics");
            let mut places: Vec<String> = kept.keys().filter(|p| p.starts_with(prefix)).cloned().collect();
            places.sort();
            Ok(places)
        })
    }

    fn erase<'a>(&'a self, prefix: &'a str) -> VaultFuture<'a, u64> {
        Box::pin(async move {
            self.fuse.point().await;
            let mut kept = self.kept.lock().expect("no holder panics");
            let before = kept.len();
            kept.retain(|place, _| !place.starts_with(prefix));
            Ok((before - kept.len()) as u64)
        })
    }
}
