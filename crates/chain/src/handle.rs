//! What the rest of a node sees of the ledger: submit, follow, read, prove.

use crate::{
    block::{Admitted, Block, leaves},
    pool::{Pool, Rejected},
};
use bytes::Bytes;
use ledger::{Key, Position, Rules};
use model::*;
use proof::{EventProof, Finality, Role, Vote};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

/// How many final blocks are kept in memory for followers.
const RECENT: usize = 512;

/// Why the ledger could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChainError {
    /// The command was not taken in.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The engine has stopped.
    #[error("this node's ledger engine has stopped; see its log, then start the node again")]
    Stopped,
    /// The command was not ordered in time.
    #[error("the ledger did not order the command within {0:?}: too few validators may be up")]
    TimedOut(Duration),
    /// No such command, or not final here yet.
    #[error("no such command is final on this node")]
    Unknown,
}

/// A sealed message from another department's node, off the ledger.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The department whose node sent it, as its connection proved.
    pub from: DepartmentId,
    /// What it sent.
    pub bytes: Bytes,
}

/// The events of one final block.
#[derive(Debug, Clone)]
pub struct BlockEvents {
    /// The height.
    pub height: u64,
    /// The block's time in milliseconds since 1970.
    pub time_ms: u64,
    /// The hash of the header.
    pub hash: Digest,
    /// The events in their order.
    pub events: Vec<Event>,
}

pub(crate) enum Request {
    Block(u64, oneshot::Sender<Option<Block>>),
    Finality(u64, oneshot::Sender<Option<Finality>>),
    Record(Digest, oneshot::Sender<Option<Vec<u8>>>),
    Metrics(oneshot::Sender<String>),
    Tell(Vec<Arc<Admitted>>),
    Post(DepartmentId, Bytes),
    Stop,
}

/// What the engine's tasks and the handles share within one node.
pub(crate) struct Shared {
    pub(crate) rules: Rules,
    pub(crate) pool: Pool,
    head: watch::Sender<u64>,
    recent: Mutex<VecDeque<Block>>,
    waiters: Mutex<HashMap<CommandId, Vec<oneshot::Sender<Event>>>>,
    last_block: Mutex<Instant>,
}

impl Shared {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            pool: Pool::new(rules.clone()),
            rules,
            head: watch::Sender::new(0),
            recent: Mutex::default(),
            waiters: Mutex::default(),
            last_block: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn height(&self) -> u64 {
        *self.head.borrow()
    }

    pub(crate) fn note_block(&self) {
        *self.last_block.lock().expect("no holder panics") = Instant::now();
    }

    pub(crate) fn since_block(&self) -> Duration {
        self.last_block.lock().expect("no holder panics").elapsed()
    }

    /// Takes note of a final block. May be called again for the same block after a restart.
    pub(crate) fn finalized(&self, block: &Block) {
        let height = block.header.height;
        self.pool.settle(block.entries.iter().map(|e| &e.command));
        {
            let mut recent = self.recent.lock().expect("no holder panics");
            recent.push_back(block.clone());
            if recent.len() > RECENT {
                recent.pop_front();
            }
        }
        {
            let mut waiters = self.waiters.lock().expect("no holder panics");
            if !waiters.is_empty() {
                for (index, entry) in block.entries.iter().enumerate() {
                    for waiter in waiters.remove(&entry.command.id).unwrap_or_default() {
                        let _ = waiter.send(event(block, index));
                    }
                }
                waiters.retain(|_, list| {
                    list.retain(|w| !w.is_closed());
                    !list.is_empty()
                });
            }
        }
        self.head.send_if_modified(|head| {
            let grew = height > *head;
            *head = height.max(*head);
            grew
        });
    }

    fn recent(&self, height: u64) -> Option<Block> {
        let recent = self.recent.lock().expect("no holder panics");
        let first = recent.front()?.header.height;
        recent.get(height.checked_sub(first)? as usize).filter(|b| b.header.height == height).cloned()
    }
}

