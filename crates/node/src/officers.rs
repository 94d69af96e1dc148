//! This department's officers: who may sign in to its pages, by something they know and something they have.
//!
//! An administrator invites an officer (`tongban officer add`); with the code of the invitation the officer chooses a passphrase
//! and takes a seed for one-time codes into an authenticator (RFC 6238). Both are asked for together, and what is wrong of the two
//! is not said (OWASP ASVS 5.0, 6.3). All of it is kept in the vault.

use borsh::{BorshDeserialize, BorshSerialize};
use crypto::KeptPassphrase;
use flow::{Vault, VaultError};
use model::{Suite, decode, encode};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use totp_rs::{Builder, Totp};
use utoipa::ToSchema;

/// An invitation serves so long.
const INVITED_FOR_MS: u64 = 72 * 3_600_000;
/// After so many wrong attempts each further one waits.
const ATTEMPTS: u32 = 5;
/// The first wait; it doubles up to [`WAIT_MAX_MS`].
const WAIT_MS: u64 = 60_000;
const WAIT_MAX_MS: u64 = 15 * 60_000;
/// Wrong attempts are forgotten after so long without one.
const FORGOTTEN_AFTER_MS: u64 = 3_600_000;
/// How long somebody who signs in waits for others who do.
const PATIENCE: Duration = Duration::from_secs(5);
/// A passphrase has so many characters (ASVS 6.2.1, 6.2.9).
const PASSPHRASE_CHARACTERS: std::ops::RangeInclusive<usize> = 12..=128;
/// How many passphrases are hashed at once.
const HASHING_AT_ONCE: usize = 2;
/// The most officers of a department.
const OFFICERS_MAX: usize = 2_000;
/// The longest title, in bytes: what the ledger takes of an officer's name.
const TITLE_BYTES_MAX: usize = 64;

/// What an officer may do on the pages.
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
pub enum OfficerRole {
    /// The one window: cases of all people.
    Clerk,
    /// What the department answers for: share requests, limits, alerts, objections, its connector.
    Data,
}

/// Somebody who is signed in as an officer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Officer {
    /// The account; empty for those of the demo.
    pub name: String,
    /// How they are named where an act of theirs is on record.
    pub title: String,
    /// What they may do.
    pub roles: BTreeSet<OfficerRole>,
}

/// What an officer signs in with.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
struct Secrets {
    passphrase: KeptPassphrase,
    seed: [u8; 20],
    /// The step of the newest one-time code that was taken: each serves once.
    step: u64,
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
struct Account {
    title: String,
    roles: BTreeSet<OfficerRole>,
    since_ms: u64,
    /// The hash of the invitation's code, and until when it serves.
    invited: Option<([u8; 32], u64)>,
    secrets: Option<Secrets>,
    attempts: Attempts,
}

/// Wrong attempts since the last right one; forgotten after an hour without any.
#[derive(Clone, Copy, Default, BorshSerialize, BorshDeserialize)]
struct Attempts {
    wrong: u32,
    last_ms: u64,
}

impl Attempts {
    /// Until when no attempt is looked at.
    fn wait_until_ms(&self) -> u64 {
        let further = self.wrong.checked_sub(ATTEMPTS);
        further.map_or(0, |n| self.last_ms + (WAIT_MS << n.min(4)).min(WAIT_MAX_MS))
    }

    fn check(&self, now_ms: u64) -> Result<(), OfficerError> {
        let until_ms = self.wait_until_ms();
        if now_ms < until_ms { Err(OfficerError::Wait(until_ms)) } else { Ok(()) }
    }

