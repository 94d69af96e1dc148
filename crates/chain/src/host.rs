//! Where a node's tasks run and what time it is there: this machine, or a simulated one.

use crate::app::Engine;
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::Notify;

type Task = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

trait Platform: Send + Sync + 'static {
    fn now_ms(&self) -> u64;
    fn steady(&self) -> Duration;
    fn sleep(&self, time: Duration) -> Task;
    fn spawn(&self, task: Task);
}

/// Time and tasks of one node. Cloning is cheap. Everything a node does waits and runs through it, so that a whole
/// consortium can run in one deterministic process.
#[derive(Clone)]
pub struct Host(Arc<dyn Platform>);

impl Host {
    /// This machine: the tokio runtime of the caller and the operating system's clock.
    pub fn of_machine() -> Self {
        Self(Arc::new(Machine { runtime: tokio::runtime::Handle::current(), begun: Instant::now() }))
    }

    /// Nowhere: time stands still and nothing runs. For what needs neither.
    pub(crate) fn unmoving() -> Self {
        Self(Arc::new(Nowhere))
    }

    /// The engine's own runtime, with a clock that is off by `skew_ms`: what simulations run on.
    pub fn of_engine<E: Engine>(context: E, skew_ms: Arc<AtomicI64>) -> Self {
        let begun = context.current();
        Self(Arc::new(Simulated { context, begun, skew_ms }))
    }

    /// Milliseconds since 1970 by this node's clock.
    pub fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    /// The time since this node started; never goes back.
    pub fn steady(&self) -> Duration {
        self.0.steady()
    }

    /// Waits.
    pub async fn sleep(&self, time: Duration) {
        self.0.sleep(time).await;
    }

    /// Runs a task beside the caller.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(Box::pin(task));
    }

    /// What a future yields, or nothing where it takes longer than this.
    pub async fn timeout<T>(&self, time: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut late = self.0.sleep(time);
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => Some(done),
            () = &mut late => None,
        }
    }
}

struct Nowhere;

impl Platform for Nowhere {
    fn now_ms(&self) -> u64 {
        0
    }

    fn steady(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) -> Task {
        Box::pin(std::future::pending())
    }

    fn spawn(&self, _: Task) {}
}

struct Machine {
    runtime: tokio::runtime::Handle,
    begun: Instant,
}

impl Platform for Machine {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }

    fn steady(&self) -> Duration {
        self.begun.elapsed()
    }

    fn sleep(&self, time: Duration) -> Task {
        let _entered = self.runtime.enter();
        Box::pin(tokio::time::sleep(time))
    }

    fn spawn(&self, task: Task) {
        self.runtime.spawn(task);
    }
}

struct Simulated<E> {
    context: E,
    begun: SystemTime,
    skew_ms: Arc<AtomicI64>,
}

impl<E: Engine> Platform for Simulated<E> {
    fn now_ms(&self) -> u64 {
        let now = self.context.current().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        (now + self.skew_ms.load(Ordering::SeqCst)).max(0) as u64
    }

    fn steady(&self) -> Duration {
        self.context.current().duration_since(self.begun).unwrap_or_default()
    }

    fn sleep(&self, time: Duration) -> Task {
        Box::pin(self.context.sleep(time))
    }

    fn spawn(&self, task: Task) {
        self.context.child("task").spawn(move |_| task);
    }
}

/// A number that only grows, and whoever waits for it. Waiters wake in the order they came.
#[derive(Default)]
pub struct Level {
    value: AtomicU64,
    grown: Notify,
}

/// What a closed [`Level`] stands at: nothing waits for it any more.
const CLOSED: u64 = u64::MAX;

impl Level {
    /// Where it stands.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::SeqCst)
    }

    /// Raises it, where that is higher.
    pub fn raise(&self, to: u64) {
        if self.value.fetch_max(to, Ordering::SeqCst) < to {
            self.grown.notify_waiters();
        }
    }

    /// Raises it by one.
    pub fn step(&self) {
        let _ = self.value.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |v| (v != CLOSED).then(|| v + 1));
        self.grown.notify_waiters();
    }

    /// Ends all waiting: it will not grow any more.
    pub fn close(&self) {
        self.raise(CLOSED);
    }

    /// Waits until it stands at least at `least`; false where it was closed instead.
    pub async fn reached(&self, least: u64) -> bool {
        loop {
            let grown = self.grown.notified();
            let now = self.get();
            if now >= least {
                return now != CLOSED;
            }
            grown.await;
        }
    }
}