fn event(block: &Block, index: usize) -> Event {
    let entry = &block.entries[index];
    Event {
        height: block.header.height,
        index: index as u32,
        time_ms: block.header.time_ms,
        id: entry.command.id,
        command: entry.command.signed.clone(),
        outcome: entry.outcome.clone(),
    }
}

/// A handle on this node's ledger. Cloning is cheap.
#[derive(Clone)]
pub struct Chain {
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
}

impl Chain {
    /// The rules: chain ID and genesis.
    pub fn rules(&self) -> &Rules {
        &self.shared.rules
    }

    /// The height of the newest block this node knows to be final.
    pub fn height(&self) -> u64 {
        self.shared.height()
    }

    /// How many commands wait at this node.
    pub fn waiting(&self) -> usize {
        self.shared.pool.len()
    }

    /// Takes commands in to be ordered, given as their canonical bytes; a verdict for each. Taking in the same command
    /// twice is harmless: the ledger orders it once.
    pub fn submit(&self, commands: Vec<Bytes>) -> Vec<Result<CommandId, Rejected>> {
        let decoded = commands.into_iter().map(Admitted::decode).collect();
        let verdicts = self.shared.pool.admit(decoded, crate::app::now_ms(), true);
        let told: Vec<_> = verdicts.iter().filter_map(|v| v.as_ref().ok().cloned()).collect();
        if !told.is_empty() {
            let _ = self.requests.send(Request::Tell(told));
        }
        verdicts.into_iter().map(|v| v.map(|c| c.id)).collect()
    }

    /// Submits commands and waits until each is final.
    pub async fn submit_and_wait(
        &self,
        commands: Vec<Bytes>,
        patience: Duration,
    ) -> Vec<Result<Event, ChainError>> {
        let decoded: Vec<_> = commands.iter().map(|c| Admitted::decode(c.clone()).map(|a| a.id)).collect();
        let mut waiting = Vec::with_capacity(commands.len());
        {
            let mut waiters = self.shared.waiters.lock().expect("no holder panics");
            for id in &decoded {
                let (sender, receiver) = oneshot::channel();
                if let Some(id) = id {
                    waiters.entry(*id).or_default().push(sender);
                }
                waiting.push(receiver);
            }
        }
        let verdicts = self.submit(commands);
        let deadline = tokio::time::Instant::now() + patience;
        let mut results = Vec::with_capacity(verdicts.len());
        for (verdict, receiver) in verdicts.into_iter().zip(waiting) {
            results.push(match verdict {
                Err(rejected) => Err(rejected.into()),
                Ok(id) => match tokio::time::timeout_at(deadline, receiver).await {
                    Ok(Ok(event)) => Ok(event),
                    Ok(Err(_)) => Err(ChainError::Stopped),
                    // ordered before this call, perhaps: then it is on record
                    Err(_) => self.event(id).await.map_err(|_| ChainError::TimedOut(patience)),
                },
            });
        }
        results
    }

    /// The events from a height on, block by block, each block once and in order.
    pub fn events(&self, from: u64) -> Events {
        Events { chain: self.clone(), head: self.shared.head.subscribe(), next: from.max(1) }
    }

    /// Waits until a height is final here.
    pub async fn reached(&self, height: u64) {
        let mut head = self.shared.head.subscribe();
        let _ = head.wait_for(|h| *h >= height).await;
    }

    async fn block(&self, height: u64) -> Result<Block, ChainError> {
        if let Some(block) = self.shared.recent(height) {
            return Ok(block);
        }
        let (sender, receiver) = oneshot::channel();
        self.requests.send(Request::Block(height, sender)).map_err(|_| ChainError::Stopped)?;
        receiver.await.map_err(|_| ChainError::Stopped)?.ok_or(ChainError::Unknown)
    }

    /// The events of one final block.
    pub async fn block_events(&self, height: u64) -> Result<BlockEvents, ChainError> {
        let block = self.block(height).await?;
        Ok(BlockEvents {
            height,
            time_ms: block.header.time_ms,
            hash: crypto::header_hash(&block.header),
            events: (0..block.entries.len()).map(|i| event(&block, i)).collect(),
        })
    }