    fn note(&mut self, now_ms: u64) {
        let old = now_ms.saturating_sub(self.last_ms) > FORGOTTEN_AFTER_MS;
        *self = Self { wrong: if old { 1 } else { self.wrong.saturating_add(1) }, last_ms: now_ms };
    }
}

/// An account as an administrator sees it.
#[derive(Serialize, ToSchema)]
pub(crate) struct OfficerBody {
    /// The account's name.
    pub(crate) name: String,
    /// How the officer is named where an act of theirs is on record.
    pub(crate) title: String,
    /// What they may do on the pages.
    pub(crate) roles: BTreeSet<OfficerRole>,
    /// Since when the account is there, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// `active`, `invited`, or `expired` where the invitation was not taken up in time.
    pub(crate) state: &'static str,
    /// Until when no attempt is looked at, after too many wrong ones; 0 where there were none.
    pub(crate) wait_until_ms: u64,
}

/// Why something about an account was not done. Says nothing of what was typed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OfficerError {
    #[error("there is no such officer")]
    Unknown,
    #[error("there is an officer of this name already")]
    Exists,
    #[error("{0}")]
    Invalid(&'static str),
    /// The passphrase is too short, too long, or easily guessed.
    #[error("a passphrase has 12 to 128 characters and is not easily guessed")]
    Weak,
    /// Name, passphrase and code do not belong together.
    #[error("name, passphrase and code do not belong together")]
    Wrong,
    /// Too many wrong attempts; until when, in milliseconds since 1970.
    #[error("too many wrong attempts")]
    Wait(u64),
    #[error("too many people sign in at once")]
    Busy,
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// What a new authenticator is given.
pub(crate) struct Enrolment {
    /// `otpauth://…`, as authenticators read it from a QR code.
    pub(crate) url: String,
    /// The seed in Base32, to be typed.
    pub(crate) seed: String,
}

/// The officers of a department.
pub(crate) struct Officers<V> {
    vault: Arc<V>,
    department: String,
    suite: Suite,
    /// One account is written at a time.
    turn: Mutex<()>,
    /// Places for hashing passphrases: each takes 19 MiB and some 30 ms, and is held by the work and not by who waits for it.
    hashing: Arc<Semaphore>,
    /// Wrong attempts at names that nobody has.
    nobody: std::sync::Mutex<HashMap<String, Attempts>>,
}

fn place(name: &str) -> String {
    format!("officer/{name}/account")
}

/// Where the key is kept that seeds are drawn with.
const SEED_KEY: &str = "officers/seed-key";

/// What accounts and tokens are named.
pub(crate) fn check_name(name: &str) -> Result<(), OfficerError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    let fits = (2..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(plain);
    fits.then_some(()).ok_or(OfficerError::Invalid(
        "a name has 2 to 32 small letters, digits and -._ and begins with a letter",
    ))
}

fn totp(department: &str, name: &str, seed: &[u8; 20]) -> Totp {
    let issuer = Some(format!("Tongban {department}"));
    let builder = Builder::new().with_secret(seed.to_vec()).with_account_name(name).with_issuer(issuer);
    builder.build().expect("twenty bytes, six digits, and names without a colon")
}

impl<V: Vault> Officers<V> {
    pub(crate) fn new(vault: Arc<V>, department: String, suite: Suite) -> Self {
        let hashing = Arc::new(Semaphore::new(HASHING_AT_ONCE));
        Self { vault, department, suite, turn: Mutex::default(), hashing, nobody: Default::default() }
    }

    async fn turn(&self) -> Result<MutexGuard<'_, ()>, OfficerError> {
        tokio::time::timeout(PATIENCE, self.turn.lock()).await.map_err(|_| OfficerError::Busy)
    }

    async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, OfficerError> {
        let place = tokio::time::timeout(PATIENCE, self.hashing.clone().acquire_owned()).await;
        let place = place.map_err(|_| OfficerError::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        done.await.map_err(|_| OfficerError::Busy)
    }

    async fn account(&self, name: &str) -> Result<Option<Account>, OfficerError> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let kept = self.vault.get(&place(name)).await?;
        let read = |bytes: Vec<u8>| {
            decode(&bytes).map_err(|_| VaultError("an officer's account cannot be read".into()))
        };
        Ok(kept.map(read).transpose()?)
    }

    async fn keep(&self, name: &str, account: &Account) -> Result<(), OfficerError> {
        Ok(self.vault.put(&place(name), &encode(account)).await?)
    }

    fn hash(&self, code: &str) -> [u8; 32] {
        crypto::hash(self.suite, "tongban/officer-invitation/1", &[code.as_bytes()]).0
    }

    /// A fresh invitation: its code, and how it is kept.
    fn invitation(&self, now_ms: u64) -> (String, Option<([u8; 32], u64)>) {
        let code = hex::encode(crypto::random::<12>());
        let groups: Vec<&str> = (0..6).map(|i| &code[4 * i..4 * i + 4]).collect();
        let code = groups.join("-");
        let kept = Some((self.hash(&code), now_ms + INVITED_FOR_MS));
        (code, kept)
    }

    /// Adds an officer and returns the code of their invitation, which is kept nowhere.
    pub(crate) async fn add(
        &self,
        name: &str,
        title: &str,
        roles: BTreeSet<OfficerRole>,
        now_ms: u64,
    ) -> Result<String, OfficerError> {
        check_name(name)?;
        let title = title.trim();
        if title.is_empty() || title.len() > TITLE_BYTES_MAX || title.chars().any(char::is_control) {
            return Err(OfficerError::Invalid("a title is a line of 1 to 64 bytes"));
        }
        if roles.is_empty() {
            return Err(OfficerError::Invalid("an officer has a role at least"));
        }
        let _turn = self.turn().await?;
        if self.account(name).await?.is_some() {
            return Err(OfficerError::Exists);
        }
        let there = self.list(now_ms).await?;
        if there.iter().any(|officer| officer.title == title) {
            return Err(OfficerError::Invalid(
                "another officer has this title: what is on record must tell them apart",
            ));
        }
        if there.len() >= OFFICERS_MAX {
            return Err(OfficerError::Invalid("a department has 2,000 officers at most"));
        }
        let (code, invited) = self.invitation(now_ms);
        let title = title.to_owned();
        let attempts = Attempts::default();
        let account = Account { title, roles, since_ms: now_ms, invited, secrets: None, attempts };
        self.keep(name, &account).await?;
        Ok(code)
    }

    /// Invites an officer anew: passphrase and authenticator of before serve no more.
    pub(crate) async fn reset(&self, name: &str, now_ms: u64) -> Result<String, OfficerError> {
        let _turn = self.turn().await?;
        let mut account = self.account(name).await?.ok_or(OfficerError::Unknown)?;
        let (code, invited) = self.invitation(now_ms);
        account = Account { invited, secrets: None, attempts: Attempts::default(), ..account };
        self.keep(name, &account).await?;
        Ok(code)
    }

    /// Removes an officer. What they did stays on record.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), OfficerError> {
        let _turn = self.turn().await?;
        self.account(name).await?.ok_or(OfficerError::Unknown)?;
        self.vault.erase(&place(name)).await?;
        Ok(())
    }

