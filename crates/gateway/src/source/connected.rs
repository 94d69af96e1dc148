//! A department's source, whatever its kind, by its address.

use super::{
    Select, Source, SourceError, Write, Written,
    files::Files,
    odbc::{self, Odbc},
    service::Service,
    sql::{MySql, Postgres, Sqlite},
};
use crate::{
    declare::{Connector, LookupBy},
    transform::Stored,
};
use model::FieldId;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// A source of any kind.
pub enum Connected {
    /// `department.db`, or `sqlite:department.db`.
    Sqlite(Sqlite),
    /// `postgres://user:password@host:port/database`.
    Postgres(Postgres),
    /// `mysql://…` or `mariadb://…`.
    MySql(MySql),
    /// `files:folder`.
    Files(Box<Files>),
    /// `http://…` or `https://…`.
    Service(Box<Service>),
    /// `odbc:` and a connection string (`odbc:DSN=registry;UID=tongban;PWD=…`).
    Odbc(Box<Odbc>),
}

/// An address without what must not be shown: a password.
pub fn shown(address: &str) -> String {
    if let Some(connection) = address.strip_prefix("odbc:") {
        return format!("odbc:{}", odbc::shown(connection));
    }
    match (address.find("://"), address.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            let account = &address[scheme + 3..at];
            let user = account.split(':').next().unwrap_or_default();
            format!("{}{user}{}", &address[..scheme + 3], &address[at..])
        }
        _ => address.to_owned(),
    }
}

/// A database's address that says how its link is protected: on another machine, through TLS with a certificate that is verified, unless
/// the address itself, or `PGSSLMODE`, says otherwise. None where it says so, or the database is on this machine.
fn protected(address: &str) -> Option<String> {
    let url = reqwest::Url::parse(address).ok()?;
    let postgres = url.scheme().starts_with("postgres");
    let says =
        |name: &str| url.query_pairs().filter(|(key, _)| key == name).last().map(|(_, v)| v.into_owned());
    let environment = |name: &str| std::env::var(name).ok().filter(|_| postgres);
    if says("sslmode").or_else(|| says("ssl-mode")).or_else(|| environment("PGSSLMODE")).is_some() {
        return None;
    }
    // of PostgreSQL a parameter or the environment names the host too, or a folder with a socket
    let named = ["hostaddr", "host"].into_iter().find_map(|name| says(name).filter(|_| postgres));
    let named = named.or_else(|| url.host_str().filter(|host| !host.is_empty()).map(str::to_owned));
    let host =
        named.or_else(|| environment("PGHOSTADDR")).or_else(|| environment("PGHOST")).unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let here = bare.is_empty()
        || bare == "localhost"
        || bare.starts_with('/')
        || bare.starts_with("%2f")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || !postgres && says("socket").is_some();
    let joined = if url.query().is_some() { '&' } else { '?' };
    let setting = if postgres { "sslmode=verify-full" } else { "ssl-mode=VERIFY_IDENTITY" };
    (!here).then(|| format!("{address}{joined}{setting}"))
}

/// Says what to do where a database on another machine could not be connected to: it may be that its link is not protected.
fn unprotected(error: SourceError) -> SourceError {
    match error {
        SourceError::Failed(why) => SourceError::Failed(format!(
            "{why}. On another machine a database is reached through TLS, and its certificate verified: `sslrootcert=` or `ssl-ca=` in \
             its address names who certifies it, `sslmode=` or `ssl-mode=` says otherwise (docs/connector.md)"
        )),
        other => other,
    }
}

impl Connected {
    /// Connects to a source by its address; paths are below `base`. With `read_only` actions fail, and nothing is changed.
    pub async fn open(
        address: &str,
        base: &Path,
        connector: &Connector,
        read_only: bool,
    ) -> Result<Self, SourceError> {
        let (scheme, rest) = address.split_once(':').unwrap_or(("", address));
        Ok(match scheme {
            "postgres" | "postgresql" => Self::Postgres(match protected(address) {
                None => Postgres::open(address, read_only).await?,
                Some(address) => Postgres::open(&address, read_only).await.map_err(unprotected)?,
            }),
            "mysql" | "mariadb" => Self::MySql(match protected(address) {
                None => MySql::open(address, read_only).await?,
                Some(address) => MySql::open(&address, read_only).await.map_err(unprotected)?,
            }),
            "http" | "https" => {
                let service = connector.service.as_ref();
                Self::Service(Box::new(Service::open(address, base, service, columns_of(connector, false))?))
            }
            "files" => {
                let indexed = columns_of(connector, true);
                let files = Files::open(&base.join(rest), &connector.files, indexed, !read_only).await?;
                Self::Files(Box::new(files))
            }
            "odbc" => Self::Odbc(Box::new(Odbc::open(rest, read_only).await?)),
            "sqlite" | "" => {
                let path = base.join(rest.strip_prefix("//").unwrap_or(rest));
                Self::Sqlite(match read_only {
                    true => Sqlite::open_read_only(&path).await?,
                    false => Sqlite::open(&path).await?,
                })
            }
            _ => {
                return Err(SourceError::Failed(format!(
                    "`{scheme}` is no kind of source: there are sqlite, postgres, mysql, odbc, files, http and https"
                )));
            }
        })
    }
}