    /// The event of a final command.
    pub async fn event(&self, id: CommandId) -> Result<Event, ChainError> {
        let position = self.position(id).await?;
        let block = self.block(position.height).await?;
        Ok(event(&block, position.index as usize))
    }

    async fn position(&self, id: CommandId) -> Result<Position, ChainError> {
        self.record(&Key::Command(id)).await?.ok_or(ChainError::Unknown)
    }

    /// Reads a record of the state.
    pub async fn record<T: borsh::BorshDeserialize>(&self, key: &Key) -> Result<Option<T>, ChainError> {
        let (sender, receiver) = oneshot::channel();
        self.requests.send(Request::Record(key.digest(), sender)).map_err(|_| ChainError::Stopped)?;
        let bytes = receiver.await.map_err(|_| ChainError::Stopped)?;
        Ok(bytes.map(|b| decode(&b).expect("the state holds only what the ledger encoded")))
    }

    /// Proves that a command was ordered and what came of it.
    pub async fn prove(&self, id: CommandId, role: Role) -> Result<EventProof, ChainError> {
        let position = self.position(id).await?;
        let block = self.block(position.height).await?;
        let leaves = leaves(&block.entries);
        let index = position.index as usize;
        let entry = &block.entries[index];
        let mut walk = Vec::new();
        let mut height = position.height;
        let finality = loop {
            let (sender, receiver) = oneshot::channel();
            self.requests.send(Request::Finality(height, sender)).map_err(|_| ChainError::Stopped)?;
            if let Some(finality) = receiver.await.map_err(|_| ChainError::Stopped)? {
                break finality;
            }
            height += 1;
            self.reached(height).await;
            walk.push(encode(&self.block(height).await?.header));
        };
        Ok(EventProof {
            role,
            command: entry.command.bytes.to_vec(),
            outcome: entry.outcome_bytes.clone(),
            index: position.index,
            size: block.entries.len() as u32,
            path: merkle::path(crypto::sha256, &leaves, index),
            header: encode(&block.header),
            walk,
            finality,
        })
    }

    /// Sends a sealed message to another department's node. It may be lost: whoever needs it asks again.
    pub fn post(&self, to: DepartmentId, letter: Vec<u8>) {
        let _ = self.requests.send(Request::Post(to, letter.into()));
    }

    /// The engine's metrics in the Prometheus text format.
    pub async fn metrics(&self) -> Result<String, ChainError> {
        let (sender, receiver) = oneshot::channel();
        self.requests.send(Request::Metrics(sender)).map_err(|_| ChainError::Stopped)?;
        receiver.await.map_err(|_| ChainError::Stopped)
    }

    /// Resolves when the engine has stopped, asked to or not.
    pub async fn stopped(&self) {
        self.requests.closed().await;
    }

    /// Stops the engine; what is final stays final.
    pub fn stop(&self) {
        let _ = self.requests.send(Request::Stop);
    }
}

/// The stream of final blocks.
pub struct Events {
    chain: Chain,
    head: watch::Receiver<u64>,
    next: u64,
}

impl Events {
    /// The next block, waiting for it where it is not final yet.
    pub async fn next(&mut self) -> Result<BlockEvents, ChainError> {
        let next = self.next;
        self.head.wait_for(|h| *h >= next).await.map_err(|_| ChainError::Stopped)?;
        let block = self.chain.block_events(next).await?;
        self.next += 1;
        Ok(block)
    }
}

/// Finality as receipts carry it.
pub(crate) fn finality_of(
    certificate: &commonware_consensus::simplex::types::Finalization<
        commonware_consensus::simplex::scheme::ed25519::Scheme,
        crate::block::D,
    >,
) -> Option<Finality> {
    let proposal = &certificate.proposal;
    let votes = certificate.certificate.signers.iter().zip(&certificate.certificate.signatures);
    let votes = votes
        .map(|(signer, signature)| {
            let signature: &[u8] = signature.get()?.as_ref();
            Some(Vote { signer: signer.get(), signature: signature.to_vec() })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Finality {
        epoch: proposal.round.epoch().get(),
        view: proposal.round.view().get(),
        parent_view: proposal.parent.get(),
        votes,
    })
}