    /// All officers, by name.
    pub(crate) async fn list(&self, now_ms: u64) -> Result<Vec<OfficerBody>, OfficerError> {
        let mut list = Vec::new();
        for place in self.vault.list("officer/").await? {
            let Some(name) = place.split('/').nth(1).map(str::to_owned) else { continue };
            let Some(account) = self.account(&name).await? else { continue };
            let state = match (&account.secrets, account.invited) {
                (Some(_), _) => "active",
                (None, Some((_, until_ms))) if until_ms >= now_ms => "invited",
                _ => "expired",
            };
            let wait_until_ms =
                account.attempts.check(now_ms).map_or(account.attempts.wait_until_ms(), |()| 0);
            let Account { title, roles, since_ms, .. } = account;
            list.push(OfficerBody { name, title, roles, since_ms, state, wait_until_ms });
        }
        Ok(list)
    }

    async fn invited(&self, name: &str, code: &str, now_ms: u64) -> Result<Account, OfficerError> {
        let account = self.account(name).await?.ok_or(OfficerError::Wrong)?;
        let serves =
            account.invited.is_some_and(|(hash, until_ms)| hash == self.hash(code) && now_ms <= until_ms);
        if serves { Ok(account) } else { Err(OfficerError::Wrong) }
    }

    /// The seed of an invitation: drawn with a key of the vault, so that whoever finds a used invitation learns nothing of it.
    async fn seed(&self, code: &str) -> Result<[u8; 20], OfficerError> {
        let key = match self.vault.get(SEED_KEY).await? {
            Some(key) => key,
            None => {
                let key = crypto::random::<32>().to_vec();
                self.vault.put(SEED_KEY, &key).await?;
                key
            }
        };
        let key = key.try_into().map_err(|_| VaultError("the key of the seeds cannot be read".into()))?;
        let drawn = crypto::keyed_hash(self.suite, &key, "tongban/officer-seed/1", code.as_bytes());
        Ok(drawn.0[..20].try_into().expect("a hash has thirty-two bytes"))
    }

