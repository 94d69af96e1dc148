//! One consensus engine for each epoch: entered when the last block of the epoch before is final.
//!
//! A node that is behind hears votes of an epoch it does not know. It asks whoever sent them for the last block of its own
//! epoch, enters the next, and so on.

use crate::{
    app::{DRIFT_MS_MAX, Engine},
    block::{Block, Ctx, D, engine_key},
    engine::{BUFFER, Key, MAILBOX, Track},
    handle::Shared,
    rosters::Peers,
    scheme::Scheme,
};
use commonware_consensus::{
    CertifiableAutomaton, Relay, Reporter,
    marshal::{core::Mailbox, standard::Standard},
    simplex::{self, Floor, ForwardPolicy, Plan, SkipPolicy, elector::RoundRobin, types::Activity},
    types::{Epoch, Height, ViewDelta},
};
use commonware_cryptography::{Digestible as _, Sha256};
use commonware_p2p::{
    Blocker, Channel, Message, Receiver, Sender,
    utils::mux::{Builder as _, MuxHandle, Muxer},
};
use commonware_parallel::Sequential;
use commonware_runtime::{Handle, buffer::paged::CacheRef};
use commonware_storage::metadata::{self, Metadata};
use commonware_utils::{NZDuration, channel::mpsc, sequence::U64, vec::NonEmptyVec};
use crypto::VoteKeys;
use model::{NodeKey, PROTOCOLS};
use std::{sync::Arc, time::Duration};
use tracing::{error, info, warn};

/// What drives consensus from epoch to epoch.
pub(crate) struct Epochs<E: Engine, A, B> {
    pub(crate) context: E,
    pub(crate) shared: Arc<Shared>,
    pub(crate) me: NodeKey,
    pub(crate) keys: Arc<dyn VoteKeys>,
    pub(crate) marshal: Mailbox<Scheme, Standard<Block>>,
    pub(crate) automaton: A,
    pub(crate) blocker: B,
    pub(crate) peers: Peers,
    pub(crate) track: Track,
    pub(crate) cache: CacheRef,
    /// Whether this node has never voted with the key it has.
    pub(crate) first_start: bool,
    /// The first epoch whose consensus journal may still be there.
    pub(crate) unswept: u64,
}

/// The channels of consensus, parted by epoch.
struct Channels<S: Sender> {
    votes: MuxHandle<S>,
    votes_ahead: mpsc::Receiver<(Channel, Message<S::PublicKey>)>,
    certificates: MuxHandle<S>,
    certificates_ahead: mpsc::Receiver<(Channel, Message<S::PublicKey>)>,
    resolver: MuxHandle<S>,
}

/// The running engine of an epoch; ends with its drop.
struct Running {
    epoch: u64,
    engine: Handle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.engine.abort();
    }
}

/// After so long without news an epoch's end is asked for.
const SILENCE: Duration = Duration::from_secs(5);

/// The only key of the record that says whether this disk knows what its node voted.
const VOTED: u64 = 0;

type Voted<E> = Metadata<E, U64, u64>;

