//! What the portal knows: every published version that may be served, an index of its texts, counts of use.

use super::{
    plan::{Entry, THEMES},
    publish::{entry, folder, newest},
};
use crate::{config::Config, open::data::sha256_of};
use anyhow::{Context as _, Result, bail};
use arrow::array::RecordBatch;
use model::Genesis;
use proof::Verdict;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
};
use tantivy::{
    DocId, Index, IndexReader, Score, SegmentOrdinal, SegmentReader, TantivyDocument,
    collector::{Collector, SegmentCollector},
    columnar::Column,
    query::{BooleanQuery, BoostQuery, Occur, Query, TermQuery},
    schema::{FAST, Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions},
    tokenizer::{LowerCaser, TextAnalyzer},
};
use tantivy_jieba::JiebaTokenizer;
use tracing::{info, warn};

/// Bytes of rows kept in memory for previews and questions, at most for one publication.
const ROWS_BYTES_MAX: u64 = 64 << 20;
/// Publications whose rows are kept in memory.
const ROWS_KEPT: usize = 16;

/// Facets entries are found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Facet {
    /// The theme.
    Theme,
    /// The department.
    Department,
    /// A file format.
    Format,
    /// The licence.
    Licence,
    /// Whether everybody may download.
    Access,
}

/// All facets with their names in addresses.
pub const FACETS: [(Facet, &str); 5] = [
    (Facet::Theme, "theme"),
    (Facet::Department, "department"),
    (Facet::Format, "format"),
    (Facet::Licence, "licence"),
    (Facet::Access, "access"),
];

/// The values an entry has for a facet.
pub fn values(entry: &Entry, facet: Facet) -> Vec<&str> {
    match facet {
        Facet::Theme => vec![&entry.plan.theme],
        Facet::Department => vec![entry.plan.department.as_str()],
        Facet::Format => entry.files.iter().map(|f| f.format.as_str()).collect(),
        Facet::Licence => vec![&entry.plan.licence.id],
        Facet::Access => match entry.plan.access {
            super::plan::Access::Open => vec!["open"],
            super::plan::Access::Conditional => vec!["conditional"],
        },
    }
}

/// Everything published, newest first, with its index.
pub struct Catalogue {
    /// The newest version of each publication.
    pub entries: Vec<Entry>,
    by_id: HashMap<String, usize>,
    /// For each facet, the values entries have.
    coded: BTreeMap<Facet, Coded>,
    reader: Option<IndexReader>,
    fields: Fields,
    analyser: TextAnalyzer,
}

#[derive(Clone, Copy)]
struct Fields {
    title: Field,
    text: Field,
    place: Field,
}

/// The values entries have for a facet, as numbers.
#[derive(Default)]
struct Coded {
    values: Vec<String>,
    /// The numbers of all entries one after the other, and where each entry's end.
    codes: Vec<u32>,
    ends: Vec<usize>,
}

impl Coded {
    fn of(entries: &[Entry], facet: Facet) -> Self {
        let mut coded = Self::default();
        let mut known: HashMap<String, u32> = HashMap::new();
        for entry in entries {
            for value in values(entry, facet) {
                let next = known.len() as u32;
                let code = *known.entry(value.to_owned()).or_insert(next);
                if code == next {
                    coded.values.push(value.to_owned());
                }
                coded.codes.push(code);
            }
            coded.ends.push(coded.codes.len());
        }
        coded
    }

    fn codes(&self, place: usize) -> &[u32] {
        let begin = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.codes[begin..self.ends[place]]
    }

    fn code(&self, value: &str) -> Option<u32> {
        self.values.iter().position(|v| v == value).map(|at| at as u32)
    }
}

/// What is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Words, in Chinese or English.
    pub words: String,
    /// Facets and the values entries must have.
    pub facets: Vec<(Facet, String)>,
    /// Entries to pass over.
    pub offset: usize,
    /// Entries to give.
    pub limit: usize,
}

/// What was found.
pub struct Found {
    /// How many there are.
    pub total: usize,
    /// Their places in [`Catalogue::entries`], best first.
    pub places: Vec<usize>,
    /// How many of all found have each value of each facet, most first.
    pub facets: BTreeMap<Facet, Vec<(String, usize)>>,
}

fn analyser() -> TextAnalyzer {
    TextAnalyzer::builder(JiebaTokenizer::new()).filter(LowerCaser).build()
}

