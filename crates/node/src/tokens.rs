//! API tokens with a name, scopes and a last day, beside the administrator's in `node.toml`: for a terminal, a portal, a report. Only
//! their hashes are kept.

use crate::{
    SqliteVault,
    api::{JsonBody, Problem, SECURITY, Shared, now_ms},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{Method, StatusCode},
};
use borsh::{BorshDeserialize, BorshSerialize};
use flow::{Vault, VaultError};
use model::{Day, Suite, decode, encode};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
};
use tracing::info;
use utoipa::ToSchema;

/// The most tokens of a node.
const TOKENS_MAX: usize = 1_000;

/// What a token opens.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TokenScope {
    /// Case work: open, identify, consent, decide, receipts, lists.
    Cases,
    /// What the department's office reads: reconciliation, connector, terminals, subscriptions, lists.
    Office,
    /// Keeping the ledger and answering for it: archive, prune, statements, evidence, openings, links, publications.
    Keeping,
}

/// The scope a route takes; none for what only the administrator's own token opens.
fn scope_of(method: &Method, route: &str) -> Option<TokenScope> {
    let part = route.trim_start_matches("/api/v1/").split('/').next().unwrap_or_default();
    match (part, method) {
        ("cases", _) if route.ends_with("/evidence") => Some(TokenScope::Keeping),
        ("cases", _) => Some(TokenScope::Cases),
        ("lists", &Method::POST) => Some(TokenScope::Cases),
        ("lists" | "reconciliation" | "connector" | "terminals" | "subscriptions", _) => {
            Some(TokenScope::Office)
        }
        ("archive" | "prune" | "statements" | "openings" | "links" | "publications", _) => {
            Some(TokenScope::Keeping)
        }
        _ => None,
    }
}

/// Whether a route wants a token at all; the rest is public, or signed.
pub(crate) fn is_closed(method: &Method, route: &str) -> bool {
    let part = route.trim_start_matches("/api/v1/").split('/').next().unwrap_or_default();
    let administrators = matches!(part, "officers" | "tokens") || part == "matters" && method == Method::POST;
    administrators || scope_of(method, route).is_some()
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
struct Kept {
    hash: [u8; 32],
    scopes: BTreeSet<TokenScope>,
    until_ms: u64,
    since_ms: u64,
}

/// What a token that was given lacks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// It is none of this node's, or its last day is over.
    Unknown,
    /// It does not open this.
    Scope,
}

/// The tokens of a node.
pub(crate) struct Tokens {
    vault: Arc<SqliteVault>,
    /// By hash, each with its name.
    known: Mutex<HashMap<[u8; 32], (String, Kept)>>,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
}

fn place(name: &str) -> String {
    format!("token/{name}/kept")
}

fn hash(token: &str) -> [u8; 32] {
    crypto::hash(Suite::International, "tongban/api-token/1", &[token.as_bytes()]).0
}

impl Tokens {
    pub(crate) async fn open(vault: Arc<SqliteVault>) -> Result<Self, VaultError> {
        let mut known = HashMap::new();
        for place in vault.list("token/").await? {
            let Some(name) = place.split('/').nth(1) else { continue };
            let Some(bytes) = vault.get(&place).await? else { continue };
            let kept: Kept = decode(&bytes).map_err(|_| VaultError("an API token cannot be read".into()))?;
            known.insert(kept.hash, (name.to_owned(), kept));
        }
        Ok(Self { vault, known: Mutex::new(known), turn: Default::default() })
    }

    /// The name of a token that opens a route now.
    pub(crate) fn opens(
        &self,
        token: &str,
        method: &Method,
        route: &str,
        now_ms: u64,
    ) -> Result<String, Lack> {
        let known = self.known.lock().expect("no holder panics");
        // found by its hash: the time a look-up takes says nothing of tokens there are
        let (name, kept) =
            known.get(&hash(token)).filter(|(_, k)| now_ms <= k.until_ms).ok_or(Lack::Unknown)?;
        let opens = scope_of(method, route).is_some_and(|scope| kept.scopes.contains(&scope));
        if opens { Ok(name.clone()) } else { Err(Lack::Scope) }
    }

    fn list(&self) -> Vec<TokenBody> {
        let known = self.known.lock().expect("no holder panics");
        let body = |(name, kept): &(String, Kept)| TokenBody {
            name: name.clone(),
            scopes: kept.scopes.clone(),
            until: Day::of(kept.until_ms),
            since_ms: kept.since_ms,
        };
        let mut list: Vec<_> = known.values().map(body).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    async fn add(&self, name: &str, scopes: BTreeSet<TokenScope>, until: Day) -> Result<String, Problem> {
        let invalid = |detail: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail);
        crate::officers::check_name(name).map_err(|e| invalid(&e.to_string()))?;
        let now = now_ms();
        if scopes.is_empty() || until.ends_ms() < now {
            return Err(invalid("a token has a scope at least, and a last day that is not over"));
        }
        let _turn = self.turn.lock().await;
        let there = self.list();
        if there.iter().any(|token| token.name == name) {
            let detail = "there is a token of this name already; remove it first";
            return Err(Problem::new(StatusCode::CONFLICT, "token_exists", detail));
        }
        if there.len() >= TOKENS_MAX {
            return Err(invalid("a node has 1,000 tokens at most"));
        }
        let token = format!("tongban_{}", hex::encode(crypto::random::<24>()));
        let kept = Kept { hash: hash(&token), scopes, until_ms: until.ends_ms(), since_ms: now };
        self.vault.put(&place(name), &encode(&kept)).await.map_err(flow::CaseError::Vault)?;
        self.known.lock().expect("no holder panics").insert(kept.hash, (name.to_owned(), kept));
        Ok(token)
    }