impl<E, A, B> Epochs<E, A, B>
where
    E: Engine,
    A: CertifiableAutomaton<Context = Ctx, Digest = D>
        + Relay<Digest = D, PublicKey = Key, Plan = Plan<Key>>
        + Reporter<Activity = Activity<Scheme, D>>
        + Clone,
    B: Blocker<PublicKey = Key>,
{
    /// Runs engines until one fails or the ledger goes on by rules this program does not know.
    pub(crate) async fn run<S, R>(mut self, first: u64, votes: (S, R), certificates: (S, R), resolver: (S, R))
    where
        S: Sender<PublicKey = Key>,
        R: Receiver<PublicKey = Key>,
    {
        let mut channels = self.part(votes, certificates, resolver);
        let started_ms = self.shared.host.now_ms();
        let config = metadata::Config { partition: "voted".to_string(), codec_config: () };
        let opened = Voted::init(self.context.child("voted"), config).await;
        let mut voted = Some(opened.expect("the record of votes opens"));
        // somebody who is ahead, and of whom the end of an epoch can be had
        let mut ahead: Option<(u64, Key)> = None;
        let mut running = match self.enter(first, started_ms, &mut voted, &mut channels).await {
            Some(running) => running,
            None => return,
        };
        loop {
            self.sweep(running.epoch).await;
            let shared = self.shared.clone();
            let heard = tokio::select! {
                biased;
                reached = shared.epoch.reached(running.epoch + 1) => {
                    if !reached {
                        return;
                    }
                    let next = self.shared.rosters.newest().0;
                    let Some(entered) = self.enter(next, started_ms, &mut voted, &mut channels).await else {
                        return;
                    };
                    running = entered;
                    ahead.clone()
                }
                () = shared.host.sleep(SILENCE) => {
                    self.ask_for_the_end(running.epoch);
                    None
                }
                ended = &mut running.engine => {
                    // without an error only because the node stops
                    if let Err(e) = ended {
                        error!(epoch = running.epoch, error = %e, "the consensus engine of this epoch failed");
                    }
                    return;
                }
                Some((epoch, (from, _))) = channels.votes_ahead.recv() => Some((epoch, from)),
                Some((epoch, (from, _))) = channels.certificates_ahead.recv() => Some((epoch, from)),
            };
            if let Some((epoch, from)) = heard.filter(|(epoch, _)| *epoch > running.epoch) {
                let last = self.shared.rules.genesis.last_of(running.epoch);
                self.marshal.hint_finalized(Height::new(last), NonEmptyVec::new(from.clone()));
                ahead = Some((epoch, from));
            }
        }
    }

    fn part<S, R>(&self, votes: (S, R), certificates: (S, R), resolver: (S, R)) -> Channels<S>
    where
        S: Sender<PublicKey = Key>,
        R: Receiver<PublicKey = Key>,
    {
        let (mux, votes, votes_ahead) =
            Muxer::builder(self.context.child("votes"), votes.0, votes.1).with_backup().build();
        mux.start();
        let (mux, certificates, certificates_ahead) =
            Muxer::builder(self.context.child("certificates"), certificates.0, certificates.1)
                .with_backup()
                .build();
        mux.start();
        let (mux, resolver) = Muxer::new(self.context.child("resolver"), resolver.0, resolver.1);
        mux.start();
        Channels { votes, votes_ahead, certificates, certificates_ahead, resolver }
    }

    async fn enter<S: Sender<PublicKey = Key>>(
        &mut self,
        epoch: u64,
        started_ms: u64,
        voted: &mut Option<Voted<E>>,
        channels: &mut Channels<S>,
    ) -> Option<Running> {
        let known = self.shared.rosters.of(epoch).expect("an epoch is entered once its roster is known");
        let roster = &known.roster;
        if !PROTOCOLS.contains(&roster.protocol) {
            error!(
                protocol = roster.protocol,
                epoch,
                "from this epoch on the ledger follows rules this program does not know (it knows up to {}); update it",
                PROTOCOLS.end()
            );
            return None;
        }
        let genesis = &self.shared.rules.genesis;
        let before = if epoch == 0 { 0 } else { genesis.last_of(epoch - 1) };
        let Some(last) = self.marshal.get_block(Height::new(before)).await else {
            error!(epoch, height = before, "the last block before this epoch is missing");
            return None;
        };
        self.peers.set(epoch, roster);
        let addresses = roster.members.iter();
        let addresses = addresses.filter_map(|m| Some((engine_key(&m.node_key).ok()?, m.address.clone())));
        (self.track)(epoch, addresses.collect());
        let begins_ms = last.inner().header.time_ms;
        // a disk without a record of votes may have lost them: what this key voted before is not to be contradicted
        let remembers = voted.as_ref().is_some_and(|v| v.get(&U64::new(VOTED)).is_some());
        // a block's time may be ahead of its proposer's clock, and that of this node's
        let began_since = begins_ms > started_ms + 2 * DRIFT_MS_MAX;
        let may_vote = remembers || self.first_start || began_since || model::planted("amnesia");
        let scheme = Scheme::of(&self.shared.rules.chain, roster, &self.me, &*self.keys, may_vote)
            .expect("a roster in force was checked");
        if scheme.votes() {
            let mut record = voted.take().expect("put back below");
            record.put(U64::new(VOTED), epoch);
            *voted = Some(record.sync().await.expect("the record of votes can be written"));
        }
        self.shared.note_voting(scheme.votes());
        let validator = roster.members.iter().any(|m| m.validator && m.node_key == self.me);
        if validator && !may_vote {
            warn!(
                epoch,
                "this validator's record of its votes is lost: it does not vote before the next epoch begins"
            );
        } else if validator && !scheme.votes() {
            error!(epoch, "this validator does not have the vote key of the roster: it does not vote");
        }
        let registered = (
            channels.votes.register(epoch).await,
            channels.certificates.register(epoch).await,
            channels.resolver.register(epoch).await,
        );
        let (Ok(votes), Ok(certificates), Ok(resolver)) = registered else { return None };
        let engine = simplex::Engine::new(
            self.context.child("simplex").with_attribute("epoch", epoch),
            simplex::Config {
                scheme,
                elector: RoundRobin::<Sha256>::default(),
                blocker: self.blocker.clone(),
                automaton: self.automaton.clone(),
                relay: self.automaton.clone(),
                reporter: self.automaton.clone(),
                strategy: Sequential,
                partition: partition(epoch),
                mailbox_size: MAILBOX,
                epoch: Epoch::new(epoch),
                floor: Floor::Genesis(last.digest()),
                replay_buffer: BUFFER,
                write_buffer: BUFFER,
                page_cache: self.cache.clone(),
                leader_timeout: Duration::from_millis(1500),
                certification_timeout: Duration::from_secs(3),
                timeout_retry: Duration::from_millis(500),
                view_retention: ViewDelta::new(64),
                skip: SkipPolicy::Enabled {
                    timeout: Duration::from_secs(5),
                    budget: simplex::SkipBudget::Participants,
                },
                fetch_timeout: NZDuration!(Duration::from_secs(1)),
                fetch_retry_delay: Duration::from_millis(200),
                forward: ForwardPolicy::Disabled,
                track_historical_votes: false,
            },
        );
        info!(epoch, validators = roster.validators().len(), "epoch entered");
        Some(Running { epoch, engine: engine.start(votes, certificates, resolver) })
    }

    /// Where all but the end of an epoch is final here, somebody may have seen the end and be silent since: asks everybody.
    fn ask_for_the_end(&self, epoch: u64) {
        let last = self.shared.rules.genesis.last_of(epoch);
        if self.shared.height() + 1 != last {
            return;
        }
        let others = self.peers.others(&self.me);
        if let Ok(others) = NonEmptyVec::try_from(others) {
            self.marshal.hint_finalized(Height::new(last), others);
        }
    }

    /// Removes what consensus kept for epochs before this one whose end is durable here: until then a node that loses power
    /// goes back to them, and must know how it voted.
    async fn sweep(&mut self, running: u64) {
        if self.unswept >= running {
            return;
        }
        let processed = self.marshal.get_processed().await.map_or(0, |p| p.height().get());
        let durable = self.shared.rules.genesis.epoch_of(processed + 1).min(running);
        while self.unswept < durable {
            let _ = self.context.remove(&partition(self.unswept), None).await;
            self.unswept += 1;
        }
    }
}

fn partition(epoch: u64) -> String {
    format!("simplex-{epoch}")
}