impl Catalogue {
    /// Indexes entries.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self> {
        entries.sort_by(|a, b| (b.modified_ms, a.id()).cmp(&(a.modified_ms, b.id())));
        let coded = FACETS.map(|(facet, _)| (facet, Coded::of(&entries, facet))).into();
        let by_id = entries.iter().enumerate().map(|(at, e)| (e.id().to_owned(), at)).collect();
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer("jieba")
            .set_index_option(IndexRecordOption::WithFreqs);
        let text = TextOptions::default().set_indexing_options(indexing);
        let fields = Fields {
            title: schema.add_text_field("title", text.clone()),
            text: schema.add_text_field("text", text),
            place: schema.add_u64_field("place", FAST),
        };
        let index = Index::create_in_ram(schema.build());
        index.tokenizers().register("jieba", analyser());
        let mut writer = index.writer_with_num_threads::<TantivyDocument>(1, 64 << 20)?;
        for (at, entry) in entries.iter().enumerate().filter(|(_, e)| e.withdrawn.is_none()) {
            let plan = &entry.plan;
            let mut document = TantivyDocument::default();
            document.add_text(fields.title, format!("{} {} {}", plan.title.zh, plan.title.en, entry.id()));
            let mut words = vec![
                plan.about.zh.as_str(),
                &plan.about.en,
                &plan.department_title.zh,
                &plan.department_title.en,
                plan.department.as_str(),
            ];
            let titles = plan.keywords.iter().chain(plan.columns.iter().map(|c| &c.title));
            words.extend(titles.flat_map(|t| [t.zh.as_str(), t.en.as_str()]));
            words.extend(THEMES.iter().filter(|t| t.0 == plan.theme).flat_map(|t| [t.1, t.2]));
            document.add_text(fields.text, words.join(" \u{3002} "));
            document.add_u64(fields.place, at as u64);
            writer.add_document(document)?;
        }
        writer.commit()?;
        writer.wait_merging_threads()?;
        let reader = (!entries.is_empty()).then(|| index.reader()).transpose()?;
        Ok(Self { entries, by_id, coded, reader, fields, analyser: analyser() })
    }

    /// The newest version of a publication.
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.by_id.get(id).map(|at| &self.entries[*at])
    }

    fn tokens(&self, words: &str) -> Vec<String> {
        let mut analyser = self.analyser.clone();
        let mut stream = analyser.token_stream(words);
        let mut tokens = Vec::new();
        while let Some(token) = stream.next() {
            if token.text.chars().any(char::is_alphanumeric) && tokens.len() < 24 {
                tokens.push(token.text.clone());
            }
        }
        tokens
    }

    /// Places with their scores.
    fn matching(&self, words: &str) -> Result<Vec<(f32, usize)>> {
        let tokens = self.tokens(words);
        let Some(reader) = &self.reader else { return Ok(vec![]) };
        if tokens.is_empty() {
            return Ok(vec![]);
        }
        let clauses = tokens.iter().map(|token| -> (Occur, Box<dyn Query>) {
            let term = |field| {
                let term = tantivy::Term::from_field_text(field, token);
                Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))
            };
            let title: Box<dyn Query> = Box::new(BoostQuery::new(term(self.fields.title), 4.0));
            let either =
                BooleanQuery::new(vec![(Occur::Should, title), (Occur::Should, term(self.fields.text))]);
            (Occur::Must, Box::new(either))
        });
        let query = BooleanQuery::new(clauses.collect());
        Ok(reader.searcher().search(&query, &Places)?)
    }

    /// The places of what was not taken back.
    fn shown(&self) -> impl Iterator<Item = usize> {
        (0..self.entries.len()).filter(|at| self.entries[*at].withdrawn.is_none())
    }

    /// Looks for entries among those that were not taken back.
    pub fn search(&self, search: &Search) -> Result<Found> {
        let mut found: Vec<(f32, usize)> = match search.words.trim() {
            "" => self.shown().map(|at| (0.0, at)).collect(),
            words => self.matching(words)?,
        };
        for (facet, value) in &search.facets {
            let coded = &self.coded[facet];
            let code = coded.code(value);
            found.retain(|(_, at)| code.is_some_and(|code| coded.codes(*at).contains(&code)));
        }
        let mut facets = BTreeMap::new();
        for (facet, coded) in &self.coded {
            let mut counts = vec![0; coded.values.len()];
            for (_, at) in &found {
                coded.codes(*at).iter().for_each(|code| counts[*code as usize] += 1);
            }
            let counts = coded.values.iter().cloned().zip(counts);
            let mut counts: Vec<(String, usize)> = counts.filter(|(_, n)| *n > 0).collect();
            counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
            facets.insert(*facet, counts);
        }
        let total = found.len();
        let order = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        let upto = (search.offset + search.limit).min(total);
        if upto > 0 && upto < total && !search.words.trim().is_empty() {
            found.select_nth_unstable_by(upto - 1, order);
            found.truncate(upto);
        }
        if !search.words.trim().is_empty() {
            found.sort_unstable_by(order);
        }
        Ok(Found {
            total,
            places: found.into_iter().skip(search.offset).take(search.limit).map(|(_, at)| at).collect(),
            facets,
        })
    }
}

