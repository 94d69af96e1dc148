//! A consortium of separate processes, each on a network of its own: lost packets, cut cables, frozen machines, full disks.
//!
//! It needs root, `ip` and `nft`, and makes network namespaces that are gone afterwards; elsewhere it says "skipped". Delay has
//! its own place: the simulation, and `tongban bench ledger --rtt-ms`.

use model::*;
use node::Config;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command as Process, Stdio},
    time::{Duration, Instant},
};
use tongban::{
    client::Client,
    setup::{self, Made, Plan, PlannedDepartment, node_dir},
};

const NODES: usize = 4;
/// Set inside the hub's namespace to what all names of this run begin with.
const INSIDE: &str = "TONGBAN_NETWORK_TEST";
const PASSPHRASE: &str = "network test";

fn run(line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let out = Process::new(words.next().unwrap()).args(words).output().map_err(|e| format!("{line}: {e}"))?;
    if out.status.success() {
        Ok(())
    } else {
        Err(format!("{line}: {}", String::from_utf8_lossy(&out.stderr).trim()))
    }
}

/// Namespaces and mounts, gone when this is.
struct Cleanup {
    namespaces: Vec<String>,
    mounts: Vec<PathBuf>,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        for name in &self.namespaces {
            let _ = run(&format!("ip netns del {name}"));
        }
        for mount in &self.mounts {
            let _ = Process::new("umount").arg("-l").arg(mount).status();
        }
    }
}

#[test]
fn lost_packets_cut_cables_frozen_machines_and_full_disks_lose_nothing() {
    if let Ok(run) = std::env::var(INSIDE) {
        return tokio::runtime::Runtime::new().unwrap().block_on(inside(&run));
    }
    let name = format!("tb{}", std::process::id());
    let possible = run("nft --version").and_then(|()| run(&format!("ip netns add {name}")));
    if let Err(why) = possible {
        eprintln!("skipped: this test needs root, network namespaces and nft: {why}");
        return;
    }
    let _made = Cleanup { namespaces: vec![name.clone()], mounts: vec![] };
    let test = std::env::current_exe().unwrap();
    let status = Process::new("ip")
        .args(["netns", "exec", &name])
        .arg(test)
        .args(["--nocapture", "lost_packets"])
        .env(INSIDE, &name)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "the test inside its own network failed");
}

struct Consortium {
    dir: PathBuf,
    prefix: String,
    made: Made,
    children: Vec<Option<Child>>,
    nonce: u64,
}

impl Drop for Consortium {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn id(i: usize) -> DepartmentId {
    format!("d{i}").parse().unwrap()
}

impl Consortium {
    fn home(&self, i: usize) -> PathBuf {
        node_dir(&self.dir, &id(i))
    }

    fn start(&mut self, i: usize) {
        let home = self.home(i);
        let child = Process::new("ip")
            .args(["netns", "exec", &format!("{}n{i}", self.prefix), env!("CARGO_BIN_EXE_tongban")])
            .args(["node", "--config"])
            .arg(home.join("node.toml"))
            .env("TONGBAN_PASSPHRASE", PASSPHRASE)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(home.join("log")).unwrap())
            .spawn()
            .unwrap();
        self.children[i] = Some(child);
    }

    fn signal(&self, i: usize, signal: &str) {
        // `ip netns exec` becomes the program it runs
        let pid = self.children[i].as_ref().unwrap().id();
        run(&format!("kill -{signal} {pid}")).unwrap();
    }

    fn client(&self, i: usize) -> Client {
        Client::new(Config::read(&self.home(i).join("node.toml")).unwrap().http, "")
    }

    async fn height(&self, i: usize) -> Option<u64> {
        let client = self.client(i);
        let status = client.get::<Value>("/api/v1/status");
        let status = tokio::time::timeout(Duration::from_secs(10), status).await.ok()?.ok()?;
        status["height"].as_u64()
    }

    /// Whether a command of a department, given to its node, becomes final in time.
    async fn anchor(&mut self, i: usize, patience: Duration) -> bool {
        self.nonce += 1;
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        let command = Command {
            chain: self.made.chain,
            signer: id(i),
            nonce: self.nonce,
            expires_ms: now + 600_000,
            body: Body::Anchor(Anchor { topic: "test".parse().unwrap(), data: vec![7; 200] }),
        };
        let bytes = encode(&crypto::signed(&self.made.keys[&id(i)].keys.command, command));
        let mut batch = (bytes.len() as u32).to_le_bytes().to_vec();
        batch.extend(bytes);
        let client = self.client(i);
        let answer = tokio::time::timeout(patience, client.commands(batch)).await;
        matches!(answer, Ok(Ok(answer)) if answer[0] == 0)
    }

    /// Commands through each of some nodes become final, one after another.
    async fn goes_on(&mut self, through: &[usize], what: &str) {
        for round in 0..5 {
            for i in through {
                assert!(self.anchor(*i, Duration::from_secs(30)).await, "{what}: round {round} through d{i}");
            }
        }
    }

