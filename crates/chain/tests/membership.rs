//! The consortium changes while it runs: a department joins, another leaves, votes get other keys, rules change; and what was
//! signed before holds after.

mod common;

use chain::{Archive, Chain};
use common::{Department, PATIENCE, adopt, department, departments, genesis};
use ledger::Rules;
use model::*;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Blocks of an epoch: short, so that many pass.
const EPOCH_BLOCKS: u64 = 16;

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(180), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything a node has of the ledger, checked from the genesis alone and applied again.
async fn check_whole(rules: &Rules, chain: &Chain) {
    let mut file = [chain::MAGIC.as_slice(), &rules.chain.0].concat();
    let (tip, mut height, mut covered) = (chain.height(), 1, false);
    while height <= tip || !covered {
        chain.reached(height).await;
        let record = chain.archived(height).await.unwrap().unwrap();
        covered = !record.ends_with(&[0; 4]);
        file.extend(record);
        height += 1;
    }
    let open = || Archive::open(std::io::Cursor::new(file.clone()), rules.clone()).unwrap();
    let checked = open().check(|_| {}).unwrap();
    assert!(checked.height >= tip);
    let rules = rules.clone();
    let archive = Archive::open(std::io::Cursor::new(file), rules).unwrap();
    let replayed = tokio::task::spawn_blocking(move || {
        let scratch = tempfile::tempdir().unwrap();
        archive.replay(scratch.path().to_owned(), |_| {}).unwrap()
    });
    assert_eq!(replayed.await.unwrap(), checked);
}

