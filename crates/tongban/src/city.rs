//! The demo's city: invented people, homes and accounts in the departments' own databases, from a seed.

use anyhow::{Context as _, Result};
use model::identifier;
use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use std::path::Path;

mod forms;
mod questions;

pub use forms::{CityCommand, city};

/// How many citizens the city has.
pub const CITIZENS: usize = 10_000;
const HOMES: usize = 4_000;
const SALES: usize = 400;

/// A citizen.
#[derive(Clone)]
pub struct Citizen {
    /// Resident identity number.
    pub id: String,
    /// Name.
    pub name: String,
    female: bool,
}

struct Home {
    unit: String,
    street: String,
    building: u32,
    entrance: u32,
    room: u32,
    owner: usize,
    deed: String,
    power: String,
}

/// A sale that can become a case.
#[derive(Clone)]
pub struct Sale {
    /// Unit code.
    pub unit: String,
    /// Contract number.
    pub contract: String,
    /// The electricity account.
    pub power_account: String,
    /// The seller.
    pub seller: Citizen,
    /// The buyer.
    pub buyer: Citizen,
    price_yuan: u64,
}

/// The whole city.
pub struct City {
    citizens: Vec<Citizen>,
    homes: Vec<Home>,
    /// Sales, in the order cases are drawn.
    pub sales: Vec<Sale>,
}

const SURNAMES: [&str; 24] = [
    "王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "徐", "孙", "胡", "朱", "高", "林", "何",
    "郭", "马", "罗", "欧阳", "司马", "诸葛", "上官",
];
const GIVEN: [&str; 40] = [
    "伟", "芳", "娜", "敏", "静", "丽", "强", "磊", "军", "洋", "勇", "艳", "杰", "娟", "涛", "明", "超",
    "秀英", "霞", "平", "刚", "桂英", "建国", "建华", "志强", "晓东", "晓红", "文博", "雨桐", "子涵", "浩然",
    "思远", "欣怡", "梓萱", "一诺", "宇航", "若曦", "嘉懿", "煜城", "懿轩",
];
const STREETS: [&str; 12] = [
    "清荷路",
    "望山街",
    "云渡路",
    "听松街",
    "知春里东街",
    "白石桥西路",
    "晚枫路",
    "柳浪街",
    "星河路",
    "稻香南街",
    "玉泉新路",
    "书院街",
];

