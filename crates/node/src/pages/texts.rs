//! The pages' texts, in Chinese and English.

use fluent_templates::{LanguageIdentifier, Loader as _, fluent_bundle::FluentValue, static_loader};
use model::{Language, Text};
use std::{borrow::Cow, collections::HashMap};

static_loader! {
    static LOCALES = {
        locales: "./locales",
        fallback_language: "en",
        customise: |bundle| bundle.set_use_isolating(false),
    };
}

/// The texts of one language.
pub(crate) struct Texts(pub(crate) Language);

impl Texts {
    pub(super) fn get(&self, key: &str) -> String {
        let language: LanguageIdentifier = self.0.tag().parse().expect("a language tag");
        LOCALES.lookup(&language, key)
    }

    /// A text with values put in where it names them.
    pub(crate) fn with(&self, key: &str, values: &[(&'static str, String)]) -> String {
        let language: LanguageIdentifier = self.0.tag().parse().expect("a language tag");
        let values = values.iter().map(|(name, value)| (Cow::Borrowed(*name), value.clone().into()));
        LOCALES.lookup_with_args(&language, key, &values.collect::<HashMap<_, FluentValue<'_>>>())
    }

    pub(super) fn pick<'a>(&self, text: &'a Text) -> &'a str {
        text.get(self.0)
    }

    pub(super) fn tag(&self) -> &'static str {
        self.0.tag()
    }

    pub(super) fn other(&self) -> &'static str {
        if self.0 == Language::Chinese { "en" } else { "zh-CN" }
    }

    /// Whether there is a text by this key.
    pub(super) fn knows(&self, key: &str) -> bool {
        let language: LanguageIdentifier = self.0.tag().parse().expect("a language tag");
        LOCALES.try_lookup(&language, key).is_some()
    }

    /// A text by a key that may be unknown, with a fallback.
    pub(super) fn or(&self, key: &str, fallback: &str) -> String {
        let language: LanguageIdentifier = self.0.tag().parse().expect("a language tag");
        LOCALES.try_lookup(&language, key).unwrap_or_else(|| self.get(fallback))
    }

    /// A coded value as people say it; the value itself where it is no code.
    pub(super) fn value(&self, value: &str) -> String {
        let language: LanguageIdentifier = self.0.tag().parse().expect("a language tag");
        let code = value.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let said = code.then(|| LOCALES.try_lookup(&language, &format!("value-{value}"))).flatten();
        said.unwrap_or_else(|| value.to_owned())
    }

    /// Joins the items of a list.
    pub(super) fn join(&self, items: &[String]) -> String {
        items.join(if self.0 == Language::Chinese { "、" } else { ", " })
    }
}
