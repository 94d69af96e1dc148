//! Commands that wait to be ordered: verified once, bounded, drawn fairly from every department.

use crate::{
    Host,
    block::{Admitted, BLOCK_BYTES_MAX, BLOCK_COMMANDS_MAX},
};
use ledger::Rules;
use model::{CommandId, DepartmentId, Digest, PublicKey, Roster};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::Notify;

/// How many commands of one department may wait at a node.
const WAITING_MAX_PER_DEPARTMENT: usize = 20_000;
/// How many bytes of one department's commands may wait at a node.
const WAITING_BYTES_MAX_PER_DEPARTMENT: usize = 32 << 20;
/// How many verified fingerprints are remembered after their command was ordered.
const REMEMBERED: usize = 100_000;

/// Why a node does not take a command in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not the canonical bytes of a command of at most 64 KiB.
    #[error("not a command: malformed or larger than 64 KiB")]
    Malformed,
    /// Another ledger, another suite, or no member.
    #[error("the command is of another ledger or suite, or its signer is no member")]
    Foreign,
    /// The signature does not verify.
    #[error("the command's signature does not verify")]
    Signature,
    /// Expired, or its expiry lies too far ahead.
    #[error("the command has expired, or its expiry lies more than 24 hours ahead")]
    Expired,
    /// The signer has too many commands waiting.
    #[error("the department has too many commands waiting; send them again later")]
    Busy,
}

impl Rejected {
    /// The stable code used in APIs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Foreign => "foreign",
            Self::Signature => "bad_signature",
            Self::Expired => "expired",
            Self::Busy => "busy",
        }
    }
}

#[derive(Default)]
struct Queue {
    order: VecDeque<CommandId>,
    bytes: usize,
}

struct Waiting {
    command: Arc<Admitted>,
    /// The key its signature was verified with.
    key: PublicKey,
    /// The height of the newest block seen to carry it, where there is one.
    carried_at: Option<u64>,
    /// Submitted here, so this node tells the others again if it is not ordered soon.
    own: bool,
    since: Duration,
}

#[derive(Default)]
struct Inner {
    waiting: BTreeMap<CommandId, Waiting>,
    queues: BTreeMap<DepartmentId, Queue>,
    /// What was verified, and with which key: another roster may give its signer another.
    verified: HashSet<(Digest, PublicKey)>,
    verified_order: VecDeque<(Digest, PublicKey)>,
    /// Commands that are final, so that a late copy of one does not wait again.
    done: HashSet<CommandId>,
    done_order: VecDeque<CommandId>,
    /// Where the next draw begins, for fairness.
    turn: usize,
}

/// The pool of one node.
#[derive(Clone)]
pub(crate) struct Pool {
    rules: Rules,
    host: Host,
    inner: Arc<Mutex<Inner>>,
    pub(crate) arrived: Arc<Notify>,
}

