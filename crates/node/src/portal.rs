//! The citizens' door outside the demo: they authenticate before an identity provider of the city's, and this node's portal is the
//! terminal that vouches for them and signs their consents, each time on the provider's word about exactly that.

use crate::api::{Problem, Served, Shared, parse};
use axum::{Json, extract::Path, extract::State};
use flow::Person;
use identity::{
    Identified, Terminal,
    oidc::{
        Authenticated, Away, OidcError, Proven, Provider, Settings, consent_binding, evidence_nonce,
        identify_binding,
    },
};
use model::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

/// How long somebody may stay away at the provider.
const AWAY_MAX: Duration = Duration::from_secs(600);
/// How many who are not signed in may be away at once.
const PEOPLE_MAX: usize = 10_000;
/// How many codes are taken to the provider at once, and as many again of people who are signed in.
const TURNS: usize = 16;
/// How long somebody waits for their turn.
const TURN_MAX: Duration = Duration::from_secs(20);

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

impl Errand {
    /// The case it is about.
    pub(crate) fn case(&self) -> Option<CaseId> {
        match self {
            Self::SignIn(_) => None,
            Self::Identify(case, ..) => Some(*case),
            Self::Consent(terms) => Some(terms.case),
        }
    }
}

/// Somebody who is away.
pub(crate) struct Waiting {
    /// What is remembered of the request.
    pub(crate) away: Away,
    /// What for.
    pub(crate) errand: Errand,
    /// The number of whoever was signed in when they went.
    pub(crate) number: Option<String>,
    /// The session they had in that browser, which ends where another begins.
    pub(crate) before: Option<String>,
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
    turns: [Semaphore; 2],
}

impl Portal {
    /// Opens the door; the provider is asked nothing yet.
    ///
    /// # Errors
    /// Where a setting cannot be used, or the key does not open with the node's passphrase.
    pub fn open(settings: &PortalSettings, passphrase: &str, suite: Suite) -> Result<Self, String> {
        gateway::use_tls();
        let wrong = |e: &dyn std::fmt::Display| format!("[portal]: {e}");
        let seed = crypto::load_secret(&settings.key, passphrase).map_err(|e| wrong(&e))?;
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
            turns: [Semaphore::new(TURNS), Semaphore::new(TURNS)],
        })
    }

    /// Where somebody goes, and what their browser is to keep until they come back.
    pub(crate) async fn send(
        &self,
        chain: ChainId,
        errand: Errand,
        number: Option<String>,
        before: Option<String>,
        language: Language,
    ) -> Result<(String, String), OidcError> {
        let (bound, authenticated) = match &errand {
            // whoever left without signing out is not signed in again by the next in line
            Errand::SignIn(_) => (None, Authenticated::Within(crate::session::IDLE)),
            Errand::Identify(case, role, subject) => {
                let who = Identified { chain, case: *case, role, subject: *subject, at_ms: 0 };
                (Some(identify_binding(&who)), Authenticated::Ever)
            }
            Errand::Consent(terms) => (Some(consent_binding(terms)), Authenticated::Anew),
        };
        let (url, away) = self.provider.begin(bound.as_ref(), authenticated, language).await?;
        let browser = hex::encode(crypto::random::<16>());
        let since = Instant::now();
        let state = away.state.clone();
        let waiting = Waiting { away, errand, number, language, before, browser: browser.clone(), since };
        let mut all = self.away.lock().expect("no holder panics");
        // of one person only the newest; and of those nobody knows yet, whoever has been away for the longest makes room
        let number = &waiting.number;
        all.retain(|_, w| w.since.elapsed() < AWAY_MAX && (number.is_none() || w.number != *number));
        let unknown = all.iter().filter(|(_, w)| w.number.is_none());
        if unknown.clone().count() >= PEOPLE_MAX
            && let Some(longest) = unknown.min_by_key(|(_, w)| w.since).map(|(state, _)| state.clone())
        {
            all.remove(&longest);
        }
        all.insert(state, waiting);
        Ok((url, browser))
    }

    /// Who came back with a code. Anybody can send made-up ones: they are taken to the provider a few at a time, and those of people who
    /// are signed in do not wait for the others.
    pub(crate) async fn finish(&self, away: Away, code: String, known: bool) -> Result<Proven, OidcError> {
        let busy = || OidcError::Provider("too many come back at once".into());
        let turn = self.turns[usize::from(known)].acquire();
        let _turn = tokio::time::timeout(TURN_MAX, turn).await.ok().and_then(Result::ok).ok_or_else(busy)?;
        self.provider.finish(away, code).await
    }

    /// Who comes back, once: with the state they went with, in the browser they went with.
    pub(crate) fn back(&self, state: &str, browser: Option<&str>) -> Option<Waiting> {
        let waiting = self.away.lock().expect("no holder panics").remove(state)?;
        (waiting.since.elapsed() < AWAY_MAX && browser == Some(&waiting.browser)).then_some(waiting)
    }
}

impl Served {
    /// The citizens' door, where there is one whose word the ledger takes: its rules know of providers, and its key is enrolled.
    pub(crate) fn portal(&self) -> Option<&Portal> {
        let known = |_: &&Portal| self.flow.chain().roster().1.protocol >= OIDC_PROTOCOL;
        self.portal.as_ref().filter(known).filter(|portal| self.flow.is_terminal(&portal.terminal.public()))
    }
}

/// Who came back, where the provider says a person whom the ledger can know: one with a resident identity number.
pub(crate) fn person(proven: &Proven) -> Option<Person> {
    let number = proven.number.to_ascii_uppercase();
    let number = identifier::renewed(&number).unwrap_or(number);
    Some(Person { id: identifier::resident(&number).ok()?, name: proven.name.clone() })
}

/// What an identity provider said about a party, as it signed it. It names the party. Whether what it was said for came about, the
/// ledger says.
#[derive(Serialize, ToSchema)]
pub(crate) struct EvidenceBody {
    /// The party's role.
    role: String,
    /// What it was said for: `identify` or `consent`.
    of: String,
    /// What the word's `nonce` must be: the hash of the case and the party, or of the terms, as they are on the ledger.
    bound: String,
    /// Of `identify`: what the assertion on the ledger that rests on it has as its `nonce`, in decimal.
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
    served.flow.case(id).ok_or(flow::CaseError::Unknown("case"))?;
    let found = served.flow.evidence(id).await?.into_iter().map(|e| EvidenceBody {
        role: e.role.to_string(),
        bound: e.bound.to_string(),
        commits: if e.of == "identify" { evidence_nonce(&e.word).to_string() } else { String::new() },
        of: e.of,
        word: e.word,
    });
    Ok(Json(found.collect()))
}

/// Whether two names are one: letters are compared, not what stands between them.
pub(crate) fn is_named(name: &str, other: &str) -> bool {
    let letters = |text: &str| {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>()
    };
    letters(name) == letters(other)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(
            is_named("欧阳·测试", "欧阳・测试") && is_named("Li Wei", "LI WEI") && !is_named("王芳", "王方")
        );
        for wrong in ["110105194912310021", "wang", "", "91110108MA00000000"] {
            assert!(person(&proven(wrong)).is_none(), "{wrong}");
        }
    }
}
