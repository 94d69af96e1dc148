//! Four validators and an observer over real sockets: order, follow, prove, survive the loss of one.

use chain::{Chain, Config};
use crypto::{Keys, signed};
use ledger::Rules;
use model::*;
use proof::Role;
use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};
use tokio::sync::mpsc;

struct Node {
    id: DepartmentId,
    keys: Keys,
}

fn departments(n: usize) -> Vec<Node> {
    (0..n).map(|i| Node { id: format!("d{i}").parse().unwrap(), keys: Keys::random() }).collect()
}

fn genesis(nodes: &[Node], validators: usize) -> Genesis {
    let member = |(i, n): (usize, &Node)| Member {
        id: n.id.clone(),
        title: Text { zh: format!("部门{i}"), en: format!("Department {i}") },
        command_key: n.keys.command.public(),
        seal_key: n.keys.seal.public(),
        node_key: n.keys.node.public(),
        validator: i < validators,
    };
    Genesis {
        format: 1,
        name: "test".into(),
        suite: Suite::International,
        time_ms: now_ms(),
        members: nodes.iter().enumerate().map(member).collect(),
    }
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A port below the range that outgoing connections take theirs from.
fn free_port() -> std::net::TcpListener {
    let port = || 12_000 + u16::from_le_bytes(crypto::random()) % 20_000;
    std::iter::repeat_with(port).find_map(|p| std::net::TcpListener::bind(("127.0.0.1", p)).ok()).unwrap()
}

fn free_addresses(nodes: &[Node]) -> BTreeMap<DepartmentId, SocketAddr> {
    let sockets: Vec<_> = nodes.iter().map(|_| free_port()).collect();
    nodes.iter().zip(&sockets).map(|(n, s)| (n.id.clone(), s.local_addr().unwrap())).collect()
}

fn start(node: &Node, rules: &Rules, addresses: &BTreeMap<DepartmentId, SocketAddr>, dir: &Path) -> Chain {
    let (letters, _) = mpsc::channel(16);
    chain::start(Config {
        rules: rules.clone(),
        department: node.id.clone(),
        node_key: node.keys.node.clone(),
        listen: addresses[&node.id],
        addresses: addresses.clone(),
        storage: dir.join(node.id.as_str()),
        letters,
    })
    .unwrap()
}

fn anchor(rules: &Rules, node: &Node, nonce: u64) -> bytes::Bytes {
    let command = Command {
        chain: rules.chain,
        signer: node.id.clone(),
        nonce,
        expires_ms: now_ms() + 60_000,
        body: Body::Anchor(Anchor { topic: "test".parse().unwrap(), data: vec![7; 64] }),
    };
    encode(&signed(&node.keys.command, command)).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_follows_proves_and_bears_the_loss_of_one_validator() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = departments(5);
    let genesis = genesis(&nodes, 4);
    let rules = Rules::of(genesis.clone());
    let addresses = free_addresses(&nodes);
    let chains: Vec<_> = nodes.iter().map(|n| start(n, &rules, &addresses, dir.path())).collect();
    let patience = Duration::from_secs(20);

    // every department's commands are ordered, the observer's too, each once
    let (mut ids, mut first) = (Vec::new(), None);
    for (chain, node) in chains.iter().zip(&nodes) {
        let commands: Vec<_> = (0..20).map(|i| anchor(&rules, node, i)).collect();
        first.get_or_insert(commands[0].clone());
        for event in chain.submit_and_wait(commands, patience).await {
            let event = event.unwrap();
            assert_eq!(event.outcome, Outcome::Accepted(Fact::Recorded));
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
    let tip = chains[0].height();
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
    let leaf = merkle::leaf(crypto::sha256, &Event::leaf(proof.index, &proof.command, &proof.outcome));
    let root =
        merkle::root_from_path(crypto::sha256, leaf, proof.index as usize, proof.size as usize, &proof.path);
    assert_eq!(root, Some(header.event_root));
    assert!(proof.finality.votes.len() >= 3);

    // one validator stops: the others go on; it comes back and catches up
    chains[3].stop();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let commands: Vec<_> = (100..110).map(|i| anchor(&rules, &nodes[0], i)).collect();
    assert!(chains[0].submit_and_wait(commands, patience).await.iter().all(Result::is_ok));
    let back = start(&nodes[3], &rules, &addresses, dir.path());
    tokio::time::timeout(patience, back.reached(chains[0].height())).await.unwrap();

    // what is no command of this ledger never gets in
    let mut flipped = anchor(&rules, &nodes[0], 500).to_vec();
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
    let nodes = departments(4);
    let rules = Rules::of(genesis(&nodes, 4));
    let addresses = free_addresses(&nodes);
    let chains: Vec<_> = nodes.iter().map(|n| start(n, &rules, &addresses, dir.path())).collect();
    let patience = Duration::from_secs(20);
    assert!(chains[1].submit_and_wait(vec![anchor(&rules, &nodes[1], 0)], patience).await[0].is_ok());

    let flooder = &nodes[0];
    let command = |nonce: u64, body: Body| {
        let command = Command {
            chain: rules.chain,
            signer: flooder.id.clone(),
            nonce,
            expires_ms: now_ms() + 60_000,
            body,
        };
        bytes::Bytes::from(encode(&signed(&flooder.keys.command, command)))
    };
    let senseless = |i: u64| {
        let case = CaseId([i as u8; 32]);
        let step = "nowhere".parse().unwrap();
        match i % 4 {
            0 => Body::SettleCase(SettleCase {
                case,
                outcome: CaseOutcome::Closed,
                step,
                reason: "x".parse().unwrap(),
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
        let answer = chains[1].submit_and_wait(vec![anchor(&rules, &nodes[1], round + 1)], patience).await;
        assert!(answer[0].is_ok(), "{:?}", answer[0]);
        slowest = slowest.max(asked.elapsed());
    }
    assert!(refused >= 10 * 420, "what is no command is refused at the door: {refused}");
    assert!(slowest < Duration::from_secs(5), "another member waited {slowest:?}");
    // every senseless command that was taken in yields one event, and all nodes agree
    let last = command(u64::MAX, senseless(0));
    let event = chains[0].submit_and_wait(vec![last], patience).await.remove(0).unwrap();
    assert_eq!(event.outcome, Outcome::Refused(Refusal::UnknownCase));
    for chain in &chains {
        tokio::time::timeout(patience, chain.reached(event.height)).await.unwrap();
        let block = chain.block_events(event.height).await.unwrap();
        assert_eq!(block.hash, chains[0].block_events(event.height).await.unwrap().hash);
    }
}