impl Pool {
    pub(crate) fn new(rules: Rules, host: Host) -> Self {
        Self { rules, host, inner: Arc::default(), arrived: Arc::new(Notify::new()) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// Checks commands as one batch and takes in the good ones. One verdict for each, in order.
    pub(crate) fn admit(
        &self,
        roster: &Roster,
        commands: Vec<Option<Admitted>>,
        now_ms: u64,
        own: bool,
    ) -> Vec<Result<Arc<Admitted>, Rejected>> {
        let mut verdicts: Vec<Result<Arc<Admitted>, Rejected>> = Vec::with_capacity(commands.len());
        let mut keys = vec![None; commands.len()];
        let mut to_verify = Vec::new();
        {
            let inner = self.lock();
            for (i, command) in commands.into_iter().enumerate() {
                let checked = command.ok_or(Rejected::Malformed).and_then(|c| {
                    let key = self.rules.admit(roster, &c.signed).ok_or(Rejected::Foreign)?;
                    let expires = c.signed.command.expires_ms;
                    if expires < now_ms || expires > now_ms.saturating_add(ledger::COMMAND_LIFETIME_MS_MAX) {
                        return Err(Rejected::Expired);
                    }
                    keys[i] = Some(key);
                    if !inner.verified.contains(&(c.fingerprint, key)) {
                        to_verify.push((i, key));
                    }
                    Ok(Arc::new(c))
                });
                verdicts.push(checked);
            }
        }
        let items: Vec<_> = to_verify
            .iter()
            .map(|(i, key)| (*key, &verdicts[*i].as_ref().expect("only good ones are verified").signed))
            .collect();
        let good = verify(&items);
        for ((i, _), good) in to_verify.iter().zip(good) {
            if !good {
                verdicts[*i] = Err(Rejected::Signature);
            }
        }
        let mut inner = self.lock();
        let mut any = false;
        for (verdict, key) in verdicts.iter_mut().zip(keys) {
            let (Ok(command), Some(key)) = (&*verdict, key) else { continue };
            match inner.insert(command.clone(), key, own, self.host.steady()) {
                Ok(()) => any = true,
                Err(rejected) => *verdict = Err(rejected),
            }
        }
        drop(inner);
        if any {
            self.arrived.notify_waiters();
        }
        verdicts
    }

    /// Verifies the commands of a peer's block, looking up those this node verified before.
    pub(crate) fn verify(&self, roster: &Roster, commands: &[Arc<Admitted>]) -> bool {
        let mut unknown = Vec::new();
        {
            let inner = self.lock();
            for command in commands {
                let Some(key) = self.rules.admit(roster, &command.signed) else { return false };
                if !inner.verified.contains(&(command.fingerprint, key)) {
                    unknown.push((key, command));
                }
            }
        }
        let items: Vec<_> = unknown.iter().map(|(key, c)| (*key, &c.signed)).collect();
        if !verify(&items).into_iter().all(|good| good) {
            return false;
        }
        let mut inner = self.lock();
        for (key, command) in unknown {
            inner.remember((command.fingerprint, key));
        }
        true
    }

    /// Draws commands for a block on top of `parent`, in turns over the departments, oldest first; only those that were
    /// verified with the key their signer has in the roster in force.
    pub(crate) fn draw(&self, roster: &Roster, parent: u64, finalized: u64) -> Vec<Arc<Admitted>> {
        let mut inner = self.lock();
        inner.turn = inner.turn.wrapping_add(1);
        let turn = inner.turn;
        let mut cursors: Vec<_> = inner.queues.values().map(|q| q.order.iter()).collect();
        if cursors.is_empty() {
            return Vec::new();
        }
        let shift = turn % cursors.len();
        cursors.rotate_left(shift);
        let (mut drawn, mut bytes, mut open) = (Vec::new(), 0, true);
        while open && drawn.len() < BLOCK_COMMANDS_MAX {
            open = false;
            for cursor in &mut cursors {
                let eligible = cursor
                    .by_ref()
                    .map(|id| &inner.waiting[id])
                    .filter(|w| self.rules.admit(roster, &w.command.signed) == Some(w.key))
                    .find(|w| !w.carried_at.is_some_and(|h| h > finalized && h <= parent));
                let Some(waiting) = eligible else { continue };
                if bytes + waiting.command.bytes.len() > BLOCK_BYTES_MAX || drawn.len() == BLOCK_COMMANDS_MAX
                {
                    return drawn;
                }
                bytes += waiting.command.bytes.len();
                drawn.push(waiting.command.clone());
                open = true;
            }
        }
        drawn
    }

    /// Notes that a block that may become final carries these commands.
    pub(crate) fn carried(&self, height: u64, commands: impl Iterator<Item = CommandId>) {
        let mut inner = self.lock();
        for id in commands {
            if let Some(waiting) = inner.waiting.get_mut(&id) {
                waiting.carried_at = Some(height);
            }
        }
    }

    /// How many commands wait that no block since `finalized` carries.
    pub(crate) fn fresh(&self, finalized: u64) -> usize {
        let inner = self.lock();
        inner.waiting.values().filter(|w| w.carried_at.is_none_or(|h| h <= finalized)).take(256).count()
    }

    /// Forgets commands that are final.
    pub(crate) fn settle<'a>(&self, commands: impl Iterator<Item = &'a Arc<Admitted>>) {
        let mut inner = self.lock();
        let mut touched = BTreeSet::new();
        for command in commands {
            inner.finish(command.id);
            if inner.waiting.remove(&command.id).is_some() {
                let queue = inner.queues.get_mut(&command.signed.command.signer).expect("its queue exists");
                queue.bytes -= command.bytes.len();
                touched.insert(command.signed.command.signer.clone());
            }
        }
        let Inner { waiting, queues, .. } = &mut *inner;
        for department in touched {
            let queue = queues.get_mut(&department).expect("its queue exists");
            queue.order.retain(|id| waiting.contains_key(id));
        }
    }

    /// Drops what has expired or whose signer no longer has the key it was verified with, and returns own commands that have
    /// waited longer than `after` for another telling.
    pub(crate) fn stale(&self, roster: &Roster, now_ms: u64, after: Duration) -> Vec<Arc<Admitted>> {
        let mut inner = self.lock();
        let Inner { waiting, queues, .. } = &mut *inner;
        waiting.retain(|_, w| {
            let lives = w.command.signed.command.expires_ms >= now_ms
                && self.rules.admit(roster, &w.command.signed) == Some(w.key);
            if !lives && let Some(queue) = queues.get_mut(&w.command.signed.command.signer) {
                queue.bytes -= w.command.bytes.len();
            }
            lives
        });
        for queue in queues.values_mut() {
            queue.order.retain(|id| waiting.contains_key(id));
        }
        let now = self.host.steady();
        let mut stale = Vec::new();
        for w in waiting.values_mut() {
            if w.own && !model::planted("never_retold") && now.saturating_sub(w.since) > after {
                w.since = now;
                stale.push(w.command.clone());
            }
        }
        stale
    }

    /// How many commands wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().waiting.len()
    }
}