impl City {
    /// The city of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut taken = std::collections::HashSet::new();
        let mut citizens: Vec<Citizen> = Vec::with_capacity(CITIZENS);
        while citizens.len() < CITIZENS {
            let new = citizen(&mut rng, citizens.len());
            if taken.insert(new.id.clone()) {
                citizens.push(new);
            }
        }
        let homes: Vec<_> = (0..HOMES).map(|i| home(&mut rng, i)).collect();
        let mut buyers: Vec<usize> = (HOMES..CITIZENS).collect();
        let mut sales = Vec::with_capacity(SALES);
        for (i, home) in homes.iter().take(SALES).enumerate() {
            let buyer = buyers.swap_remove(rng.random_range(0..buyers.len()));
            sales.push(Sale {
                unit: home.unit.clone(),
                contract: format!("C2026{:06}", 100_000 + i * 7),
                power_account: home.power.clone(),
                seller: citizens[home.owner].clone(),
                buyer: citizens[buyer].clone(),
                price_yuan: rng.random_range(1_500_000..12_000_000),
            });
        }
        Self { citizens, homes, sales }
    }

    /// The i-th of the people nothing is known about beside the population register: no sale, no marriage, no list.
    pub fn person(&self, i: usize) -> Option<&Citizen> {
        let buyers: std::collections::HashSet<&str> =
            self.sales.iter().map(|s| s.buyer.id.as_str()).collect();
        let free = |(at, c): &(usize, &Citizen)| {
            let married = ((at - SALES) / 2).is_multiple_of(2);
            !married && !(at - HOMES).is_multiple_of(151) && !buyers.contains(c.id.as_str())
        };
        self.citizens.iter().enumerate().skip(HOMES).filter(free).map(|(_, c)| c).nth(i)
    }

    /// The unit code of the i-th home nobody sells.
    pub fn unsold_unit(&self, i: usize) -> Option<&str> {
        self.homes.get(SALES + i).map(|h| h.unit.as_str())
    }

    /// Writes a department's own database, in its own schema and conventions.
    pub async fn write(&self, department: &str, path: &Path) -> Result<()> {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut db = SqliteConnection::connect_with(&options).await.context("a department's database")?;
        for statements in [schema(department), &crate::stage::statements(department)] {
            sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut db).await?;
        }
        let mut transaction = db.begin().await?;
        for (table, rows) in self.rows(department) {
            insert(&mut transaction, table, rows).await?;
        }
        transaction.commit().await?;
        db.close().await?;
        Ok(())
    }

    fn rows(&self, department: &str) -> Vec<(&'static str, Vec<Vec<Cell>>)> {
        match department {
            "police" => vec![("rk_jbxx", self.citizens.iter().map(person_row).collect())],
            "civil" => vec![("marriages", self.marriages())],
            "court" => vec![("zxr", self.executors())],
            "registry" => self.registry(),
            "housing" => vec![("wq_ht", self.sales.iter().map(contract_row).collect())],
            "tax" => vec![("tax_settlement", self.settlements())],
            "power" => vec![
                ("dl_yh", self.homes.iter().map(|h| self.power_row(h)).collect()),
                ("dl_df", self.bills()),
            ],
            "water" => vec![("water_account", self.homes.iter().map(|h| self.water_row(h)).collect())],
            "gas" => vec![("gas_customer", self.homes.iter().map(|h| self.gas_row(h)).collect())],
            "bureau" => {
                vec![("sxml", vec![vec!["house-transfer".into(), "房屋转移登记与水电气过户".into()]])]
            }
            _ => vec![],
        }
    }

    /// Citizens beyond the sellers marry in pairs, so that no seller of the demo needs a co-owner.
    fn marriages(&self) -> Vec<Vec<Cell>> {
        let couples = self.citizens[SALES..].chunks_exact(2).enumerate().filter(|(i, _)| i % 2 == 0);
        couples
            .map(|(i, pair)| {
                let registered = format!("20{:02}/{:02}/{:02}", 5 + i % 19, 1 + i % 12, 1 + i % 28);
                vec![
                    format!("J110108-{i:06}").into(),
                    pair[0].id.as_str().into(),
                    pair[1].id.as_str().into(),
                    registered.into(),
                    if i % 11 == 0 { "L" } else { "J" }.into(),
                ]
            })
            .collect()
    }

    fn executors(&self) -> Vec<Vec<Cell>> {
        let listed = self.citizens[HOMES..].iter().enumerate().filter(|(i, _)| i % 151 == 0);
        listed
            .map(|(i, c)| {
                vec![
                    format!("(2025)京0108执{i}号").into(),
                    c.name.as_str().into(),
                    c.id.as_str().into(),
                    format!("2025年{:02}月{:02}日", 1 + i % 12, 1 + i % 28).into(),
                    if i % 453 == 0 { "2026年01月05日".into() } else { Cell::Null },
                ]
            })
            .collect()
    }

    fn registry(&self) -> Vec<(&'static str, Vec<Vec<Cell>>)> {
        let mut restrictions: Vec<Vec<Cell>> = Vec::new();
        for (i, home) in self.homes.iter().enumerate() {
            if i % 9 == 4 {
                restrictions.push(vec![home.unit.as_str().into(), "02".into(), "1".into()]);
            } else if i % 97 == 5 {
                restrictions.push(vec![home.unit.as_str().into(), "01".into(), "0".into()]);
            }
        }
        let unit = |h: &Home| vec![h.unit.as_str().into(), address(h).into(), "89.7".into()];
        let deed = |h: &Home| vec![h.deed.as_str().into(), h.unit.as_str().into(), "1".into()];
        let holder = |h: &Home| {
            let owner = &self.citizens[h.owner];
            vec![h.deed.as_str().into(), owner.name.as_str().into(), owner.id.as_str().into(), "1".into()]
        };
        vec![
            ("bdc_dy", self.homes.iter().map(unit).collect()),
            ("bdc_qz", self.homes.iter().map(deed).collect()),
            ("bdc_qlr", self.homes.iter().map(holder).collect()),
            ("bdc_xz", restrictions),
        ]
    }

    fn settlements(&self) -> Vec<Vec<Cell>> {
        let row = |(i, s): (usize, &Sale)| {
            let payable = (s.price_yuan * 100 / 100).to_string();
            vec![
                format!("QS{i:08}").into(),
                s.contract.as_str().into(),
                "QS".into(),
                s.buyer.id.as_str().into(),
                payable.as_str().into(),
                payable.as_str().into(),
                "Y".into(),
                "20261102".into(),
            ]
        };
        self.sales.iter().enumerate().map(row).collect()
    }

    fn power_row(&self, home: &Home) -> Vec<Cell> {
        let owner = &self.citizens[home.owner];
        let place = format!("海淀{}{}号楼{}单元{}室", home.street, home.building, home.entrance, home.room);
        vec![
            home.power.as_str().into(),
            format!("{} ", owner.name).into(),
            owner.id.as_str().into(),
            place.into(),
            "0".into(),
            // invented: eleven digits that follow from the home, of no use but to be looked for where they may not be
            format!("199{:08}", 10_000_000 + home.owner * 7).into(),
        ]
    }

    fn bills(&self) -> Vec<Vec<Cell>> {
        let mut rows = Vec::new();
        for (i, home) in self.homes.iter().enumerate() {
            for (month, period) in ["202608", "202609", "202610"].iter().enumerate() {
                let due = 8_000 + (i * 37 + month * 911) % 9_000;
                rows.push(vec![
                    home.power.as_str().into(),
                    (*period).into(),
                    due.to_string().into(),
                    due.to_string().into(),
                ]);
            }
        }
        rows
    }

    fn water_row(&self, home: &Home) -> Vec<Cell> {
        let owner = &self.citizens[home.owner];
        vec![
            format!("W{}", &home.power[4..]).into(),
            home.unit.as_str().into(),
            owner.name.as_str().into(),
            owner.id.as_str().into(),
            format!("{}-{}-{}-{}", home.street, home.building, home.entrance, home.room).into(),
            "在用".into(),
            "0.00".into(),
        ]
    }

    fn gas_row(&self, home: &Home) -> Vec<Cell> {
        let owner = &self.citizens[home.owner];
        let u = &home.unit;
        let parts = [&u[..6], &u[6..9], &u[9..12], &u[12..14], &u[14..19], &u[19..20], &u[20..]];
        vec![
            parts.join("-").into(),
            owner.name.as_str().into(),
            owner.id.as_str().into(),
            "ACTIVE".into(),
            "0".into(),
            "OK".into(),
            owner.id.as_str().into(),
        ]
    }
}

