//! Database servers of a test's own, and an HTTP service.
#![allow(dead_code, reason = "not every test needs everything")]

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering::SeqCst},
    time::{Duration, Instant},
};

/// A port below the range that outgoing connections take theirs from.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 12_000 + (std::process::id() % 200) as u16 * 100;
    let ports = std::iter::repeat_with(|| base + NEXT.fetch_add(1, SeqCst) % 100);
    let mut free = ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().unwrap()
}

/// A server that is killed with its test.
pub struct Server {
    child: Child,
    pub url: String,
    _dir: Option<tempfile::TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// A server of a program of its own; `ready` says when it serves.
    pub fn of(mut command: Command, url: String, ready: impl Fn() -> bool) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
        let server = Self { child, url, _dir: None };
        let begun = Instant::now();
        while !ready() {
            assert!(begun.elapsed() < Duration::from_secs(120), "the server came up");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// Stops it for good.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn done(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

fn find(names: &[&str]) -> Option<PathBuf> {
    let mut dirs: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    dirs.push("/usr/sbin".into());
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    dirs.extend(versions.map(|version| version.path().join("bin")));
    names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name))).find(|path| path.is_file())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.starts_with(b"0\n"))
}

/// A command as a server's own user, where the test runs as root: databases refuse to.
fn as_user(user: &str, program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", user, "--"]).arg(program);
    command
}

fn folder_of(user: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    if is_root() {
        assert!(done(Command::new("chown").arg(user).arg(dir.path())));
    }
    dir
}

/// A PostgreSQL server with an empty database `city`, where PostgreSQL is installed.
pub fn postgres() -> Option<Server> {
    let (initdb, postgres, psql) = (find(&["initdb"])?, find(&["postgres"])?, find(&["psql"])?);
    let dir = folder_of("postgres");
    let data = dir.path().join("data");
    let mut init = as_user("postgres", &initdb);
    init.args(["-U", "tongban", "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8", "-N", "-D"]).arg(&data);
    init.current_dir(dir.path());
    assert!(done(&mut init), "initdb");
    let port = free_port();
    let url = |db: &str| format!("postgres://tongban@127.0.0.1:{port}/{db}");
    let mut command = as_user("postgres", &postgres);
    command.args(["-h", "127.0.0.1", "-c", "fsync=off", "-k"]).arg(dir.path());
    command.args(["-p", &port.to_string(), "-D"]).arg(&data).current_dir(dir.path());
    let ready = || done(Command::new(&psql).args([&url("postgres"), "-c", "CREATE DATABASE city"]));
    let mut server = Server::of(command, url("city"), ready);
    server._dir = Some(dir);
    Some(server)
}

/// A MariaDB server with an empty database `city`, where MariaDB is installed.
pub fn mariadb() -> Option<Server> {
    let (install, mariadbd) = (find(&["mariadb-install-db"])?, find(&["mariadbd"])?);
    let client = find(&["mariadb"])?;
    let dir = folder_of("mysql");
    let (data, socket) = (dir.path().join("data"), dir.path().join("socket"));
    let mut init = as_user("mysql", &install);
    init.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    init.arg(format!("--datadir={}", data.display())).current_dir(dir.path());
    assert!(done(&mut init), "mariadb-install-db");
    let port = free_port();
    let mut command = as_user("mysql", &mariadbd);
    command.args(["--no-defaults", "--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=0"]);
    command.arg(format!("--datadir={}", data.display())).arg(format!("--socket={}", socket.display()));
    command.arg(format!("--port={port}")).current_dir(dir.path());
    let sql = "CREATE DATABASE city CHARACTER SET utf8mb4; CREATE USER tongban@127.0.0.1; \
               GRANT ALL ON city.* TO tongban@127.0.0.1;";
    let ready = || {
        let mut client = Command::new(&client);
        done(
            client
                .arg("--no-defaults")
                .arg(format!("--socket={}", socket.display()))
                .args(["-u", "root", "-e", sql]),
        )
    };
    let mut server = Server::of(command, format!("mysql://tongban@127.0.0.1:{port}/city"), ready);
    server._dir = Some(dir);
    Some(server)
}

/// The statements of a script, through a database's own client: `psql`, `mariadb` or `sqlite3`.
pub fn load(url: &str, script: &[u8]) {
    let mut client = if url.starts_with("postgres") {
        let mut psql = Command::new(find(&["psql"]).unwrap());
        psql.args(["-q", "-v", "ON_ERROR_STOP=1", url]);
        psql
    } else {
        let rest = url.strip_prefix("mysql://tongban@127.0.0.1:").unwrap();
        let (port, database) = rest.split_once('/').unwrap();
        let mut client = Command::new(find(&["mariadb"]).unwrap());
        client.args([
            "--no-defaults",
            "--protocol=tcp",
            "-h",
            "127.0.0.1",
            "-P",
            port,
            "-u",
            "tongban",
            database,
        ]);
        client
    };
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), script).unwrap();
    assert!(child.wait().unwrap().success(), "loading into {url}");
}