fn verify(items: &[(model::PublicKey, &model::SignedCommand)]) -> Vec<bool> {
    if model::planted("skip_signatures") {
        return vec![true; items.len()];
    }
    crypto::verify_commands(items)
}

impl Inner {
    fn insert(
        &mut self,
        command: Arc<Admitted>,
        key: PublicKey,
        own: bool,
        now: Duration,
    ) -> Result<(), Rejected> {
        if self.done.contains(&command.id) {
            return Ok(());
        }
        if let Some(waiting) = self.waiting.get_mut(&command.id) {
            waiting.own |= own;
            return Ok(());
        }
        let queue = self.queues.entry(command.signed.command.signer.clone()).or_default();
        let full = queue.order.len() >= WAITING_MAX_PER_DEPARTMENT
            || queue.bytes + command.bytes.len() > WAITING_BYTES_MAX_PER_DEPARTMENT;
        if full {
            return Err(Rejected::Busy);
        }
        queue.order.push_back(command.id);
        queue.bytes += command.bytes.len();
        self.remember((command.fingerprint, key));
        let waiting = Waiting { command: command.clone(), key, carried_at: None, own, since: now };
        self.waiting.insert(command.id, waiting);
        Ok(())
    }

    fn finish(&mut self, id: CommandId) {
        if self.done.insert(id) {
            self.done_order.push_back(id);
            if self.done_order.len() > REMEMBERED
                && let Some(old) = self.done_order.pop_front()
            {
                self.done.remove(&old);
            }
        }
    }

    fn remember(&mut self, verified: (Digest, PublicKey)) {
        if self.verified.insert(verified) {
            self.verified_order.push_back(verified);
            if self.verified_order.len() > REMEMBERED
                && let Some(old) = self.verified_order.pop_front()
            {
                self.verified.remove(&old);
            }
        }
    }
}