    async fn reaches(&self, i: usize, height: u64, what: &str) {
        let begun = Instant::now();
        while self.height(i).await.is_none_or(|h| h < height) {
            assert!(begun.elapsed() < Duration::from_secs(180), "{what}: d{i} reaches height {height}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// The cable of a node's machine: pulled, or put back.
fn cable(i: usize, state: &str) {
    run(&format!("ip link set h{i} {state}")).unwrap();
}

async fn inside(prefix: &str) {
    let temporary = tempfile::tempdir().unwrap();
    let mut made = Cleanup { namespaces: vec![], mounts: vec![] };
    run("ip link set lo up").unwrap();
    run("ip link add br0 type bridge").unwrap();
    run("ip addr add 10.77.0.254/24 dev br0").unwrap();
    run("ip link set br0 up").unwrap();
    for i in 0..NODES {
        let name = format!("{prefix}n{i}");
        run(&format!("ip netns add {name}")).unwrap();
        made.namespaces.push(name.clone());
        run(&format!("ip link add h{i} type veth peer name e0 netns {name}")).unwrap();
        run(&format!("ip link set h{i} master br0 up")).unwrap();
        for line in
            ["ip link set lo up", &format!("ip addr add 10.77.0.{}/24 dev e0", i + 1), "ip link set e0 up"]
        {
            run(&format!("ip netns exec {name} {line}")).unwrap();
        }
    }
    let departments = (0..NODES).map(|i| PlannedDepartment {
        id: id(i),
        title: Text { zh: format!("部门{i}"), en: format!("Department {i}") },
        validator: true,
        listen: format!("10.77.0.{}:8500", i + 1).parse().unwrap(),
        http: format!("10.77.0.{}:8400", i + 1).parse().unwrap(),
    });
    let plan = Plan::new("network", Suite::International, departments.collect());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let dir = temporary.path().to_owned();
    let keys = setup::make(&plan, &dir, PASSPHRASE, now, |_| {}).unwrap();
    let mut c = Consortium {
        dir: dir.clone(),
        prefix: prefix.to_owned(),
        made: keys,
        children: (0..NODES).map(|_| None).collect(),
        nonce: 0,
    };
    for i in 0..NODES {
        setup::skeleton(&c.home(i), &id(i)).await.unwrap();
    }
    // one disk is small
    let small = c.home(3).join("ledger");
    std::fs::create_dir_all(&small).unwrap();
    run(&format!("mount -t tmpfs -o size=48m tmpfs {}", small.display())).unwrap();
    made.mounts.push(small.clone());
    for i in 0..NODES {
        c.start(i);
    }
    for i in 0..NODES {
        c.reaches(i, 1, "it comes up").await;
    }
    c.goes_on(&[0, 1, 2, 3], "all is well").await;

    // one packet in twenty is lost between any two
    run("nft add table bridge faults").unwrap();
    run("nft add chain bridge faults between { type filter hook forward priority 0 ; }").unwrap();
    run("nft add rule bridge faults between numgen random mod 100 < 5 drop").unwrap();
    c.goes_on(&[0, 1, 2, 3], "packets are lost").await;
    run("nft delete table bridge faults").unwrap();

    // one machine is cut off: the others go on; back, it catches up
    cable(3, "down");
    c.goes_on(&[0, 1, 2], "one is cut off").await;
    let tip = c.height(0).await.unwrap();
    cable(3, "up");
    c.reaches(3, tip, "its cable is back").await;

    // cut in two halves, neither makes a block final; joined, they go on, and nothing was lost or forked
    cable(2, "down");
    cable(3, "down");
    // votes that were under way may still make one or two; then it stands
    let begun = Instant::now();
    let stood_at = loop {
        let height = c.height(0).await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        if c.height(0).await.unwrap() == height {
            break height;
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "two of four make nothing final");
    };
    assert!(!c.anchor(0, Duration::from_secs(5)).await, "two of four make nothing final");
    assert_eq!(c.height(0).await.unwrap(), stood_at);
    cable(2, "up");
    cable(3, "up");
    c.goes_on(&[0, 1, 2, 3], "both halves are one again").await;

    // a machine that stands still for a while is as good as dead, and then as good as new
    c.signal(1, "STOP");
    c.goes_on(&[0, 2, 3], "one stands still").await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let tip = c.height(0).await.unwrap();
    c.signal(1, "CONT");
    c.reaches(1, tip, "it moves again").await;
    c.goes_on(&[1], "it moves again").await;

    // a full disk stops its node, which says so, and nobody else; with room it goes on where it was
    fill(&small.join("filler"));
    let begun = Instant::now();
    while c.children[3].as_mut().unwrap().try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "a node with a full disk stops");
        c.anchor(0, Duration::from_secs(10)).await;
    }
    c.children[3] = None;
    let log = std::fs::read_to_string(c.home(3).join("log")).unwrap();
    assert!(log.contains("is full: make room and start the node again"), "{log}");
    c.goes_on(&[0, 1, 2], "one has a full disk").await;
    let tip = c.height(0).await.unwrap();
    std::fs::remove_file(small.join("filler")).unwrap();
    c.start(3);
    c.reaches(3, tip, "its disk has room again").await;
    c.goes_on(&[3], "its disk has room again").await;

    let tip = c.height(0).await.unwrap();
    for i in 0..NODES {
        c.reaches(i, tip, "the end").await;
        for height in (1..=tip).step_by(11).chain([stood_at, stood_at + 1, tip]) {
            let path = format!("/api/v1/blocks/{height}");
            let (one, other) = (c.client(0), c.client(i));
            assert_eq!(one.get::<Value>(&path).await.unwrap(), other.get::<Value>(&path).await.unwrap());
        }
    }
}

/// Writes a file until there is no room for more.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    let piece = vec![1; 4096];
    while file.write_all(&piece).is_ok() {}
}
