//! A validator's vote keys: rotated by themselves, and destroyed when they are retired.

use crypto::{Credentials, VoteKeyFolder, VoteKeys as _};
use flow::Flow;
use gateway::Connected;
use model::{Body, Outcome, PublicKey, Roster};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tracing::{info, warn};

/// How long a new key may take to be on the ledger.
const PATIENCE: Duration = Duration::from_secs(60);

/// Destroys the keys this department no longer votes with and, every so many epochs, lets it vote with a fresh one.
pub(crate) async fn keep(flow: Flow<Connected>, keys: Arc<VoteKeyFolder>, every: u64, first_start: PathBuf) {
    let chain = flow.chain().clone();
    loop {
        let (epoch, roster) = chain.roster();
        // once it has voted, an empty folder would be a lost one
        if chain.votes() && first_start.exists() {
            match std::fs::remove_file(&first_start) {
                Ok(()) => info!("this validator votes for the first time"),
                Err(e) => warn!(error = %e, "{} cannot be removed; remove it by hand", first_start.display()),
            }
        }
        if let Err(e) = turn(&flow, &keys, every, epoch, &roster).await {
            warn!(error = %e, "vote keys could not be looked after; trying again in the next epoch");
        }
        if chain.votes() || !first_start.exists() {
            if !chain.epoch_reached(epoch + 1).await {
                return;
            }
        } else {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn turn(
    flow: &Flow<Connected>,
    keys: &VoteKeyFolder,
    every: u64,
    epoch: u64,
    roster: &Roster,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let chain = flow.chain();
    let of = |roster: &Roster| roster.member(flow.department()).map(|m| m.vote_key);
    let Some(current) = of(roster) else { return Ok(()) };
    // every key this department ever voted with is on the ledger
    let mut former: Vec<PublicKey> = of(&chain.rules().genesis.roster()).into_iter().collect();
    let mut since = 0;
    for change in chain.roster_changes(epoch).await? {
        let then: Roster = model::decode(&change.roster)?;
        let Some(key) = of(&then) else { continue };
        if former.last() != Some(&key) {
            since = then.epoch;
        }
        former.push(key);
    }
    former.retain(|key| *key != current);
    let destroyed = keys.destroy(&former)?;
    if destroyed > 0 {
        info!(destroyed, "retired vote keys are destroyed");
    }
    let validator = roster.member(flow.department()).is_some_and(|m| m.validator);
    let lost = keys.find(&current).is_none();
    if validator && (lost || (every > 0 && epoch >= since + every && chain.votes())) {
        let key = keys.fresh()?;
        let rotation = Credentials::rotation(&chain.rules().chain, flow.department(), &key);
        let event = flow.submit_and_wait(Body::RotateVote(rotation), PATIENCE).await?;
        match event.outcome {
            Outcome::Accepted(_) => {
                info!(key = %key.public().short(), "this validator votes with a fresh key from the next epoch on");
            }
            Outcome::Refused(refusal) => {
                keys.destroy(&[key.public()])?;
                warn!(code = refusal.code(), "a fresh vote key was refused");
            }
        }
    }
    Ok(())
}