/// Collects places and scores of all matches.
struct Places;

struct PlacesOf {
    places: Column<u64>,
    found: Vec<(f32, usize)>,
}

impl Collector for Places {
    type Fruit = Vec<(f32, usize)>;
    type Child = PlacesOf;

    fn for_segment(&self, _: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<PlacesOf> {
        Ok(PlacesOf { places: segment.fast_fields().u64("place")?, found: vec![] })
    }
    fn requires_scoring(&self) -> bool {
        true
    }
    fn merge_fruits(&self, fruits: Vec<Vec<(f32, usize)>>) -> tantivy::Result<Vec<(f32, usize)>> {
        Ok(fruits.into_iter().flatten().collect())
    }
}

impl SegmentCollector for PlacesOf {
    type Fruit = Vec<(f32, usize)>;

    fn collect(&mut self, doc: DocId, score: Score) {
        if let Some(place) = self.places.first(doc) {
            self.found.push((score, place as usize));
        }
    }
    fn harvest(self) -> Vec<(f32, usize)> {
        self.found
    }
}

/// How often something was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Its page was seen.
    pub views: u64,
    /// A file was fetched.
    pub downloads: u64,
    /// Its rows were asked for by programs.
    pub questions: u64,
}

/// Rows held in memory: of which publication and version.
type Held = (String, u32, Arc<Vec<RecordBatch>>);

/// The portal.
pub struct Portal {
    folder: PathBuf,
    genesis: Option<Genesis>,
    catalogue: RwLock<Arc<Catalogue>>,
    usage: Mutex<BTreeMap<String, Usage>>,
    rows: Mutex<Vec<Held>>,
}

impl Portal {
    /// Reads everything published.
    pub fn open(config: &Config) -> Result<Self> {
        let genesis = match &config.genesis {
            Some(path) => {
                let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
                Some(serde_json::from_slice(&bytes).context("the genesis file")?)
            }
            None => None,
        };
        let folder = folder(config);
        std::fs::create_dir_all(&folder)?;
        let usage = std::fs::read(folder.join("usage.json")).ok();
        let usage = usage.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let portal = Self {
            folder,
            genesis,
            catalogue: RwLock::new(Arc::new(Catalogue::new(vec![])?)),
            usage: Mutex::new(usage),
            rows: Mutex::default(),
        };
        portal.reload(config)?;
        Ok(portal)
    }

    /// Reads what was published or taken back since; says how many there are.
    pub fn reload(&self, config: &Config) -> Result<usize> {
        let known = self.catalogue();
        let mut entries = Vec::new();
        for home in std::fs::read_dir(&self.folder)?.flatten().filter(|e| e.path().is_dir()) {
            let id = home.file_name().to_string_lossy().into_owned();
            let version = newest(config, &id);
            if version == 0 {
                continue;
            }
            let withdrawn = withdrawn(&home.path());
            if let Some(known) = known.get(&id).filter(|e| e.version == version) {
                entries.push(Entry { withdrawn, ..known.clone() });
                continue;
            }
            match self.admit(&home.path().join(format!("v{version}")), &id, version) {
                Ok(entry) => entries.push(Entry { withdrawn, ..entry }),
                Err(e) => warn!(%id, version, "not served: {e:#}"),
            }
        }
        let count = entries.len();
        let same = count == known.entries.len()
            && entries.iter().all(|e| {
                known.get(e.id()).is_some_and(|k| (k.version, &k.withdrawn) == (e.version, &e.withdrawn))
            });
        if !same {
            *self.catalogue.write().expect("never poisoned") = Arc::new(Catalogue::new(entries)?);
            info!(count, "the portal serves what is published");
        }
        Ok(count)
    }

