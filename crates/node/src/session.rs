//! Sign-in sessions of the pages: a random token in a cookie that scripts cannot read and other sites cannot send.

use crate::officers::Officer;
use axum::http::{HeaderMap, HeaderValue, header};
use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

const COOKIE: &str = "tongban_session";
/// The name where people come through TLS alone: browsers take it for the whole address and for no other (RFC 6265bis, 4.1.3.2).
const HOST_COOKIE: &str = "__Host-tongban_session";
/// By which somebody who comes back from the identity provider is known to be who went. It comes along where another site leads here.
const AWAY_COOKIE: &str = "tongban_away";
const HOST_AWAY_COOKIE: &str = "__Host-tongban_away";
/// A session ends an hour after it began, and twenty minutes after it was last used.
const LIFETIME: Duration = Duration::from_secs(3600);
pub(crate) const IDLE: Duration = Duration::from_secs(1200);
const SESSIONS_MAX: usize = 10_000;
/// What a page's script says of a request that nobody made (`assets/live.js`).
const BY_ITSELF: &str = "x-live";

/// Who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A persona of the demo, by position.
    Persona(usize),
    /// A citizen whom an identity provider knows.
    Person(flow::Person),
    /// An officer of the department.
    Officer(Officer),
}

/// A session.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) who: Who,
    /// Every form of this session carries it.
    pub(crate) csrf: String,
    since: Instant,
    seen: Instant,
}

impl Session {
    fn lives(&self, now: Instant) -> bool {
        now.duration_since(self.since) < LIFETIME && now.duration_since(self.seen) < IDLE
    }
}

fn cookie_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    cookies.split(';').find_map(|c| c.trim().strip_prefix(name)?.strip_prefix('='))
}

/// The sessions of one server.
pub struct Sessions {
    behind_tls: bool,
    begun: Mutex<HashMap<String, Session>>,
}

impl Sessions {
    pub(crate) fn new(behind_tls: bool) -> Self {
        Self { behind_tls, begun: Mutex::default() }
    }

