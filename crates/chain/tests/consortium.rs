//! Four validators and an observer over real sockets: order, follow, prove, survive the loss of one.

mod common;

use common::{PATIENCE, departments, genesis};
use ledger::Rules;
use model::*;
use proof::Role;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_follows_proves_and_bears_the_loss_of_one_validator() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = departments(5, Suite::International);
    let rules = Rules::of(genesis(&nodes, 4, 1 << 20));
    let chains: Vec<_> = nodes.iter().map(|n| n.start(&rules, dir.path())).collect();

    // every department's commands are ordered, the observer's too, each once
    let (mut ids, mut first, mut tip) = (Vec::new(), None, 0);
    for (chain, node) in chains.iter().zip(&nodes) {
        let commands: Vec<_> = (0..20).map(|i| node.anchor(&rules, i)).collect();
        first.get_or_insert(commands[0].clone());
        for event in chain.submit_and_wait(commands, PATIENCE).await {
            let event = event.unwrap();
            assert_eq!(event.outcome, Outcome::Accepted(Fact::Recorded));
            tip = tip.max(event.height);
            ids.push(event.id);
        }
    }
    let again = chains[1].submit_and_wait(vec![first.unwrap()], Duration::from_secs(1)).await;
    assert_eq!(
        again[0].as_ref().unwrap().id,
        ids[0],
        "a command sent twice is found where it was first ordered"
    );

    // all nodes see the same events at the same place
    let mut seen = Vec::new();
    for chain in &chains {
        let (mut events, mut list) = (chain.events(1), Vec::new());
        loop {
            let block = events.next().await.unwrap();
            list.extend(block.events.iter().map(|e| (e.height, e.index, e.id)));
            if block.height == tip {
                break;
            }
        }
        seen.push(list);
    }
    assert!(seen.windows(2).all(|w| w[0] == w[1]));
    for id in &ids {
        assert_eq!(seen[0].iter().filter(|s| s.2 == *id).count(), 1);
    }

    // a proof from the observer holds
    let proof = chains[4].prove(ids[3], Role::Ask).await.unwrap();
    let header: Header = decode(&proof.header).unwrap();
    let tree = crypto::tree(rules.suite());
    let leaf = merkle::leaf(tree, &Event::leaf(proof.index, &proof.command, &proof.outcome));
    let root = merkle::root_from_path(tree, leaf, proof.index as usize, proof.size as usize, &proof.path);
    assert_eq!(root, Some(header.event_root));
    assert!(proof.finality.votes.len() >= 3);

    // one validator stops: the others go on; it comes back and catches up
    nodes[3].stop(&chains[3]).await;
    let commands: Vec<_> = (100..110).map(|i| nodes[0].anchor(&rules, i)).collect();
    assert!(chains[0].submit_and_wait(commands, PATIENCE).await.iter().all(Result::is_ok));
    let back = nodes[3].start(&rules, dir.path());
    let tip = chains[0].height();
    tokio::time::timeout(PATIENCE, back.reached(tip)).await.unwrap();
    assert!(back.height() >= tip, "it runs");

    // what is no command of this ledger never gets in
    let mut flipped = nodes[0].anchor(&rules, 500).to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let verdicts = chains[0].submit(vec![vec![1, 2, 3].into(), flipped.into(), vec![0; 70_000].into()]);
    use chain::Rejected::{Malformed, Signature};
    assert_eq!(verdicts, [Err(Malformed), Err(Signature), Err(Malformed)]);
}

/// One member's well-signed but senseless, oversized, contradictory or unsigned commands, thousands of every kind, do not
/// keep another member's from being ordered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooding_member_does_not_stall_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = departments(4, Suite::International);
    let rules = Rules::of(genesis(&nodes, 4, 1 << 20));
    let chains: Vec<_> = nodes.iter().map(|n| n.start(&rules, dir.path())).collect();
    assert!(chains[1].submit_and_wait(vec![nodes[1].anchor(&rules, 0)], PATIENCE).await[0].is_ok());

    let flooder = &nodes[0];
    let command = |nonce: u64, body: Body| flooder.command(&rules, nonce, body);
    let senseless = |i: u64| {
        let case = CaseId([i as u8; 32]);
        let step = "nowhere".parse().unwrap();
        match i % 4 {
            0 => Body::SettleCase(SettleCase {
                case,
                outcome: CaseOutcome::Closed,
                step,
                reason: Commitment([0; 32]),
            }),
            1 => {
                Body::Answer(Answer { call: CallId([1; 32]), reply: Reply::Declined("no".parse().unwrap()) })
            }
            2 => Body::ReportAction(ReportAction {
                action: ActionId([2; 32]),
                failure: None,
                result: Commitment([0; 32]),
            }),
            _ => Body::WithdrawConsent(WithdrawConsent { consent: ConsentId([3; 32]), signature: [0; 64] }),
        }
    };
    let mut refused = 0;
    let mut slowest = Duration::ZERO;
    for round in 0..10u64 {
        // senseless, large, twice the same, then garbage of three kinds
        let mut flood: Vec<bytes::Bytes> =
            (0..400).map(|i| command(round * 1000 + i, senseless(i))).collect();
        let large = Anchor { topic: "large".parse().unwrap(), data: vec![0; 60_000] };
        flood.extend((0..20).map(|i| command(round * 1000 + 500 + i, Body::Anchor(large.clone()))));
        flood.extend(flood[..50].to_vec());
        flood.extend((0..200).map(|i| bytes::Bytes::from(vec![i as u8; 300])));
        let mut unsigned = command(round * 1000 + 900, senseless(0)).to_vec();
        unsigned[40] ^= 1;
        flood.extend(std::iter::repeat_n(bytes::Bytes::from(unsigned), 200));
        flood.extend(std::iter::repeat_n(bytes::Bytes::from(vec![0; 100_000]), 20));
        refused += chains[0].submit(flood).iter().filter(|v| v.is_err()).count();
        let asked = std::time::Instant::now();
        let answer = chains[1].submit_and_wait(vec![nodes[1].anchor(&rules, round + 1)], PATIENCE).await;
        assert!(answer[0].is_ok(), "{:?}", answer[0]);
        slowest = slowest.max(asked.elapsed());
    }
    assert!(refused >= 10 * 420, "what is no command is refused at the door: {refused}");
    assert!(slowest < Duration::from_secs(20), "another member waited {slowest:?}");
    // every senseless command that was taken in yields one event, and all nodes agree
    let last = command(u64::MAX, senseless(0));
    let event = chains[0].submit_and_wait(vec![last], PATIENCE).await.remove(0).unwrap();
    assert_eq!(event.outcome, Outcome::Refused(Refusal::UnknownCase));
    for chain in &chains {
        tokio::time::timeout(PATIENCE, chain.reached(event.height)).await.unwrap();
        let block = chain.block_events(event.height).await.unwrap();
        assert_eq!(block.hash, chains[0].block_events(event.height).await.unwrap().hash);
    }
}