/// A value to insert.
enum Cell {
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
    Null,
}

impl From<&str> for Cell {
    fn from(s: &str) -> Self {
        Self::Text(s.to_owned())
    }
}
impl From<String> for Cell {
    fn from(s: String) -> Self {
        Self::Text(s)
    }
}

async fn insert(db: &mut SqliteConnection, table: &str, rows: Vec<Vec<Cell>>) -> Result<()> {
    let Some(width) = rows.first().map(Vec::len) else { return Ok(()) };
    let row = format!("({})", vec!["?"; width].join(","));
    for chunk in rows.chunks(500) {
        let sql = format!("INSERT INTO {table} VALUES {}", vec![row.as_str(); chunk.len()].join(","));
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for cell in chunk.iter().flatten() {
            query = match cell {
                Cell::Integer(n) => query.bind(*n),
                Cell::Text(text) => query.bind(text.as_str()),
                Cell::Bytes(bytes) => query.bind(bytes.as_slice()),
                Cell::Null => query.bind(None::<String>),
            };
        }
        query.execute(&mut *db).await.with_context(|| format!("filling {table}"))?;
    }
    Ok(())
}

fn citizen(rng: &mut ChaCha8Rng, i: usize) -> Citizen {
    let (year, month, day) =
        (rng.random_range(1945..2004), rng.random_range(1..=12), rng.random_range(1..=28));
    // the sequence numbers 900 to 999 are reserved for centenarians and never issued to the young: none is a real person's
    let female = rng.random_range(0..2) == 1;
    let sequence = 900 + (i % 50) * 2 + usize::from(!female);
    let region = [110101, 110102, 110105, 110106, 110108, 110109][rng.random_range(0..6)];
    let first = format!("{region}{year}{month:02}{day:02}{:03}", sequence.min(999));
    let check = identifier::resident_check(first.as_bytes()).expect("seventeen digits") as char;
    let name =
        format!("{}{}", SURNAMES.choose(rng).expect("not empty"), GIVEN.choose(rng).expect("not empty"));
    Citizen { id: format!("{first}{check}"), name, female }
}