    /// Reads a version, if everything in it is as the department decided on the ledger.
    fn admit(&self, version_folder: &Path, id: &str, version: u32) -> Result<Entry> {
        let entry = entry(version_folder)?;
        if entry.id() != id || entry.version != version {
            bail!("its entry is of another publication");
        }
        for file in &entry.files {
            if file.name.contains(['/', '\\']) || sha256_of(&version_folder.join(&file.name))? != file.sha256
            {
                bail!("{} is not the file that was published", file.name);
            }
        }
        let Some(genesis) = &self.genesis else { return Ok(entry) };
        let decision =
            std::fs::read(version_folder.join("publication.json")).context("no decision is kept with it")?;
        let (publication, _) =
            proof::verify_publication(&decision, genesis).map_err(|e| anyhow::anyhow!(e.0))?;
        let decided = &publication.decided;
        let same = decided.verdict == Verdict::Publish
            && decided.dataset.as_str() == id
            && decided.version == version
            && decided.department == entry.plan.department;
        if !same {
            bail!("the decision on the ledger is about something else");
        }
        let names = entry.files.iter().map(|f| f.name.as_str()).chain(["entry.json", "gate.json"]);
        for name in names {
            let hash = sha256_of(&version_folder.join(name))?;
            if !decided.files.iter().any(|f| f.name == name && hex::encode(f.sha256.0) == hash) {
                bail!("{name} is not the file that was decided on");
            }
        }
        Ok(entry)
    }

    /// What is published now.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().expect("never poisoned").clone()
    }

    /// The folder of a version.
    pub fn version_folder(&self, id: &str, version: u32) -> PathBuf {
        self.folder.join(id).join(format!("v{version}"))
    }

    /// The rows of a publication, from memory where they were asked for lately. Fails where they are too many to be held.
    pub fn rows(&self, entry: &Entry) -> Result<Arc<Vec<RecordBatch>>> {
        if let Some(kept) = self.kept(entry) {
            return Ok(kept);
        }
        let bytes = entry.files.iter().find(|f| f.format == "Parquet").map_or(0, |f| f.bytes);
        if bytes > ROWS_BYTES_MAX {
            bail!("it has too many rows to be asked for one by one: download a file");
        }
        let rows = super::data::read(&self.version_folder(entry.id(), entry.version), usize::MAX)?;
        let rows = Arc::new(rows);
        let mut kept = self.rows.lock().expect("never poisoned");
        kept.retain(|(id, ..)| id != entry.id());
        if kept.len() >= ROWS_KEPT {
            kept.remove(0);
        }
        kept.push((entry.id().to_owned(), entry.version, rows.clone()));
        Ok(rows)
    }

    fn kept(&self, entry: &Entry) -> Option<Arc<Vec<RecordBatch>>> {
        let kept = self.rows.lock().expect("never poisoned");
        kept.iter()
            .find(|(id, version, _)| id == entry.id() && *version == entry.version)
            .map(|(.., rows)| rows.clone())
    }

    /// Counts a use.
    pub fn count(&self, id: &str, what: fn(&mut Usage) -> &mut u64) {
        let mut usage = self.usage.lock().expect("never poisoned");
        *what(usage.entry(id.to_owned()).or_default()) += 1;
    }

    /// How often a publication was used.
    pub fn usage(&self, id: &str) -> Usage {
        self.usage.lock().expect("never poisoned").get(id).copied().unwrap_or_default()
    }

    /// Writes the counts down.
    pub fn keep_usage(&self) -> Result<()> {
        let bytes = serde_json::to_vec(&*self.usage.lock().expect("never poisoned"))?;
        let next = self.folder.join("usage.next");
        std::fs::write(&next, bytes)?;
        Ok(std::fs::rename(next, self.folder.join("usage.json"))?)
    }

    /// Keeps what somebody wrote about a publication, or asks for, for the responsible department.
    pub fn keep_word(&self, id: &str, word: &Word) -> Result<()> {
        use std::io::Write as _;
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(self.folder.join(id).join("words.jsonl"))?;
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        Ok(file.write_all(&line)?)
    }
}

/// What somebody wrote about a publication.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Word {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// `feedback` or `request`.
    pub kind: String,
    /// The text.
    pub text: String,
    /// How to answer, if they said.
    pub contact: Option<String>,
}

fn withdrawn(home: &Path) -> Option<String> {
    let bytes = std::fs::read(home.join("withdrawn.json")).ok()?;
    let note: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    Some(note["note"].as_str().unwrap_or_default().to_owned())
}
