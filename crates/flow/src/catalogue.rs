//! The catalogue as this node knows it: entries by name, and found by words.

use model::{CommandId, DescribeResource, Resource, ResourceId};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

/// A published entry with all that is known of it.
#[derive(Clone)]
pub struct Listed {
    /// What was published.
    pub resource: Arc<Resource>,
    /// What it was described as last.
    pub description: Option<Arc<DescribeResource>>,
    /// When it was published first, in milliseconds since 1970.
    pub published_ms: u64,
    /// When it, or its description, changed last.
    pub changed_ms: u64,
}

struct Entry {
    /// The command that published it last.
    command: CommandId,
    listed: Listed,
    /// All that is searched, in lower case: name, holder, titles and keywords in both languages.
    text: String,
}

fn text(listed: &Listed) -> String {
    let resource = &listed.resource;
    let titles = resource.fields.iter().map(|f| &f.title);
    let titles = titles.chain(resource.predicates.iter().map(|p| &p.title)).chain([&resource.title]);
    let described = listed.description.iter().map(|d| &d.description);
    let described = described.flat_map(|d| d.keywords.iter().chain([&d.about, &d.category.name]));
    let mut text = format!("{} {}", resource.id, resource.holder);
    titles.chain(described).for_each(|title| text += &format!(" {} {}", title.zh, title.en));
    text.to_lowercase()
}

/// The published entries. Searching reads them while others do; only publishing waits. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Catalogue(Arc<RwLock<BTreeMap<ResourceId, Entry>>>);

impl Catalogue {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<ResourceId, Entry>> {
        // an entry is put in whole or not at all
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in an entry, in place of its earlier version.
    pub fn put(&self, command: CommandId, at_ms: u64, resource: &Resource) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = entries.get(&resource.id).map(|e| e.listed.clone());
        let listed = Listed {
            resource: Arc::new(resource.clone()),
            published_ms: before.as_ref().map_or(at_ms, |b| b.published_ms),
            description: before.and_then(|b| b.description),
            changed_ms: at_ms,
        };
        let text = text(&listed);
        entries.insert(resource.id.clone(), Entry { command, listed, text });
    }

    /// Takes in what an entry is described as.
    pub fn describe(&self, at_ms: u64, described: &DescribeResource) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // the ledger takes no description of what was not published
        let Some(entry) = entries.get_mut(&described.resource) else { return };
        entry.listed.description = Some(Arc::new(described.clone()));
        entry.listed.changed_ms = at_ms;
        entry.text = text(&entry.listed);
    }

    /// An entry.
    pub fn get(&self, id: &ResourceId) -> Option<Arc<Resource>> {
        self.read().get(id).map(|e| e.listed.resource.clone())
    }

    /// An entry with all that is known of it.
    pub fn listed(&self, id: &ResourceId) -> Option<Listed> {
        self.read().get(id).map(|e| e.listed.clone())
    }

    /// All entries, by name.
    pub fn all(&self) -> Vec<Listed> {
        self.read().values().map(|e| e.listed.clone()).collect()
    }

    /// The command that published an entry last.
    pub(crate) fn published_by(&self, id: &ResourceId) -> Option<CommandId> {
        self.read().get(id).map(|e| e.command)
    }

    /// Entries whose name, holder or titles have all these words, in either language, by name: how many there are, and as many of
    /// them as asked for, leaving out the first ones.
    pub fn search(&self, words: &str, leave_out: usize, most: usize) -> (usize, Vec<Arc<Resource>>) {
        let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        let words: Vec<_> = words.iter().map(memchr::memmem::Finder::new).collect();
        let entries = self.read();
        let fits = |entry: &&Entry| words.iter().all(|word| word.find(entry.text.as_bytes()).is_some());
        let (mut total, mut found) = (0, Vec::new());
        for entry in entries.values().filter(fits) {
            if total >= leave_out && found.len() < most {
                found.push(entry.listed.resource.clone());
            }
            total += 1;
        }
        (total, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::*;

    fn resource(id: &str, version: u32, zh: &str, en: &str) -> Resource {
        let title = Text { zh: zh.into(), en: en.into() };
        Resource {
            id: id.parse().unwrap(),
            version,
            title: title.clone(),
            holder: "registry".parse().unwrap(),
            officer: "office".into(),
            subject: SubjectKind::Person,
            share: ShareClass::Conditional,
            basis: "law".into(),
            standard: "standard".into(),
            update: "daily".into(),
            fields: vec![],
            predicates: vec![Predicate { id: "known".parse().unwrap(), title }],
        }
    }

    #[test]
    fn entries_are_found_by_words_in_either_language_and_page_by_page() {
        let catalogue = Catalogue::default();
        for (i, (zh, en)) in
            [("不动产权属", "Title to real estate"), ("不动产限制", "Restrictions"), ("婚姻登记", "Marriage")]
                .iter()
                .enumerate()
        {
            catalogue.put(CommandId([i as u8; 32]), i as u64, &resource(&format!("r{i}"), 1, zh, en));
        }
        let ids = |found: (usize, Vec<Arc<Resource>>)| {
            (found.0, found.1.iter().map(|r| r.id.to_string()).collect::<Vec<_>>())
        };
        let search = |words: &str| ids(catalogue.search(words, 0, 10));
        assert_eq!(search("不动产"), (2, vec!["r0".into(), "r1".into()]));
        assert_eq!(search(" 不动产   TITLE "), (1, vec!["r0".into()]));
        assert_eq!(search("Registry marriage"), (1, vec!["r2".into()]), "the holder's name counts");
        assert_eq!(search("nothing"), (0, vec![]));
        assert_eq!(ids(catalogue.search("", 1, 1)), (3, vec!["r1".into()]));
        assert_eq!(ids(catalogue.search("", 9, 1)), (3, vec![]));
        // a new version takes the place of the one before
        catalogue.put(CommandId([9; 32]), 9, &resource("r2", 2, "婚姻状况", "Marital status"));
        assert_eq!((search("登记").0, search("状况").0), (0, 1));
        let id = "r2".parse().unwrap();
        assert_eq!(catalogue.published_by(&id), Some(CommandId([9; 32])));
        assert_eq!(catalogue.get(&id).unwrap().version, 2);
        // what it is described as is found too, and outlasts its versions
        let text = |zh: &str, en: &str| Text { zh: zh.into(), en: en.into() };
        let description = Description {
            about: text("夫妻关系", "Spouses"),
            keywords: vec![text("结婚", "wedding")],
            category: Category {
                scheme: "主题分类".into(),
                name: text("民政", "Civil affairs"),
                code: "Z".into(),
            },
            code: "307021022100/000009".into(),
            process: text("婚姻登记", "Registration"),
            scope: text("全市", "The city"),
            format: "数据库".into(),
            open: None,
            related: vec![],
        };
        catalogue.describe(10, &DescribeResource { resource: id.clone(), version: 1, description });
        assert_eq!((search("结婚").0, search("WEDDING spouses").0, search("民政").0), (1, 1, 1));
        catalogue.put(CommandId([11; 32]), 11, &resource("r2", 3, "婚姻", "Marriage"));
        let listed = catalogue.listed(&id).unwrap();
        assert_eq!((listed.published_ms, listed.changed_ms, search("结婚").0), (2, 11, 1));
        assert_eq!(catalogue.all().len(), 3);
    }
}
