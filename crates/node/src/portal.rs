//! The citizens' door outside the demo: they authenticate before an identity provider of the city's, and this node's portal is the
//! terminal that vouches for them and signs for them, each time on the provider's word about exactly that.

use crate::api::{Problem, Served, Shared, parse};
use axum::{Json, extract::Path, extract::State};
use flow::Person;
use identity::{
    Identified, Terminal,
    oidc::{Away, OidcError, Provider, Settings, consent_binding, evidence_nonce, identify_binding},
};
use model::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path as FilePath, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};
use utoipa::ToSchema;

/// How long somebody may stay away at the provider.
const AWAY_MAX: Duration = Duration::from_secs(600);
/// How many may be away at once; whoever has been for the longest makes room.
const PEOPLE_MAX: usize = 10_000;

/// `[portal]` of `node.toml`: the identity provider citizens sign in with (docs/operations.md, *Citizens*).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortalSettings {
    /// The provider's address, exactly as it names itself.
    pub issuer: String,
    /// The name this portal is registered under there.
    pub client: String,
    /// The secret that goes with it (`TONGBAN_PORTAL_SECRET`).
    #[serde(default)]
    pub secret: Option<String>,
    /// Where people come back to: this portal's address, ending in `/signin/back`.
    pub back: String,
    /// How people call the provider.
    pub title: Text,
    /// The portal's key, as `tongban terminal key` makes it; enrolled like any terminal.
    pub key: PathBuf,
    /// The claim that holds the resident identity number.
    pub number: String,
    /// The claim that holds the name.
    #[serde(default = "default_name")]
    pub name: String,
    /// What is asked for beside `openid`.
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// How sure the consortium is of what the provider calls these (`acr`): `low`, `substantial` or `high`. Of all else: substantial.
    #[serde(default)]
    pub levels: BTreeMap<String, AssuranceLevel>,
}

fn default_name() -> String {
    "name".into()
}

fn default_scopes() -> Vec<String> {
    vec!["profile".into()]
}

/// What somebody is away at the provider for.
pub(crate) enum Errand {
    /// To sign in, and go on to this page.
    SignIn(String),
    /// To be identified in a case.
    Identify(CaseId, RoleId, Commitment),
    /// To agree to these terms.
    Consent(Box<ConsentTerms>),
}

/// Somebody who is away.
pub(crate) struct Waiting {
    /// What is remembered of the request.
    pub(crate) away: Away,
    /// What for.
    pub(crate) errand: Errand,
    /// The number of whoever was signed in when they went.
    pub(crate) number: Option<String>,
    /// In which language the pages were.
    pub(crate) language: Language,
    /// What the cookie of their browser holds.
    browser: String,
    since: Instant,
}

/// The door.
pub struct Portal {
    pub(crate) provider: Provider,
    pub(crate) terminal: Terminal,
    pub(crate) title: Text,
    /// The portal's own first page.
    pub(crate) home: String,
    away: Mutex<HashMap<String, Waiting>>,
}

impl Portal {
    /// Opens the door; the provider is asked nothing yet.
    ///
    /// # Errors
    /// Where a setting cannot be used, or the key does not open with the node's passphrase.
    pub fn open(
        settings: &PortalSettings,
        dir: &FilePath,
        passphrase: &str,
        suite: Suite,
    ) -> Result<Self, String> {
        gateway::use_tls();
        let wrong = |e: &dyn std::fmt::Display| format!("[portal]: {e}");
        let seed = crypto::load_secret(&dir.join(&settings.key), passphrase).map_err(|e| wrong(&e))?;
        let key = crypto::SigningKey::from_seed(suite, seed)
            .ok_or_else(|| wrong(&"`key` holds no key of this suite"))?;
        let home = settings.back.strip_suffix("signin/back").unwrap_or_default().to_owned();
        let provider = Provider::new(Settings {
            issuer: settings.issuer.clone(),
            client: settings.client.clone(),
            secret: settings.secret.clone(),
            back: settings.back.clone(),
            scopes: settings.scopes.clone(),
            number: settings.number.clone(),
            name: settings.name.clone(),
            levels: settings.levels.clone(),
        });
        Ok(Self {
            provider: provider.map_err(|e| wrong(&e))?,
            terminal: Terminal::new(key),
            title: settings.title.clone(),
            home,
            away: Mutex::default(),
        })
    }

