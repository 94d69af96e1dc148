//! A node's disk: its own part of the runtime's storage, with numbered persistence points at which the node can die.

use aho_corasick::AhoCorasick;
use commonware_runtime::{
    Blob, BlobVersion, Clock, Error, Handle, IoBufs, IoBufsMut, Metrics, Name, ReadOptions, Spawner, Storage,
    Supervisor, WriteOptions,
    signal::Signal,
    telemetry::metrics::{Metric, Registered},
};
use governor::clock::{Clock as GovernorClock, ReasonablyRealtime};
use rand_core::{TryCryptoRng, TryRng};
use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};
use tokio::sync::Notify;

/// Counts a node's persistence points and burns out at a chosen one: from then on nothing of this life persists.
pub struct Fuse {
    left: AtomicU64,
    /// A named point at which the node dies next.
    at: Mutex<Option<&'static str>>,
    passed: AtomicU64,
    dead: AtomicBool,
    /// Woken when the node dies at a persistence point.
    pub died: Notify,
    /// Bytes that must never reach a disk.
    canaries: AhoCorasick,
    /// What reached a disk all the same.
    pub leaked: Mutex<Vec<String>>,
    /// Everything that was ever opened on this disk, by its full name.
    opened: Mutex<BTreeSet<String>>,
}

impl Fuse {
    /// A fuse that holds.
    pub fn new(canaries: &[Vec<u8>]) -> Self {
        Self {
            left: AtomicU64::new(u64::MAX),
            at: Mutex::default(),
            passed: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            died: Notify::new(),
            canaries: AhoCorasick::new(canaries).expect("few and short"),
            leaked: Mutex::default(),
            opened: Mutex::default(),
        }
    }

    /// Lets the node die at the persistence point that comes after so many.
    pub fn burn_after(&self, points: u64) {
        self.left.store(points, SeqCst);
    }

    /// Lets the node die when it next comes to a named point.
    pub fn burn_at(&self, name: &'static str) {
        *self.at.lock().expect("no holder panics") = Some(name);
    }

    /// Forgets every death that was planned.
    pub fn spare(&self) {
        self.left.store(u64::MAX, SeqCst);
        self.at.lock().expect("no holder panics").take();
    }

    /// A persistence point with a name.
    pub async fn named_point(&self, name: &'static str) {
        {
            let mut at = self.at.lock().expect("no holder panics");
            if *at == Some(name) {
                at.take();
                self.left.store(0, SeqCst);
            }
        }
        self.point().await;
    }

