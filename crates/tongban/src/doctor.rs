//! `tongban doctor`: what a node needs, looked at before it is missed.

use crate::{client::Client, say};
use anyhow::Result;
use model::{Genesis, Roster};
use node::Config;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    net::{TcpListener, TcpStream, ToSocketAddrs as _},
    path::Path,
    time::Duration,
};

/// Below this a node's disk is called nearly full: 2 GiB.
const FREE_BYTES_LEAST: u64 = 2 << 30;
/// How long another node may take to take a connection.
const PEER_PATIENCE: Duration = Duration::from_secs(2);

/// One thing looked at.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    /// `ok`, `warning` or `failed`.
    status: &'static str,
    /// What was found, and what to do where it is not well.
    hint: String,
}

#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn note(&mut self, name: &'static str, status: &'static str, hint: impl Into<String>) {
        self.0.push(Check { name, status, hint: hint.into() });
    }

    fn result<T>(
        &mut self,
        name: &'static str,
        result: Result<T, String>,
        good: impl Fn(&T) -> String,
    ) -> Option<T> {
        match result {
            Ok(found) => {
                self.note(name, "ok", good(&found));
                Some(found)
            }
            Err(e) => {
                self.note(name, "failed", e);
                None
            }
        }
    }
}

/// Looks at everything a node needs; says how many things are not well.
pub async fn doctor(path: &Path, passphrase: Option<String>, json: bool) -> Result<usize> {
    let mut checks = Checks::default();
    let config = checks.result("configuration", Config::read(path).map_err(|e| e.to_string()), |c| {
        format!("{} of {}", path.display(), c.department)
    });
    if let Some(config) = config {
        exposed(path, &config, &mut checks);
        examine(&config, passphrase, &mut checks).await;
    }
    let failed = checks.0.iter().filter(|c| c.status == "failed").count();
    if json {
        say!("{}", json!({ "checks": checks.0 }));
    } else {
        for check in &checks.0 {
            say!("{:<8} {:<16} {}", check.status, check.name, check.hint);
        }
    }
    Ok(failed)
}

async fn examine(config: &Config, passphrase: Option<String>, checks: &mut Checks) {
    let genesis = node::read_genesis(&config.genesis).map_err(|e| e.to_string());
    let genesis = checks.result("genesis", genesis, |g| {
        format!("`{}`, {} suite, chain {}", g.name, g.suite.as_str(), crypto::chain_id(g).short())
    });
    let client = Client::new(config.http, config.api_token.as_deref().unwrap_or_default());
    let status: Option<Value> = client.get("/api/v1/status").await.ok();
    let roster = match &status {
        Some(_) => client.get::<Value>("/api/v1/roster").await.ok().map(|body| body["roster"].clone()),
        None => None,
    };
    let roster: Option<Roster> = roster.and_then(|roster| serde_json::from_value(roster).ok());
    let known = roster.or_else(|| config.roster.as_deref().and_then(|file| node::read_roster(file).ok()));
    let known = known.or_else(|| genesis.as_ref().map(Genesis::roster));
    running(config, status.as_ref(), checks);
    let answers: Option<Value> = client.get("/api/v1/connector").await.ok();
    if answers.is_some_and(|found| found["outdated"] == true) {
        let hint = "connector or standard changed since the node started: start it again, or it answers by the old ones";
        checks.note("files", "warning", hint);
    }
    keys(config, passphrase, known.as_ref(), status.is_some(), checks);
    disk(&config.ledger, checks);
    database(config, checks).await;
    if let Some(roster) = &known {
        peers(config, roster, checks);
    }
}

fn running(config: &Config, status: Option<&Value>, checks: &mut Checks) {
    let Some(status) = status else {
        checks.note(
            "node",
            "warning",
            format!("nothing answers at {}; start it with `tongban node`", config.http),
        );
        for (name, address) in [("listen", config.listen), ("http", config.http)] {
            match TcpListener::bind(address) {
                Ok(_) => checks.note(name, "ok", format!("{address} is free")),
                Err(e) => checks.note(name, "failed", format!("{address} cannot be listened on: {e}")),
            }
        }
        return;
    };
    let (height, epoch) = (&status["height"], &status["epoch"]);
    checks.note("node", "ok", format!("runs, at height {height} in epoch {epoch}"));
    let votes = status["votes"] == true;
    checks.note("votes", "ok", if votes { "votes in this epoch" } else { "does not vote in this epoch" });
}