/// Somebody the registers do not know, born on a day (`yyyy-mm-dd`).
pub fn stranger(born: &str, i: usize) -> Result<Citizen> {
    let first = format!("110108{}{:03}", born.replace('-', ""), 901 + i % 49 * 2);
    let check =
        identifier::resident_check(first.as_bytes()).with_context(|| format!("`{born}` is no day"))?;
    let id = identifier::resident(&format!("{first}{}", char::from(check)))
        .map_err(|e| anyhow::anyhow!("`{born}`: {e}"))?;
    Ok(Citizen { id, name: format!("{}某", SURNAMES[i % SURNAMES.len()]), female: false })
}

/// The unified social credit code of the i-th individual business of the city.
pub fn credit_code(i: usize) -> String {
    let organisation = format!("MA{:06}", i % 1_000_000);
    let check = identifier::organisation_check(organisation.as_bytes()).expect("eight letters and digits");
    let first = format!("92110108{organisation}{}", char::from(check));
    let check = identifier::credit_check(first.as_bytes()).expect("seventeen characters of its alphabet");
    format!("{first}{}", char::from(check))
}

fn home(rng: &mut ChaCha8Rng, i: usize) -> Home {
    let (building, entrance, room) =
        (1 + i as u32 / 60, 1 + (i as u32 / 20) % 3, 101 + (i as u32 % 20) / 4 * 100 + i as u32 % 4);
    Home {
        unit: format!(
            "110108{:03}{:03}GB{:05}F{:04}{:04}",
            1 + i / 1000,
            1 + (i / 100) % 10,
            building,
            entrance,
            i % 10_000
        ),
        street: STREETS.choose(rng).expect("not empty").to_string(),
        building,
        entrance,
        room,
        owner: i,
        deed: format!("京(2020)海淀区不动产权第{:07}号", 1_000_000 + i),
        power: format!("0103{:06}", 200_000 + i * 3),
    }
}

fn address(h: &Home) -> String {
    format!("北京市海淀区{}{}号楼{}单元{}室", h.street, h.building, h.entrance, h.room)
}

fn person_row(c: &Citizen) -> Vec<Cell> {
    vec![
        c.id.as_str().into(),
        c.name.as_str().into(),
        if c.female { "2" } else { "1" }.into(),
        c.id[6..14].into(),
        "1".into(),
    ]
}

fn contract_row(s: &Sale) -> Vec<Cell> {
    let u = &s.unit;
    let unit = [&u[..6], &u[6..9], &u[9..12], &u[12..14], &u[14..19], &u[19..20], &u[20..]].join(" ");
    let gbk = |text: &str| Cell::Bytes(encoding_rs::GBK.encode(text).0.into_owned());
    vec![
        s.contract.as_str().into(),
        unit.into(),
        gbk(&s.seller.name),
        s.seller.id.as_str().into(),
        gbk(&s.buyer.name),
        s.buyer.id.as_str().into(),
        format!("{}.00", s.price_yuan).into(),
        gbk("备案"),
        "2026-10-20".into(),
        s.power_account.as_str().into(),
    ]
}