    /// Where somebody goes, and what their browser is to keep until they come back.
    pub(crate) async fn send(
        &self,
        chain: ChainId,
        errand: Errand,
        number: Option<String>,
        language: Language,
    ) -> Result<(String, String), OidcError> {
        let (bound, anew) = match &errand {
            Errand::SignIn(_) => (None, false),
            Errand::Identify(case, role, subject) => {
                let who = Identified { chain, case: *case, role, subject: *subject, at_ms: 0 };
                (Some(identify_binding(&who)), false)
            }
            Errand::Consent(terms) => (Some(consent_binding(terms)), true),
        };
        let (url, away) = self.provider.begin(bound.as_ref(), anew, language).await?;
        let browser = hex::encode(crypto::random::<16>());
        let since = Instant::now();
        let state = away.state.clone();
        let waiting = Waiting { away, errand, number, language, browser: browser.clone(), since };
        let mut all = self.away.lock().expect("no holder panics");
        all.retain(|_, w| w.since.elapsed() < AWAY_MAX);
        if all.len() >= PEOPLE_MAX
            && let Some(longest) = all.iter().min_by_key(|(_, w)| w.since).map(|(state, _)| state.clone())
        {
            all.remove(&longest);
        }
        all.insert(state, waiting);
        Ok((url, browser))
    }

    /// Who comes back, once: with the state they went with, in the browser they went with.
    pub(crate) fn back(&self, state: &str, browser: Option<&str>) -> Option<Waiting> {
        let waiting = self.away.lock().expect("no holder panics").remove(state)?;
        (waiting.since.elapsed() < AWAY_MAX && browser == Some(&waiting.browser)).then_some(waiting)
    }
}

impl Served {
    /// The citizens' door, where there is one and the ledger's rules know of providers.
    pub(crate) fn portal(&self) -> Option<&Portal> {
        let known = self.flow.chain().roster().1.protocol >= OIDC_PROTOCOL;
        self.portal.as_ref().filter(|_| known)
    }
}

/// Who came back, where the provider says a person whom the ledger can know: one with a resident identity number.
pub(crate) fn person(proven: &identity::oidc::Proven) -> Option<Person> {
    let number = proven.number.to_ascii_uppercase();
    let number = identifier::renewed(&number).unwrap_or(number);
    Some(Person { id: identifier::resident(&number).ok()?, name: proven.name.clone() })
}

/// What an identity provider said about a party, as it signed it. It names the party.
#[derive(Serialize, ToSchema)]
pub(crate) struct EvidenceBody {
    /// The party's role.
    role: String,
    /// `identify` or `consent`: what it is bound to; `unused` where that did not come about.
    of: &'static str,
    /// What the word's `nonce` must be, computed from the ledger's record of it.
    bound: String,
    /// Of `identify`: what the assertion on the ledger must have as its `nonce`, in decimal.
    commits: String,
    /// The word: a JWT of the provider's, to be verified with its keys (RFC 7515).
    word: String,
}

#[utoipa::path(get, path = "/api/v1/cases/{id}/evidence", params(("id" = String, Path)),
    responses((status = 200, body = Vec<EvidenceBody>), (status = 404, body = Problem)))]
pub(crate) async fn evidence(
    State(served): Shared,
    Path(id): Path<String>,
) -> Result<Json<Vec<EvidenceBody>>, Problem> {
    let id: CaseId = parse(&id)?;
    let view = served.flow.case(id).ok_or(flow::CaseError::Unknown("case"))?;
    let chain = served.flow.chain().rules().chain;
    let found = served.flow.evidence(id).await?.into_iter().map(|e| {
        let party = view.case.parties.iter().find(|p| p.role == e.role);
        let who = party.map(|p| Identified { chain, case: id, role: &e.role, subject: p.subject, at_ms: 0 });
        let identifies = who.is_some_and(|who| identify_binding(&who) == e.bound);
        let given =
            view.case.consents.get(&e.role).is_some_and(|(_, terms, _)| consent_binding(terms) == e.bound);
        EvidenceBody {
            role: e.role.to_string(),
            of: match (identifies, given) {
                (true, _) => "identify",
                (false, true) => "consent",
                (false, false) => "unused",
            },
            bound: e.bound.to_string(),
            commits: if identifies { evidence_nonce(&e.word).to_string() } else { String::new() },
            word: e.word,
        }
    });
    Ok(Json(found.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::oidc::Proven;

    fn proven(number: &str) -> Proven {
        let (number, name, token) = (number.to_owned(), "甲".to_owned(), String::new());
        Proven { number, name, level: AssuranceLevel::Substantial, token }
    }

    #[test]
    fn who_comes_back_has_a_number_that_is_one() {
        let known = person(&proven("11010519491231002x")).unwrap();
        assert_eq!((known.id.as_str(), known.name.as_str()), ("11010519491231002X", "甲"));
        // an old one of 15 digits is renewed
        assert_eq!(person(&proven("110105491231002")).unwrap().id, "11010519491231002X");
        for wrong in ["110105194912310021", "wang", "", "91110108MA00000000"] {
            assert!(person(&proven(wrong)).is_none(), "{wrong}");
        }
    }
}