    /// What the authenticator of an invited officer is given.
    pub(crate) async fn enrolment(
        &self,
        name: &str,
        code: &str,
        now_ms: u64,
    ) -> Result<Enrolment, OfficerError> {
        let _turn = self.turn().await?;
        self.invited(name, code, now_ms).await?;
        let seed = self.seed(code).await?;
        let url = totp(&self.department, name, &seed).to_url().expect("the account has a name");
        Ok(Enrolment { url, seed: totp_rs::Secret::from(seed.to_vec()).to_base32() })
    }

    /// What is kept of a passphrase that is not easily guessed, even by who knows the officer.
    async fn kept(&self, name: &str, title: &str, passphrase: &str) -> Result<KeptPassphrase, OfficerError> {
        if !PASSPHRASE_CHARACTERS.contains(&passphrase.chars().count())
            || zxcvbn::zxcvbn(passphrase, &[name, title, &self.department]).score() < zxcvbn::Score::Three
        {
            return Err(OfficerError::Weak);
        }
        let passphrase = passphrase.to_owned();
        self.hashing(move || KeptPassphrase::of(&passphrase)).await
    }

    /// Takes up an invitation. The code shows that the authenticator has the seed.
    pub(crate) async fn take_up(
        &self,
        name: &str,
        code: &str,
        passphrase: &str,
        once: &str,
        now_ms: u64,
    ) -> Result<Officer, OfficerError> {
        let known = self.invited(name, code, now_ms).await?;
        let passphrase = self.kept(name, &known.title, passphrase).await?;
        let _turn = self.turn().await?;
        let account = self.invited(name, code, now_ms).await?;
        let seed = self.seed(code).await?;
        let once: String = once.split_whitespace().collect();
        let step = totp(&self.department, name, &seed).check(&once, now_ms / 1000);
        let step = step.ok_or(OfficerError::Wrong)?;
        let secrets = Some(Secrets { passphrase, seed, step });
        let account = Account { invited: None, secrets, ..account };
        self.keep(name, &account).await?;
        Ok(Officer { name: name.to_owned(), title: account.title, roles: account.roles })
    }

    /// Takes another passphrase in place of the one that is given with a one-time code.
    pub(crate) async fn change(
        &self,
        name: &str,
        passphrase: &str,
        once: &str,
        new: &str,
        now_ms: u64,
    ) -> Result<Officer, OfficerError> {
        let known = self.account(name).await?.ok_or(OfficerError::Wrong)?;
        // a code serves once: a new passphrase that does not fit must not use it up
        let kept = self.kept(name, &known.title, new).await?;
        self.judge(name, passphrase, once, Some(kept), now_ms).await
    }

    /// Judges who signs in.
    pub(crate) async fn sign_in(
        &self,
        name: &str,
        passphrase: &str,
        once: &str,
        now_ms: u64,
    ) -> Result<Officer, OfficerError> {
        self.judge(name, passphrase, once, None, now_ms).await
    }