/// The declared columns by table; only those that are looked up as stored, or all.
fn columns_of(connector: &Connector, looked_up: bool) -> BTreeMap<String, BTreeSet<String>> {
    let mut columns = BTreeMap::<String, BTreeSet<String>>::new();
    let queries = connector.queries.iter().map(|q| (&q.entity, &q.subject, &q.also, &q.through, &q.known));
    let predicates =
        connector.predicates.iter().map(|p| (&p.entity, &p.subject, &p.also, &p.through, &p.known));
    let mut sought = BTreeSet::new();
    for (entity, subject, also, through, known) in queries.chain(predicates) {
        sought.insert((entity, subject));
        sought.extend(also.iter().map(|a| (&a.entity, &a.subject)));
        sought.extend(also.iter().flat_map(|a| &a.through).chain(through).map(|t| (&t.entity, &t.subject)));
        sought.extend(known.iter().map(|k| (&k.entity, &k.subject)));
    }
    for (id, entity) in &connector.entities {
        for (name, column) in &entity.columns {
            if !looked_up || column.lookup == LookupBy::Stored && sought.contains(&(id, name)) {
                columns.entry(entity.table.clone()).or_default().insert(column.column.clone());
            }
        }
    }
    columns
}

macro_rules! each {
    ($self:expr, $source:ident => $work:expr) => {
        match $self {
            Connected::Sqlite($source) => $work,
            Connected::Postgres($source) => $work,
            Connected::MySql($source) => $work,
            Connected::Files($source) => $work,
            Connected::Service($source) => $work,
            Connected::Odbc($source) => $work,
        }
    };
}

impl Source for Connected {
    async fn columns(&self, table: &str) -> Result<Vec<(String, String)>, SourceError> {
        each!(self, source => source.columns(table).await)
    }

    async fn select(
        &self,
        select: &Select,
        binds: &[Stored],
    ) -> Result<Vec<Vec<Option<Stored>>>, SourceError> {
        each!(self, source => source.select(select, binds).await)
    }

    async fn distinct(
        &self,
        table: &str,
        column: &str,
        bytes: bool,
        limit: u64,
    ) -> Result<Vec<Stored>, SourceError> {
        each!(self, source => source.distinct(table, column, bytes, limit).await)
    }

    async fn write_once(
        &self,
        key: &str,
        writes: &[Write],
        result: &BTreeMap<FieldId, String>,
    ) -> Result<Written, SourceError> {
        each!(self, source => source.write_once(key, writes, result).await)
    }

    async fn refresh(&self) -> Result<(), SourceError> {
        each!(self, source => source.refresh().await)
    }

    async fn probe(&self, table: &str) -> Result<(), SourceError> {
        each!(self, source => source.probe(table).await)
    }

    fn lists(&self) -> bool {
        each!(self, source => source.lists())
    }

    fn troubles(&self) -> Vec<(String, String)> {
        each!(self, source => source.troubles())
    }

    async fn close(&self) {
        each!(self, source => source.close().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_another_machine_is_protected() {
        for remote in [
            "postgres://tongban:a%40b@10.0.0.5/registry?",
            "postgres://tongban@db.example/registry?sslrootcert=/etc/ca.pem&",
            "postgres:///registry?host=db.example&",
            "postgres:///registry?host=/run&host=db.example&",
            "postgres://localhost/registry?hostaddr=10.0.0.5&",
            "postgres://db.example/registry?socket=x&",
        ] {
            let address = &remote[..remote.len() - 1];
            assert_eq!(protected(address), Some(format!("{remote}sslmode=verify-full")));
        }
        let mysql = "mariadb://tongban@10.0.0.5/tax";
        assert_eq!(protected(mysql), Some(format!("{mysql}?ssl-mode=VERIFY_IDENTITY")));
        for kept in [
            "postgres://tongban@10.0.0.5/registry?sslmode=disable",
            "postgres://tongban@localhost/registry",
            "postgres://tongban@127.0.0.1:5433/registry",
            "postgres://tongban@[::1]/registry",
            "postgres://tongban@%2Fvar%2Frun%2Fpostgresql/registry",
            "postgres://tongban@%2fvar%2frun%2fpostgresql/registry",
            "postgres:///registry?host=/var/run/postgresql",
            "postgres:///registry",
            "mysql://tongban@db.example/tax?socket=/run/mysqld/mysqld.sock",
            "mysql://tongban@db.example/tax?ssl-mode=DISABLED",
        ] {
            assert_eq!(protected(kept), None, "{kept}");
        }
    }

    #[tokio::test]
    async fn who_cannot_protect_it_is_told_what_to_say() {
        crate::use_tls();
        let connector = Connector::parse("connector", "format: 1\ndepartment: registry\n").unwrap();
        // a server that says no to TLS, as PostgreSQL does, at an address of this machine that does not look like one
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address =
            format!("postgres://tongban@0.0.0.0:{}/registry", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 8];
                let _ = stream.read_exact(&mut asked).await;
                let _ = stream.write_all(b"N").await;
            }
        });
        let opened = Connected::open(&address, Path::new("."), &connector, true).await;
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("`sslmode=`"), "{error}");
        let opened =
            Connected::open(&format!("{address}?sslmode=disable"), Path::new("."), &connector, true).await;
        let error = opened.err().unwrap().to_string();
        assert!(!error.contains("`sslmode=`"), "{error}");
    }
}
