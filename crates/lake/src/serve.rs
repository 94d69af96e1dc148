//! Serves look-ups to departments' gateways, and the open-data portal to everyone.

use crate::{
    lake::Lake,
    lookup::Lookup,
    open::{ckan, pages, portal::Portal},
};
use anyhow::{Context as _, Result};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::RwLock;
use tower_http::{
    catch_panic::CatchPanicLayer, compression::CompressionLayer, set_header::SetResponseHeaderLayer,
};
use tracing::{info, warn};

/// How often what others committed is taken in.
const REFRESH: Duration = Duration::from_secs(2);
/// The longest body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Words people may write to departments in a minute, all together.
const WORDS_A_MINUTE: usize = 30;

/// What is served.
pub struct Served {
    lake: Lake,
    /// The portal.
    pub portal: Portal,
    token: Option<String>,
    lookups: RwLock<HashMap<String, Arc<Lookup>>>,
    words: Mutex<Vec<Instant>>,
}

impl Served {
    /// Opens everything that is to be served.
    pub fn open(lake: Lake) -> Result<Self> {
        let token = match &lake.config.token_file {
            Some(path) => Some(
                std::fs::read_to_string(path).with_context(|| path.display().to_string())?.trim().to_owned(),
            ),
            None => None,
        };
        if token.as_ref().is_some_and(|t| t.len() < 16) {
            anyhow::bail!("the token in `token_file` has fewer than 16 characters");
        }
        let portal = Portal::open(&lake.config)?;
        Ok(Self { portal, token, lookups: RwLock::default(), words: Mutex::default(), lake })
    }

    /// Where people reach it.
    pub fn base(&self) -> String {
        let own = || format!("http://{}", self.lake.config.listen);
        self.lake.config.public_address.as_ref().map_or_else(own, |a| a.trim_end_matches('/').to_owned())
    }

    /// Whether another word may be written now.
    pub fn may_write(&self) -> bool {
        let mut words = self.words.lock().expect("never poisoned");
        words.retain(|at| at.elapsed() < Duration::from_secs(60));
        let may = words.len() < WORDS_A_MINUTE;
        if may {
            words.push(Instant::now());
        }
        may
    }

    fn is_let_in(&self, headers: &HeaderMap) -> bool {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "));
        let hash =
            |text: &str| crypto::hash(self.lake.config.suite, "tongban/lake/token/1", &[text.as_bytes()]);
        // hashes are compared, so that time tells nothing of the token
        match (&self.token, given) {
            (Some(token), Some(given)) => hash(token) == hash(given),
            _ => false,
        }
    }

    async fn lookup_of(&self, id: &str) -> Result<Option<Arc<Lookup>>> {
        if let Some(lookup) = self.lookups.read().await.get(id) {
            return Ok(Some(lookup.clone()));
        }
        let Some(dataset) = self.lake.datasets.get(id) else { return Ok(None) };
        let lookup = Arc::new(Lookup::open(&self.lake.config, dataset, self.lake.key()?).await?);
        Ok(Some(self.lookups.write().await.entry(id.to_owned()).or_insert(lookup).clone()))
    }
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let body = json!({ "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "code": code, "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// `POST /tables/{id}/lookup` with the subject's column and its value, and others' where only such rows are wanted: the rows, as a gateway's service source reads them.
async fn lookup(
    State(served): State<Arc<Served>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Option<Json<Map<String, Value>>>,
) -> Response {
    if !served.is_let_in(&headers) {
        return problem(StatusCode::UNAUTHORIZED, "unauthorised", "look-ups need the platform's token");
    }
    let Some(dataset) = served.lake.datasets.get(&id) else {
        return problem(StatusCode::NOT_FOUND, "not_found", "there is no such data set");
    };
    let subject = dataset.declared.subject.as_ref().map(model::FieldId::as_str).unwrap_or_default();
    let mut wanted = body.map(|Json(body)| body).unwrap_or_default();
    let identifier = wanted.remove(subject);
    let fits = wanted.iter().all(|(name, value)| dataset.column(name).is_some() && value.is_string());
    let Some(Value::String(identifier)) = identifier.filter(|_| fits) else {
        let detail =
            "the body names the subject's column and its value, and may name other columns with theirs";
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail);
    };
    let found = match served.lookup_of(&id).await {
        Ok(Some(lookup)) => lookup.records(&identifier).await,
        Ok(None) => return problem(StatusCode::NOT_FOUND, "not_found", "there is no such data set"),
        Err(e) => Err(e),
    };
    match found {
        Ok(mut rows) => {
            rows.retain(|row| wanted.iter().all(|(name, value)| row.get(name) == Some(value)));
            Json(json!({ "rows": rows })).into_response()
        }
        Err(e) => {
            // never the value: errors of this crate name files and columns only
            warn!(dataset = %id, "a look-up failed: {e:#}");
            problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the look-up could not be made")
        }
    }
}

const STYLE: &str = concat!(include_str!("../../node/assets/style.css"), include_str!("../assets/open.css"));

/// The routes.
pub fn router(served: Arc<Served>) -> Router {
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; \
        frame-ancestors 'none'";
    let set = |name: header::HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    let style = || async {
        (
            [
                (header::CONTENT_TYPE, "text/css; charset=utf-8"),
                (header::CACHE_CONTROL, "public, max-age=300"),
            ],
            STYLE,
        )
    };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/tables/{id}/lookup", post(lookup))
        .route("/open", get(pages::search))
        .route("/open/assets/style.css", get(style))
        .route("/open/{id}", get(pages::set))
        .route("/open/{id}/words", post(pages::words))
        .route("/open/{id}/{version}/{file}", get(pages::file))
        .route("/api/v1/open/{id}/rows", get(pages::rows))
        .route("/api/3/action/{action}", get(ckan::action).post(ckan::action))
        .route("/api/action/{action}", get(ckan::action).post(ckan::action))
        .route("/catalog.{form}", get(pages::catalog))
        .route("/sitemap.xml", get(pages::sitemap))
        .fallback(pages::nothing)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::new())
        .layer(set(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(set(header::REFERRER_POLICY, "no-referrer"))
        .with_state(served)
}

/// Serves until it is told to stop.
pub async fn serve(lake: Lake) -> Result<()> {
    let address = lake.config.listen;
    if lake.config.token_file.is_some() {
        // a wrong passphrase is found now, not at the first look-up
        lake.key()?;
    }
    let served = Arc::new(Served::open(lake)?);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("{address} cannot be listened on"))?;
    info!(%address, "serving");
    tokio::spawn(follow(served.clone()));
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    };
    axum::serve(listener, router(served.clone())).with_graceful_shutdown(stop).await?;
    served.portal.keep_usage()
}

/// Takes in what is committed and published while it serves.
async fn follow(served: Arc<Served>) {
    let mut beat = tokio::time::interval(REFRESH);
    loop {
        beat.tick().await;
        for (id, lookup) in served.lookups.read().await.clone() {
            if let Err(e) = lookup.refresh().await {
                warn!(dataset = %id, "its newest version cannot be read: {e:#}");
            }
        }
        let at_work = served.clone();
        let reloaded = tokio::task::spawn_blocking(move || {
            at_work.portal.reload(&at_work.lake.config)?;
            at_work.portal.keep_usage()
        });
        match reloaded.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!("publications cannot be read: {e:#}"),
            Err(e) => warn!("publications cannot be read: {e}"),
        }
    }
}
