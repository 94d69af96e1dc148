//! Sign-in sessions of the pages: a random token in a cookie that scripts cannot read and other sites cannot send.

use axum::http::{HeaderMap, HeaderValue, header};
use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

const COOKIE: &str = "tongban_session";
const LIFETIME: Duration = Duration::from_secs(3600);
const SESSIONS_MAX: usize = 10_000;

/// Who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A persona of the demo, by position.
    Citizen(usize),
    /// The window clerk.
    Clerk,
}

/// A session.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) who: Who,
    /// Every form of this session carries it.
    pub(crate) csrf: String,
    since: Instant,
}

/// The sessions of one server.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<String, Session>>);

fn token_of(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    cookies.split(';').find_map(|c| c.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

impl Sessions {
    /// Begins a session and returns the cookie to set.
    pub(crate) fn begin(&self, who: Who) -> HeaderValue {
        let token = hex::encode(crypto::random::<32>());
        let session = Session { who, csrf: hex::encode(crypto::random::<16>()), since: Instant::now() };
        let mut sessions = self.0.lock().expect("no holder panics");
        sessions.retain(|_, s| s.since.elapsed() < LIFETIME);
        if sessions.len() < SESSIONS_MAX {
            sessions.insert(token.clone(), session);
        }
        let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=3600");
        HeaderValue::from_str(&cookie).expect("a cookie of hexadecimal digits")
    }

    /// The session of a request.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Option<Session> {
        let sessions = self.0.lock().expect("no holder panics");
        sessions.get(token_of(headers)?).filter(|s| s.since.elapsed() < LIFETIME).cloned()
    }

    /// Ends the session of a request.
    pub(crate) fn end(&self, headers: &HeaderMap) {
        if let Some(token) = token_of(headers) {
            self.0.lock().expect("no holder panics").remove(token);
        }
    }
}