/// What others could read of what they must not: the settings' file, and pages on the way to other machines.
fn exposed(file: &Path, config: &Config, checks: &mut Checks) {
    use std::os::unix::fs::PermissionsExt as _;
    match std::fs::metadata(file).map(|m| m.permissions().mode() & 0o077) {
        Ok(0) => checks.note("settings", "ok", "only this account reads them"),
        Ok(_) => {
            let hint = format!("other accounts may read the API's token: chmod 600 {}", file.display());
            checks.note("settings", "warning", hint);
        }
        Err(_) => {}
    }
    match (config.http.ip().is_loopback(), config.behind_tls) {
        (_, true) => checks.note("tls", "ok", "people come through a server that does TLS (`behind_tls`)"),
        (true, false) => checks.note("tls", "ok", format!("{} is for this machine only", config.http)),
        (false, false) => checks.note(
            "tls",
            "warning",
            format!(
                "{} serves other machines in the clear: put a server that does TLS before it, and set `behind_tls = true`",
                config.http
            ),
        ),
    }
}

fn keys(
    config: &Config,
    passphrase: Option<String>,
    roster: Option<&Roster>,
    running: bool,
    checks: &mut Checks,
) {
    let Some(passphrase) = passphrase else {
        checks.note("keys", "warning", "not opened: set TONGBAN_PASSPHRASE to look into them");
        return;
    };
    let opened = crypto::load_keys(&config.keys, &passphrase).map_err(|e| e.to_string());
    let Some(keys) = checks.result("keys", opened, |_| format!("{} opens", config.keys.display())) else {
        return;
    };
    let Some(member) = roster.and_then(|r| r.member(&config.department)) else {
        checks.note(
            "membership",
            "warning",
            match running {
                true => format!("{} is not in the consortium (yet)", config.department),
                false => format!(
                    "unknown until the node runs: {} is not in the roster it was made with",
                    config.department
                ),
            },
        );
        return;
    };
    let same = member.command_key == keys.command.public()
        && member.seal_key == keys.seal.public()
        && member.node_key == keys.node_key();
    match same {
        true => checks.note("membership", "ok", "the roster has these keys"),
        false => checks.note(
            "membership",
            "failed",
            "the roster has other keys for this department: restore the right key file",
        ),
    }
    if member.validator {
        use crypto::VoteKeys as _;
        let found = crypto::VoteKeyFolder::open(&config.votes, keys.storage.clone())
            .map(|f| f.find(&member.vote_key));
        match found {
            Ok(Some(_)) => checks.note("vote key", "ok", format!("{} is here", member.vote_key.short())),
            _ => checks.note(
                "vote key",
                "failed",
                format!(
                    "{} is not in {}: restore the folder from a backup",
                    member.vote_key.short(),
                    config.votes.display()
                ),
            ),
        }
    }
}

/// How many bytes are free where a folder is or will be; none where that cannot be found out.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|f| f.exists())?;
    let out = std::process::Command::new("df").args(["-Pk"]).arg(there).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let kib = text.lines().nth(1)?.split_whitespace().nth(3)?.parse::<u64>().ok()?;
    Some(kib * 1024)
}

fn disk(ledger: &Path, checks: &mut Checks) {
    match free_bytes(ledger) {
        Some(bytes) if bytes < FREE_BYTES_LEAST => {
            checks.note(
                "disk",
                "failed",
                format!("only {} MiB are free for {}", bytes >> 20, ledger.display()),
            );
        }
        Some(bytes) => checks.note("disk", "ok", format!("{} GiB are free", bytes >> 30)),
        None => checks.note("disk", "warning", "how much is free could not be found out"),
    }
}

async fn database(config: &Config, checks: &mut Checks) {
    let compiled = async {
        let standard = gateway::Standard::read(&config.standard).map_err(|e| e.to_string())?;
        let connector = gateway::Connector::read(&config.connector).map_err(|e| e.to_string())?;
        let source = config.connect(&connector, true).await.map_err(|e| e.to_string())?;
        let gateway =
            gateway::Gateway::open(connector, &standard, source).await.map_err(|e| e.to_string())?;
        let closed = gateway.report().iter().filter(|c| c.status == "closed").count();
        match (closed, gateway.problems().first()) {
            (0, None) => Ok(gateway.report().len()),
            // a file that cannot be taken in
            (0, Some(problem)) => Err(format!("{}: {}", problem.at, problem.message)),
            (n, _) => Err(format!(
                "{n} declaration(s) do not fit {}; `tongban connector check` says which",
                gateway::shown(&config.database)
            )),
        }
    };
    checks.result("database", compiled.await, |n| {
        format!("{n} declaration(s) fit {}", gateway::shown(&config.database))
    });
}

fn peers(config: &Config, roster: &Roster, checks: &mut Checks) {
    let mut silent = Vec::new();
    let others = roster.members.iter().filter(|m| m.id != config.department);
    let count = others.clone().count();
    for member in others {
        let address = member.address.to_socket_addrs().ok().and_then(|mut found| found.next());
        let reached = address.is_some_and(|a| TcpStream::connect_timeout(&a, PEER_PATIENCE).is_ok());
        if !reached {
            silent.push(format!("{} ({})", member.id, member.address));
        }
    }
    match silent.len() {
        0 => checks.note("peers", "ok", format!("all {count} other nodes take connections")),
        _ => checks.note("peers", "warning", format!("no connection to {}", silent.join(", "))),
    }
}
