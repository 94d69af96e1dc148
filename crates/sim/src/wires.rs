//! A rough network: what reaches a node off the consensus channels may be lost, late, doubled, out of order or damaged.

use commonware_p2p::{Message, Receiver};
use commonware_runtime::IoBuf;
use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

/// How rough a network is: each is a chance in a thousand.
#[derive(Default)]
pub struct Roughness {
    /// That a message is doubled.
    pub doubled: AtomicU32,
    /// That it is held back until after the next.
    pub held: AtomicU32,
    /// That one of its bytes is changed.
    pub damaged: AtomicU32,
}

fn happens(chance: &AtomicU32) -> bool {
    u32::from_le_bytes(crypto::random()) % 1000 < chance.load(SeqCst)
}

/// A receiver on a rough network.
pub struct Rough<R: Receiver> {
    inner: R,
    rough: Arc<Roughness>,
    /// Whether this channel bears damage: consensus channels are authenticated streams, where damage ends the connection.
    all: bool,
    ready: VecDeque<Message<R::PublicKey>>,
    held: Option<Message<R::PublicKey>>,
}

impl<R: Receiver> Rough<R> {
    /// A rough receiver; only where `all` may a message be damaged or come out of order.
    pub fn new(inner: R, rough: Arc<Roughness>, all: bool) -> Self {
        Self { inner, rough, all, ready: VecDeque::new(), held: None }
    }
}

impl<R: Receiver> std::fmt::Debug for Rough<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rough")
    }
}

impl<R: Receiver> Receiver for Rough<R> {
    type Error = R::Error;
    type PublicKey = R::PublicKey;

    async fn recv(&mut self) -> Result<Message<R::PublicKey>, R::Error> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(message);
            }
            let (from, bytes) = self.inner.recv().await?;
            let mut bytes: Vec<u8> = bytes.as_ref().to_vec();
            if !self.all {
                return Ok((from, IoBuf::from(bytes)));
            }
            if happens(&self.rough.damaged) && !bytes.is_empty() {
                let at = usize::from_le_bytes(crypto::random()) % bytes.len();
                bytes[at] ^= 1 << (at % 8);
            }
            let message = (from, IoBuf::from(bytes));
            if happens(&self.rough.doubled) {
                self.ready.push_back(message.clone());
            }
            if self.held.is_none() && happens(&self.rough.held) {
                self.held = Some(message);
                continue;
            }
            self.ready.push_back(message);
            self.ready.extend(self.held.take());
        }
    }

    fn capacity(&self) -> NonZeroUsize {
        self.inner.capacity()
    }
}