    /// Judges both at once, and keeps a new passphrase where there is one. A name that nobody has is waited for, hashed for and
    /// written for like one that somebody has.
    async fn judge(
        &self,
        name: &str,
        passphrase: &str,
        once: &str,
        new: Option<KeptPassphrase>,
        now_ms: u64,
    ) -> Result<Officer, OfficerError> {
        let name = if check_name(name).is_ok() { name } else { "" };
        let account = self.account(name).await?;
        self.attempts_of(name, account.as_ref()).check(now_ms)?;
        let before = account.and_then(|a| a.secrets);
        let (kept, typed) = (before.as_ref().map(|s| s.passphrase.clone()), passphrase.to_owned());
        let knows = self.hashing(move || match kept {
            Some(kept) => kept.fits(&typed),
            None => {
                let _ = KeptPassphrase::of(&typed);
                false
            }
        });
        let knows = knows.await?;
        let _turn = self.turn().await?;
        // whoever else tried meanwhile was counted, and whoever was invited anew has other secrets
        let mut account = self.account(name).await?;
        let mut attempts = self.attempts_of(name, account.as_ref());
        attempts.check(now_ms)?;
        let once: String = once.split_whitespace().collect();
        let secrets = account.as_mut().and_then(|a| a.secrets.as_mut());
        let secrets = secrets.filter(|now| before.as_ref().is_some_and(|b| b.passphrase == now.passphrase));
        let fits = secrets.and_then(|secrets| {
            let step = totp(&self.department, name, &secrets.seed).check(&once, now_ms / 1000)?;
            (knows && step > secrets.step).then_some((secrets, step))
        });
        if let Some((secrets, step)) = fits {
            secrets.step = step;
            if let Some(new) = new {
                secrets.passphrase = new;
            }
            let mut account = account.expect("its secrets were just looked at");
            account.attempts = Attempts::default();
            self.keep(name, &account).await?;
            return Ok(Officer { name: name.to_owned(), title: account.title, roles: account.roles });
        }
        attempts.note(now_ms);
        match account {
            Some(account) => self.keep(name, &Account { attempts, ..account }).await?,
            None => {
                self.vault.put("officers/nobody", &encode(&attempts)).await?;
                let mut nobody = self.nobody.lock().expect("no holder panics");
                if nobody.len() >= OFFICERS_MAX {
                    nobody.clear();
                }
                nobody.insert(name.to_owned(), attempts);
            }
        }
        Err(OfficerError::Wrong)
    }

    /// The wrong attempts at a name, whether somebody has it or not.
    fn attempts_of(&self, name: &str, account: Option<&Account>) -> Attempts {
        let nobody = || self.nobody.lock().expect("no holder panics").get(name).copied();
        account.map(|a| a.attempts).or_else(nobody).unwrap_or_default()
    }