    /// What every cookie of this node ends with.
    pub(crate) fn flags(&self) -> &'static str {
        if self.behind_tls { "Path=/; SameSite=Strict; Secure" } else { "Path=/; SameSite=Strict" }
    }

    fn name(&self) -> &'static str {
        if self.behind_tls { HOST_COOKIE } else { COOKIE }
    }

    fn token_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        cookie_of(headers, self.name())
    }

    /// The cookie of a browser that goes to the identity provider; without a value, it is taken back.
    pub(crate) fn away(&self, browser: &str) -> HeaderValue {
        let (name, secure) = match self.behind_tls {
            true => (HOST_AWAY_COOKIE, "; Secure"),
            false => (AWAY_COOKIE, ""),
        };
        let age = if browser.is_empty() { 0 } else { 600 };
        let cookie = format!("{name}={browser}; Path=/; SameSite=Lax{secure}; HttpOnly; Max-Age={age}");
        HeaderValue::from_str(&cookie).expect("a cookie of hexadecimal digits")
    }

    /// What a browser that comes back from there brings along.
    pub(crate) fn away_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        cookie_of(headers, if self.behind_tls { HOST_AWAY_COOKIE } else { AWAY_COOKIE })
    }

    /// Begins a session in place of the request's own, and returns the cookie to set.
    pub(crate) fn begin(&self, headers: &HeaderMap, who: Who) -> HeaderValue {
        let (token, now) = (hex::encode(crypto::random::<32>()), Instant::now());
        let session = Session { who, csrf: hex::encode(crypto::random::<16>()), since: now, seen: now };
        let mut sessions = self.begun.lock().expect("no holder panics");
        if let Some(before) = self.token_of(headers) {
            sessions.remove(before);
        }
        sessions.retain(|_, s| s.lives(now));
        // the one unused longest makes room
        if sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = sessions.iter().min_by_key(|(_, s)| s.seen).map(|(t, _)| t.clone())
        {
            sessions.remove(&oldest);
        }
        sessions.insert(token.clone(), session);
        let cookie = format!("{}={token}; {}; HttpOnly; Max-Age=3600", self.name(), self.flags());
        HeaderValue::from_str(&cookie).expect("a cookie of hexadecimal digits")
    }

    /// What names a request's session.
    pub(crate) fn named(&self, headers: &HeaderMap) -> Option<String> {
        self.token_of(headers).map(ToOwned::to_owned)
    }

    /// Ends a session by its name.
    pub(crate) fn forget(&self, token: &str) {
        self.begun.lock().expect("no holder panics").remove(token);
    }

    /// The session of a request, which uses it, unless an open page asks by itself what is new.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Option<Session> {
        let now = Instant::now();
        let mut sessions = self.begun.lock().expect("no holder panics");
        let session = sessions.get_mut(self.token_of(headers)?).filter(|s| s.lives(now))?;
        if !headers.contains_key(BY_ITSELF) {
            session.seen = now;
        }
        Some(session.clone())
    }

    /// Ends the sessions of an officer's account, wherever they are signed in.
    pub(crate) fn end_of(&self, name: &str) {
        let is_of = |who: &Who| matches!(who, Who::Officer(officer) if officer.name == name);
        self.begun.lock().expect("no holder panics").retain(|_, session| !is_of(&session.who));
    }

    /// Ends the session of a request, and returns the cookie to set, which takes the other's place and is gone at once.
    pub(crate) fn end(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(token) = self.token_of(headers) {
            self.begun.lock().expect("no holder panics").remove(token);
        }
        let cookie = format!("{}=; {}; HttpOnly; Max-Age=0", self.name(), self.flags());
        HeaderValue::from_str(&cookie).expect("a cookie without a value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clerk() -> Who {
        Who::Officer(Officer { name: "wang".into(), title: "Wang".into(), roles: Default::default() })
    }

    /// The headers a browser sends after it was told to keep a cookie.
    fn kept(cookie: &HeaderValue) -> HeaderMap {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(pair).unwrap())])
    }

    #[test]
    fn cookies_are_out_of_reach() {
        let (plain, tls) = (Sessions::new(false), Sessions::new(true));
        let nobody = HeaderMap::new();
        let cookie = tls.begin(&nobody, clerk());
        let text = cookie.to_str().unwrap();
        assert!(text.starts_with("__Host-tongban_session="), "{text}");
        for flag in ["; Path=/", "; HttpOnly", "; SameSite=Strict", "; Secure"] {
            assert!(text.contains(flag), "{text}");
        }
        assert!(!text.contains("Domain"), "{text}");
        assert!(tls.of(&kept(&cookie)).is_some());
        // a session of one kind of address is none of the other
        assert!(plain.of(&kept(&cookie)).is_none());
        let cookie = plain.begin(&nobody, clerk());
        assert!(!cookie.to_str().unwrap().contains("Secure"));
        assert!(plain.of(&kept(&cookie)).is_some());
    }

    #[test]
    fn a_session_ends() {
        let sessions = Sessions::new(true);
        let first = kept(&sessions.begin(&HeaderMap::new(), clerk()));
        // whoever signs in again does not leave the old one behind
        let second = kept(&sessions.begin(&first, Who::Persona(1)));
        assert!(sessions.of(&first).is_none());
        assert_eq!(sessions.of(&second).unwrap().who, Who::Persona(1));
        sessions.end_of("wang");
        assert!(sessions.of(&second).is_some(), "no officer's session");
        let gone = sessions.end(&second);
        assert!(gone.to_str().unwrap().ends_with("; Max-Age=0"));
        assert!(sessions.of(&second).is_none());
        let removed = kept(&sessions.begin(&second, clerk()));
        sessions.end_of("wang2");
        assert!(sessions.of(&removed).is_some());
        sessions.end_of("wang");
        assert!(sessions.of(&removed).is_none(), "an account that is removed is signed in nowhere");
        let third = kept(&sessions.begin(&second, clerk()));
        let mut session = sessions.of(&third).unwrap();
        // a page that is left open does not use it
        let mut by_itself = third.clone();
        by_itself.insert(BY_ITSELF, HeaderValue::from_static("1"));
        assert_eq!(sessions.of(&by_itself).unwrap().seen, session.seen);
        assert!(sessions.of(&third).unwrap().seen > session.seen);
        let now = session.seen;
        assert!(session.lives(now + IDLE - Duration::from_secs(1)));
        assert!(!session.lives(now + IDLE), "unused for too long");
        session.seen = now + LIFETIME;
        assert!(!session.lives(now + LIFETIME), "however much it is used");
    }
}