    /// Everything that was ever opened on this disk; from here on it counts as new.
    pub fn take_opened(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.opened.lock().expect("no holder panics"))
    }

    /// A new life.
    pub fn renew(&self) {
        self.spare();
        self.dead.store(false, SeqCst);
    }

    /// How many points were passed in all lives.
    pub fn passed(&self) -> u64 {
        self.passed.load(SeqCst)
    }

    /// One persistence point; whoever meets it dead stays there until its task is gone.
    pub async fn point(&self) {
        self.passed.fetch_add(1, SeqCst);
        let burnt = self
            .left
            .fetch_update(SeqCst, SeqCst, |n| if n == u64::MAX { Some(n) } else { n.checked_sub(1) });
        if burnt.is_err() {
            self.dead.store(true, SeqCst);
            self.died.notify_one();
        }
        if self.dead.load(SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    /// Looks for people where none may be.
    pub fn look(&self, place: &str, bytes: &[u8]) {
        if self.canaries.is_match(bytes) {
            self.leaked.lock().expect("no holder panics").push(place.to_owned());
        }
    }
}

/// The engine's context with one node's own disk.
pub struct Disk<E> {
    inner: E,
    prefix: Arc<str>,
    fuse: Arc<Fuse>,
}

impl<E> Disk<E> {
    /// A context whose storage is kept under a prefix.
    pub fn new(inner: E, prefix: &str, fuse: Arc<Fuse>) -> Self {
        Self { inner, prefix: prefix.into(), fuse }
    }
}

impl<E: Supervisor> Supervisor for Disk<E> {
    fn name(&self) -> Name {
        self.inner.name()
    }

    fn child(&self, label: &'static str) -> Self {
        Self { inner: self.inner.child(label), prefix: self.prefix.clone(), fuse: self.fuse.clone() }
    }

    fn with_attribute(self, key: &'static str, value: impl std::fmt::Display) -> Self {
        Self { inner: self.inner.with_attribute(key, value), ..self }
    }
}

impl<E: Clock> Clock for Disk<E> {
    fn current(&self) -> SystemTime {
        self.inner.current()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static + use<E> {
        self.inner.sleep(duration)
    }

    fn sleep_until(&self, deadline: SystemTime) -> impl Future<Output = ()> + Send + 'static + use<E> {
        self.inner.sleep_until(deadline)
    }
}

impl<E: Clock> GovernorClock for Disk<E> {
    type Instant = SystemTime;

    fn now(&self) -> SystemTime {
        self.current()
    }
}

impl<E: Clock> ReasonablyRealtime for Disk<E> {}

impl<E: Metrics> Metrics for Disk<E> {
    fn register<N: Into<String>, H: Into<String>, M: Metric>(
        &self,
        name: N,
        help: H,
        metric: M,
    ) -> Registered<M> {
        self.inner.register(name, help, metric)
    }

    fn encode(&self) -> String {
        self.inner.encode()
    }
}

impl<E: TryRng> TryRng for Disk<E> {
    type Error = E::Error;

    fn try_next_u32(&mut self) -> Result<u32, E::Error> {
        self.inner.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, E::Error> {
        self.inner.try_next_u64()
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), E::Error> {
        self.inner.try_fill_bytes(into)
    }
}

impl<E: TryCryptoRng> TryCryptoRng for Disk<E> {}

impl<E: Spawner> Spawner for Disk<E> {
    fn shared(self, blocking: bool) -> Self {
        Self { inner: self.inner.shared(blocking), ..self }
    }

    fn dedicated(self) -> Self {
        Self { inner: self.inner.dedicated(), ..self }
    }

    fn spawn<F, Fut, T>(self, f: F) -> Handle<T>
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let Self { inner, prefix, fuse } = self;
        inner.spawn(move |inner| f(Self { inner, prefix, fuse }))
    }

    async fn stop(self, value: i32, timeout: Option<Duration>) -> Result<(), Error> {
        self.inner.stop(value, timeout).await
    }

    fn stopped(&self) -> Signal {
        self.inner.stopped()
    }
}

impl<E: Storage> Storage for Disk<E> {
    type Blob = File<E::Blob>;

    async fn open_versioned(
        &self,
        partition: &str,
        name: &[u8],
        versions: RangeInclusive<BlobVersion>,
    ) -> Result<(Self::Blob, u64, BlobVersion), Error> {
        self.fuse.point().await;
        let partition = format!("{}{partition}", self.prefix);
        self.fuse.opened.lock().expect("no holder panics").insert(partition.clone());
        let (inner, length, version) = self.inner.open_versioned(&partition, name, versions).await?;
        Ok((File { inner, place: partition.into(), fuse: self.fuse.clone() }, length, version))
    }

    async fn remove(&self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        self.fuse.point().await;
        self.inner.remove(&format!("{}{partition}", self.prefix), name).await
    }

    async fn scan(&self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        self.inner.scan(&format!("{}{partition}", self.prefix)).await
    }
}

/// A file on a node's disk.
pub struct File<B> {
    inner: B,
    place: Arc<str>,
    fuse: Arc<Fuse>,
}

impl<B: Blob> Blob for File<B> {
    async fn read_at_buf(
        &self,
        offset: u64,
        len: usize,
        bufs: impl Into<IoBufsMut> + Send,
        options: ReadOptions,
    ) -> Result<IoBufsMut, Error> {
        self.inner.read_at_buf(offset, len, bufs, options).await
    }

    async fn read_at(&self, offset: u64, len: usize, options: ReadOptions) -> Result<IoBufsMut, Error> {
        self.inner.read_at(offset, len, options).await
    }

    async fn write_at(
        &self,
        offset: u64,
        bufs: impl Into<IoBufs> + Send,
        options: WriteOptions,
    ) -> Result<(), Error> {
        self.fuse.point().await;
        let bytes = bufs.into().coalesce();
        self.fuse.look(&self.place, bytes.as_ref());
        self.inner.write_at(offset, bytes, options).await
    }

    async fn resize(&self, len: u64) -> Result<(), Error> {
        self.fuse.point().await;
        self.inner.resize(len).await
    }

    async fn sync(&self) -> Result<(), Error> {
        self.fuse.point().await;
        if model::planted("no_sync") && !self.place.contains("meta") {
            return Ok(());
        }
        let synced = self.inner.sync().await;
        self.fuse.point().await;
        synced
    }

    async fn start_sync(&self) -> Handle<()> {
        self.fuse.point().await;
        if model::planted("no_sync") && !self.place.contains("meta") {
            return Handle::ready(Ok(()));
        }
        self.inner.start_sync().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_found_wherever_they_stand_in_what_is_written() {
        let fuse = Fuse::new(&[b"11010519491231002X".to_vec(), "王小明".as_bytes().to_vec()]);
        fuse.look("clean", b"11010519491231002 X, and nobody else");
        fuse.look("empty", b"");
        assert!(fuse.leaked.lock().unwrap().is_empty());
        fuse.look("begin", b"11010519491231002X follows");
        fuse.look("end", "这里是王小明".as_bytes());
        assert_eq!(*fuse.leaked.lock().unwrap(), ["begin", "end"]);
        let looks_for_nobody = Fuse::new(&[]);
        looks_for_nobody.look("any", b"11010519491231002X");
        assert!(looks_for_nobody.leaked.lock().unwrap().is_empty());
    }
}