    /// Whether an account still serves: it may have been removed while its officer signed in.
    pub(crate) async fn serves(&self, name: &str) -> bool {
        self.account(name).await.is_ok_and(|a| a.is_some_and(|a| a.secrets.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SqliteVault;
    use crypto::StorageKey;

    const NOW: u64 = 1_800_000_000_000;
    const SAID: &str = "four green lamps over Tongzhou";

    struct Place {
        officers: Officers<SqliteVault>,
        _dir: tempfile::TempDir,
    }

    impl Place {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let key = StorageKey::new(Suite::International, [7; 32]);
            let vault = Arc::new(SqliteVault::open(&dir.path().join("vault.db"), key).await.unwrap());
            Self { officers: Officers::new(vault, "bureau".into(), Suite::International), _dir: dir }
        }

        async fn invite(&self, name: &str) -> String {
            self.officers.add(name, "L. Wang", [OfficerRole::Clerk].into(), NOW).await.unwrap()
        }

        /// What the authenticator shows, having been given the invitation's seed.
        async fn authenticator(&self, name: &str, code: &str) -> impl Fn(u64) -> String + use<> {
            let enrolment = self.officers.enrolment(name, code, NOW).await.unwrap();
            let totp = Totp::from_url(&enrolment.url).unwrap();
            assert!(enrolment.url.contains(&format!("secret={}", enrolment.seed)));
            move |at_ms| totp.generate(at_ms / 1000).to_string()
        }
    }

    /// RFC 6238, appendix B (SHA-1), the last six of eight digits.
    #[test]
    fn codes_are_those_of_the_standard() {
        let totp = totp("bureau", "wang", b"12345678901234567890");
        for (at, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
            assert_eq!(totp.generate(at).to_string(), code);
        }
    }

    #[tokio::test]
    async fn an_officer_signs_in_with_both_and_a_code_serves_once() {
        let place = Place::new().await;
        let code = place.invite("wang").await;
        let shows = place.authenticator("wang", &code).await;
        let o = &place.officers;
        // before the invitation is taken up nobody signs in
        assert!(matches!(o.sign_in("wang", SAID, &shows(NOW), NOW).await, Err(OfficerError::Wrong)));
        for weak in ["short", "password1234", "wangwangwang", "111111111111111", "abcdefghijkl"] {
            let taken = o.take_up("wang", &code, weak, &shows(NOW), NOW).await;
            assert!(matches!(taken, Err(OfficerError::Weak)), "{weak}");
        }
        assert!(matches!(o.take_up("wang", &code, SAID, "000000", NOW).await, Err(OfficerError::Wrong)));
        let officer = o.take_up("wang", &code, SAID, &shows(NOW), NOW).await.unwrap();
        assert_eq!((officer.title.as_str(), officer.roles.len()), ("L. Wang", 1));
        // the invitation is used up, and so is the code of that moment
        assert!(matches!(o.enrolment("wang", &code, NOW).await, Err(OfficerError::Wrong)));
        assert!(matches!(o.sign_in("wang", SAID, &shows(NOW), NOW).await, Err(OfficerError::Wrong)));
        let later = NOW + 60_000;
        assert!(matches!(o.sign_in("wang", "another", &shows(later), later).await, Err(OfficerError::Wrong)));
        assert!(matches!(o.sign_in("wang", SAID, "000000", later).await, Err(OfficerError::Wrong)));
        o.sign_in("wang", SAID, &shows(later), later).await.unwrap();
        assert!(matches!(o.sign_in("wang", SAID, &shows(later), later).await, Err(OfficerError::Wrong)));
        // another passphrase, for whoever knows the one before
        let (now, new) = (later + 30_000, "seven quiet ferries in the rain");
        assert!(matches!(o.change("wang", SAID, &shows(now), "short", now).await, Err(OfficerError::Weak)));
        assert!(matches!(o.change("wang", new, &shows(now), new, now).await, Err(OfficerError::Wrong)));
        o.change("wang", SAID, &shows(now), new, now).await.unwrap();
        let later = now + 30_000;
        assert!(matches!(o.sign_in("wang", SAID, &shows(later), later).await, Err(OfficerError::Wrong)));
        // a phone whose clock is half a minute off serves
        o.sign_in("wang", new, &shows(later + 60_000), later + 30_000).await.unwrap();
        assert!(matches!(o.sign_in("nobody", SAID, "000000", later).await, Err(OfficerError::Wrong)));
    }

    #[tokio::test]
    async fn who_guesses_waits_longer_each_time() {
        let place = Place::new().await;
        let code = place.invite("wang").await;
        let shows = place.authenticator("wang", &code).await;
        let o = &place.officers;
        o.take_up("wang", &code, SAID, &shows(NOW), NOW).await.unwrap();
        let mut now = NOW + 60_000;
        let mut waits = Vec::new();
        while waits.len() < 6 {
            match o.sign_in("wang", "a guess of somebody's", &shows(now), now).await {
                Err(OfficerError::Wait(until)) => {
                    waits.push(until - now);
                    // not even the right ones are looked at meanwhile
                    let right = o.sign_in("wang", SAID, &shows(now), now).await;
                    assert!(matches!(right, Err(OfficerError::Wait(_))));
                    now = until;
                }
                Err(OfficerError::Wrong) => {}
                other => panic!("{:?}", other.map(|o| o.name)),
            }
        }
        assert_eq!(waits, [60_000, 120_000, 240_000, 480_000, 900_000, 900_000]);
        // an hour later it begins anew, and a code may be typed as it is shown
        now += FORGOTTEN_AFTER_MS + 1;
        assert!(matches!(o.sign_in("wang", "another", &shows(now), now).await, Err(OfficerError::Wrong)));
        let shown = shows(now);
        let typed = format!("{} {}", &shown[..3], &shown[3..]);
        o.sign_in("wang", SAID, &typed, now).await.unwrap();
        // a name that nobody has is judged no other way
        for _ in 0..5 {
            assert!(matches!(o.sign_in("nobody", SAID, &shown, now).await, Err(OfficerError::Wrong)));
        }
        assert!(matches!(o.sign_in("nobody", SAID, &shown, now).await, Err(OfficerError::Wait(_))));
        assert_eq!(o.list(now).await.unwrap()[0].wait_until_ms, 0);
    }

    #[tokio::test]
    async fn invitations_end_and_accounts_go() {
        let place = Place::new().await;
        let o = &place.officers;
        let first = place.invite("wang").await;
        assert!(
            o.add("wang3", "L. Wang", [OfficerRole::Clerk].into(), NOW).await.is_err(),
            "one title for two"
        );
        let other = o.add("wang2", "L. Wang, window 2", [OfficerRole::Clerk].into(), NOW).await.unwrap();
        assert!(matches!(
            o.add("wang", "x", [OfficerRole::Data].into(), NOW).await,
            Err(OfficerError::Exists)
        ));
        let long = "x".repeat(65);
        for (name, title) in
            [("w", "x"), ("Wang", "x"), ("wang/x", "x"), ("li", ""), ("li", &long), ("li", "a\nb")]
        {
            let added = o.add(name, title, [OfficerRole::Data].into(), NOW).await;
            assert!(matches!(added, Err(OfficerError::Invalid(_))), "{name} {title}");
        }
        assert!(matches!(o.add("li", "Li", BTreeSet::new(), NOW).await, Err(OfficerError::Invalid(_))));
        // somebody else's code, and one that is too old
        assert!(matches!(o.enrolment("wang", &other, NOW).await, Err(OfficerError::Wrong)));
        let late = NOW + INVITED_FOR_MS + 1;
        assert!(matches!(o.enrolment("wang", &first, late).await, Err(OfficerError::Wrong)));
        assert_eq!(o.list(late).await.unwrap()[0].state, "expired");
        // all at once with one code: one of them is let in
        let third = o.add("zhao", "Zhao", [OfficerRole::Clerk].into(), NOW).await.unwrap();
        let zhao = place.authenticator("zhao", &third).await;
        o.take_up("zhao", &third, SAID, &zhao(NOW), NOW).await.unwrap();
        let (at, shown) = (NOW + 60_000, zhao(NOW + 60_000));
        let tries = [(); 4].map(|()| o.sign_in("zhao", SAID, &shown, at));
        let [a, b, c, d] = tries;
        let (a, b, c, d) = tokio::join!(a, b, c, d);
        assert_eq!([a, b, c, d].iter().filter(|r| r.is_ok()).count(), 1);
        assert!(o.serves("zhao").await && !o.serves("wang").await);
        o.remove("zhao").await.unwrap();
        // invited anew, the phone and the passphrase of before serve no more
        let shows = place.authenticator("wang", &first).await;
        o.take_up("wang", &first, SAID, &shows(NOW), NOW).await.unwrap();
        let second = o.reset("wang", NOW).await.unwrap();
        assert_eq!(o.list(NOW).await.unwrap()[0].state, "invited");
        let later = NOW + 60_000;
        assert!(matches!(o.sign_in("wang", SAID, &shows(later), later).await, Err(OfficerError::Wrong)));
        let anew = place.authenticator("wang", &second).await;
        assert_ne!(anew(later), shows(later));
        // who goes takes nobody along
        o.remove("wang").await.unwrap();
        assert!(matches!(o.remove("wang").await, Err(OfficerError::Unknown)));
        let left: Vec<_> = o.list(NOW).await.unwrap().into_iter().map(|o| o.name).collect();
        assert_eq!(left, ["wang2"]);
    }
}