/// Goes on submitting commands of one department and notes the longest wait for one.
fn keep_busy(
    rules: &Rules,
    department: &Department,
    chain: &Chain,
) -> (Arc<AtomicBool>, tokio::task::JoinHandle<Duration>) {
    let over = Arc::new(AtomicBool::new(false));
    let (stop, rules, chain) = (over.clone(), rules.clone(), chain.clone());
    let (id, key) = (department.id.clone(), department.own.keys.command.clone());
    let task = tokio::spawn(async move {
        let (mut slowest, mut nonce) = (Duration::ZERO, 1 << 40);
        while !stop.load(SeqCst) {
            nonce += 1;
            let body = Body::Anchor(Anchor { topic: "busy".parse().unwrap(), data: vec![1; 100] });
            let command = Command {
                chain: rules.chain,
                signer: id.clone(),
                nonce,
                expires_ms: common::now_ms() + 60_000,
                body,
            };
            let bytes = encode(&crypto::signed(&key, command)).into();
            let asked = Instant::now();
            chain.submit_and_wait(vec![bytes], PATIENCE).await.remove(0).unwrap();
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    });
    (over, task)
}

async fn consortium_changes_while_it_runs(suite: Suite) {
    let dir = tempfile::tempdir().unwrap();
    let all = departments(5, suite);
    let rules = Rules::of(genesis(&all, 4, EPOCH_BLOCKS));
    let chains: Vec<_> = all.iter().map(|d| d.start(&rules, dir.path())).collect();
    let by: Vec<&Department> = all.iter().collect();
    let before = chains[0].submit_and_wait(vec![all[4].anchor(&rules, 1)], PATIENCE).await.remove(0).unwrap();
    let (over, busy) = keep_busy(&rules, &all[1], &chains[1]);

    // a department joins and votes; its node was started before, and follows once it is in
    let newcomer = department(5, suite);
    let introductions: Vec<_> = all.iter().map(|d| (d.own.keys.node_key(), d.listen.to_string())).collect();
    let joined = newcomer.start_with(&rules, dir.path().join("d5"), true, introductions);
    let change = newcomer.own.put(&rules.chain, newcomer.member(true));
    let epoch = adopt(&rules, &by, &chains[1], change).await;
    until("the newcomer enters the epoch it is in", || joined.roster().0 >= epoch).await;
    until("the newcomer votes", || joined.votes()).await;
    let event = joined.submit_and_wait(vec![newcomer.anchor(&rules, 1)], PATIENCE).await.remove(0).unwrap();
    assert_eq!(event.outcome, Outcome::Accepted(Fact::Recorded));

    // another leaves: its commands are nobody's from then on
    let epoch = adopt(&rules, &by, &chains[1], Change::Remove(all[0].id.clone())).await;
    until("the others go on without it", || chains[2].roster().0 >= epoch).await;
    let verdict = chains[2].submit(vec![all[0].anchor(&rules, 99)]).remove(0);
    assert_eq!(verdict, Err(chain::Rejected::Foreign));
    assert_eq!(chains[2].roster().1.validators().len(), 4);

    // a validator votes with another key; an observer becomes a validator
    let key = all[2].votes.fresh(suite);
    let rotation = crypto::Credentials::rotation(&rules.chain, &all[2].id, &key);
    let rotate = all[2].command(&rules, 7, Body::RotateVote(rotation));
    let event = chains[2].submit_and_wait(vec![rotate], PATIENCE).await.remove(0).unwrap();
    assert_eq!(event.outcome, Outcome::Accepted(Fact::Recorded));
    let by: Vec<&Department> = all[1..].iter().collect();
    let epoch = adopt(&rules, &by, &chains[1], all[4].own.put(&rules.chain, all[4].member(true))).await;
    until("it votes", || chains[4].roster().0 >= epoch && chains[4].votes()).await;
    let (_, roster) = chains[4].roster();
    assert_eq!(roster.member(&all[2].id).unwrap().vote_key, key.public());
    assert_eq!(roster.validators().len(), 5);

    // a node that was away for whole epochs finds its way to where the others are
    all[3].stop(&chains[3]).await;
    let (now, _) = chains[1].roster();
    let ahead = now + 3;
    adopt(&rules, &by, &chains[1], Change::SetProtocol(2)).await;
    until("epochs pass without it", || chains[1].roster().0 >= ahead).await;
    let back = all[3].start(&rules, dir.path());
    until("it catches up", || back.roster().0 >= ahead && back.height() + 40 >= chains[1].height()).await;
    until("and votes", || back.votes()).await;
    assert_eq!(back.roster().1.protocol, 2);

    over.store(true, SeqCst);
    let slowest = busy.await.unwrap();
    assert!(slowest < Duration::from_secs(20), "somebody waited {slowest:?} for a command");

    // everything holds from the genesis alone, at every node, with what was signed under any roster
    check_whole(&rules, &back).await;
    check_whole(&rules, &joined).await;
    let changes = joined.roster_changes(joined.roster().0).await.unwrap();
    assert!(changes.len() >= 4, "{}", changes.len());
    assert!(joined.roster_changes(0).await.unwrap().is_empty());
    let proof = joined.prove(before.id, proof::Role::Ask).await.unwrap();
    assert_eq!(proof.finality.epoch, before.height / EPOCH_BLOCKS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consortium_changes_while_it_runs() {
    consortium_changes_while_it_runs(Suite::International).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_national_consortium_changes_while_it_runs() {
    consortium_changes_while_it_runs(Suite::National).await;
}

/// A validator whose disk is empty, and who has voted before, does not vote until an epoch begins that it cannot have voted in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_validator_abstains_until_the_next_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let all = departments(4, Suite::International);
    let rules = Rules::of(genesis(&all, 4, 64));
    let chains: Vec<_> = all.iter().map(|d| d.start(&rules, dir.path())).collect();
    chains[0].submit_and_wait(vec![all[0].anchor(&rules, 1)], PATIENCE).await.remove(0).unwrap();
    until("all vote", || chains.iter().all(Chain::votes)).await;
    let storage = dir.path().join("d3");
    all[3].stop(&chains[3]).await;
    while std::fs::remove_dir_all(&storage).is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let back = all[3].start_with(&rules, storage, false, vec![]);
    chains[0].submit_and_wait(vec![all[0].anchor(&rules, 2)], PATIENCE).await.remove(0).unwrap();
    until("it follows", || back.height() >= chains[0].height().saturating_sub(1) && back.height() > 1).await;
    let votes = back.votes();
    assert!(!votes || back.roster().0 > 0, "it does not vote in an epoch it may have voted in before");
    let mut nonce = 2;
    while back.roster().0 == 0 {
        nonce += 1;
        chains[0].submit_and_wait(vec![all[0].anchor(&rules, nonce)], PATIENCE).await.remove(0).unwrap();
    }
    until("it votes again", || back.votes()).await;
}