    async fn remove(&self, name: &str) -> Result<bool, Problem> {
        let _turn = self.turn.lock().await;
        let there = self.list().iter().any(|token| token.name == name);
        if there {
            self.vault.erase(&place(name)).await.map_err(flow::CaseError::Vault)?;
            self.known.lock().expect("no holder panics").retain(|_, (of, _)| of != name);
        }
        Ok(there)
    }
}

/// A token as the administrator sees it.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenBody {
    /// Its name.
    name: String,
    /// What it opens.
    scopes: BTreeSet<TokenScope>,
    /// Its last day.
    #[schema(value_type = String)]
    until: Day,
    /// Since when it serves, in milliseconds since 1970.
    since_ms: u64,
}

/// The named API tokens of this node, without the tokens themselves.
#[utoipa::path(get, path = "/api/v1/tokens", responses((status = 200, body = Vec<TokenBody>)))]
pub(crate) async fn list(State(served): Shared) -> Json<Vec<TokenBody>> {
    Json(served.tokens.list())
}

/// A token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// Its name: 2 to 32 small letters, digits and `-._`, a letter first.
    name: String,
    /// What it opens.
    scopes: BTreeSet<TokenScope>,
    /// Its last day.
    #[schema(value_type = String)]
    until: Day,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeToken {
    /// Its name.
    name: String,
    /// The token; it is kept nowhere.
    token: String,
}

/// Makes a named token.
#[utoipa::path(post, path = "/api/v1/tokens", request_body = NewToken,
    responses((status = 201, body = MadeToken), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn add(
    State(served): Shared,
    JsonBody(new): JsonBody<NewToken>,
) -> Result<(StatusCode, Json<MadeToken>), Problem> {
    let token = served.tokens.add(&new.name, new.scopes, new.until).await?;
    info!(target: SECURITY, token = new.name, "an API token was made");
    Ok((StatusCode::CREATED, Json(MadeToken { name: new.name, token })))
}

/// Removes a named token, which opens nothing from then on.
#[utoipa::path(delete, path = "/api/v1/tokens/{name}", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn remove(State(served): Shared, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    if !served.tokens.remove(&name).await? {
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown_token", "there is no token of this name"));
    }
    info!(target: SECURITY, token = name, "an API token was removed");
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::StorageKey;

    #[tokio::test]
    async fn a_token_opens_what_it_is_for_until_its_last_day() {
        let dir = tempfile::tempdir().unwrap();
        let key = StorageKey::new(Suite::International, [7; 32]);
        let vault = Arc::new(SqliteVault::open(&dir.path().join("vault.db"), key).await.unwrap());
        let tokens = Tokens::open(vault.clone()).await.unwrap();
        let today = Day::of(now_ms());
        let made = tokens.add("window-3", [TokenScope::Cases].into(), today).await.unwrap();
        let other = tokens.add("window-33", [TokenScope::Keeping].into(), today).await.unwrap();
        let post = Method::POST;
        let opens = |tokens: &Tokens, token: &str, method: &Method, route: &str| {
            tokens.opens(token, method, route, now_ms())
        };
        assert_eq!(opens(&tokens, &made, &post, "/api/v1/cases/{id}/confirm").unwrap(), "window-3");
        // what an identity provider said names people, and is for who answers for the case
        let evidence = "/api/v1/cases/{id}/evidence";
        assert_eq!(opens(&tokens, &made, &Method::GET, evidence), Err(Lack::Scope));
        for closed in
            ["/api/v1/prune", "/api/v1/officers", "/api/v1/tokens", "/api/v1/matters", "/api/v1/new"]
        {
            assert_eq!(opens(&tokens, &made, &post, closed), Err(Lack::Scope), "{closed}");
        }
        assert_eq!(opens(&tokens, &other, &Method::GET, "/api/v1/archive").unwrap(), "window-33");
        assert_eq!(opens(&tokens, &other, &Method::GET, "/api/v1/cases"), Err(Lack::Scope));
        assert_eq!(opens(&tokens, "tongban_", &post, "/api/v1/cases"), Err(Lack::Unknown));
        let late = today.ends_ms() + 1;
        assert_eq!(tokens.opens(&made, &post, "/api/v1/cases", late), Err(Lack::Unknown));
        // what is kept is no token, and is there after a restart
        let again = Tokens::open(vault.clone()).await.unwrap();
        assert!(opens(&again, &made, &post, "/api/v1/cases").is_ok());
        let kept = vault.get("token/window-3/kept").await.unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&kept).contains(&made));
        assert!(tokens.add("window-3", [TokenScope::Cases].into(), today).await.is_err());
        assert!(tokens.add("none", BTreeSet::new(), today).await.is_err());
        assert!(tokens.add("old", [TokenScope::Cases].into(), Day(today.0 - 1)).await.is_err());
        assert!(tokens.add("no/name", [TokenScope::Cases].into(), today).await.is_err());
        // who goes takes nobody along
        assert!(tokens.remove("window-3").await.unwrap() && !tokens.remove("window-3").await.unwrap());
        assert_eq!(opens(&tokens, &made, &post, "/api/v1/cases"), Err(Lack::Unknown));
        let left = Tokens::open(vault).await.unwrap().list();
        assert_eq!(left.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["window-33"]);
    }
}