fn schema(department: &str) -> &'static str {
    match department {
        "police" => "CREATE TABLE rk_jbxx (gmsfhm TEXT NOT NULL, xm TEXT, xb TEXT, csrq TEXT, zt TEXT);
            CREATE INDEX rk_1 ON rk_jbxx (gmsfhm)",
        "civil" => "CREATE TABLE marriages (cert_no TEXT PRIMARY KEY, husband_id TEXT, wife_id TEXT, registered TEXT, state TEXT);
            CREATE INDEX m_1 ON marriages (husband_id); CREATE INDEX m_2 ON marriages (wife_id);
            CREATE VIEW v_spouse AS SELECT husband_id AS person_id, state FROM marriages
              UNION ALL SELECT wife_id, state FROM marriages",
        "court" => "CREATE TABLE zxr (ah TEXT, xm TEXT, zjhm TEXT, fb_rq TEXT, cx_rq TEXT);
            CREATE INDEX zxr_1 ON zxr (zjhm);
            CREATE VIEW v_zxr AS SELECT zjhm, fb_rq FROM zxr WHERE cx_rq IS NULL",
        "registry" => "CREATE TABLE bdc_dy (bdcdyh TEXT PRIMARY KEY, zl TEXT, jzmj TEXT);
            CREATE TABLE bdc_qz (bdcqzh TEXT PRIMARY KEY, bdcdyh TEXT, qszt TEXT);
            CREATE TABLE bdc_qlr (bdcqzh TEXT, qlrmc TEXT, zjhm TEXT, gyfs TEXT);
            CREATE TABLE bdc_xz (bdcdyh TEXT, xzlx TEXT, zt TEXT);
            CREATE INDEX qz_1 ON bdc_qz (bdcdyh); CREATE INDEX qlr_1 ON bdc_qlr (zjhm); CREATE INDEX qlr_2 ON bdc_qlr (bdcqzh);
            CREATE INDEX xz_1 ON bdc_xz (bdcdyh);
            CREATE VIEW v_qz AS SELECT z.bdcdyh, z.bdcqzh, d.zl, q.zjhm, q.gyfs FROM bdc_qz z
              JOIN bdc_dy d ON d.bdcdyh = z.bdcdyh JOIN bdc_qlr q ON q.bdcqzh = z.bdcqzh WHERE z.qszt = '1'",
        "housing" => "CREATE TABLE wq_ht (htbh TEXT PRIMARY KEY, bdcdyh TEXT, cmr BLOB, cmr_zjh TEXT, msr BLOB, msr_zjh TEXT,
              cjj TEXT, zt BLOB, qdrq TEXT, ydhh TEXT);
            CREATE INDEX ht_1 ON wq_ht (cmr_zjh); CREATE INDEX ht_2 ON wq_ht (msr_zjh)",
        "tax" => "CREATE TABLE tax_settlement (settle_no TEXT PRIMARY KEY, contract_no TEXT, tax_kind TEXT, taxpayer_id TEXT,
              payable_fen TEXT, paid_fen TEXT, paid TEXT, paid_on TEXT);
            CREATE INDEX t_1 ON tax_settlement (taxpayer_id)",
        "power" => "CREATE TABLE dl_yh (yhh TEXT PRIMARY KEY, yhmc TEXT, zjh TEXT, yddz TEXT, zt TEXT, lxdh TEXT);
            CREATE TABLE dl_df (yhh TEXT, ny TEXT, ysje INTEGER, ssje INTEGER);
            CREATE INDEX df_1 ON dl_df (yhh); CREATE INDEX yh_1 ON dl_yh (zjh);
            CREATE VIEW v_qf AS SELECT y.yhh, y.zjh, (SELECT COALESCE(SUM(d.ysje - d.ssje), 0) FROM dl_df d WHERE d.yhh = y.yhh) AS qf
              FROM dl_yh y WHERE y.zt = '0'",
        "water" => "CREATE TABLE water_account (account TEXT PRIMARY KEY, unit_no TEXT, holder TEXT, holder_id TEXT, address TEXT,
              state TEXT, arrears_yuan TEXT);
            CREATE INDEX w_1 ON water_account (holder_id)",
        "gas" => "CREATE TABLE gas_customer (unit TEXT, customer_name TEXT, id_card TEXT, status TEXT, owed_fen INTEGER,
              meter TEXT, signed_by TEXT, CHECK (meter <> 'LOCKED' OR id_card = signed_by));
            CREATE INDEX g_1 ON gas_customer (id_card)",
        "bureau" => "CREATE TABLE sxml (sxbm TEXT PRIMARY KEY, sxmc TEXT)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_city_is_the_same_for_a_seed_and_its_identifiers_are_valid() {
        let (a, b) = (City::new(7), City::new(7));
        assert!(a.citizens.len() >= 10_000);
        assert!(a.citizens.iter().zip(&b.citizens).all(|(x, y)| x.id == y.id && x.name == y.name));
        assert!(a.citizens.iter().all(|c| identifier::resident(&c.id).is_ok()));
        assert!(a.homes.iter().all(|h| identifier::unit(&h.unit).as_deref() == Ok(&h.unit)));
        let mut units: Vec<_> = a.homes.iter().map(|h| &h.unit).collect();
        units.sort();
        units.dedup();
        assert_eq!(units.len(), HOMES);
        let mut people = std::collections::HashSet::new();
        for i in 0..1_000 {
            let person = a.person(i).unwrap();
            assert!(people.insert(person.id.clone()));
            assert!(!a.sales.iter().any(|s| s.seller.id == person.id || s.buyer.id == person.id));
        }
        assert_eq!(identifier::credit(&credit_code(7)).as_deref(), Ok(credit_code(7).as_str()));
    }
}
