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
/// the address itself says otherwise.
fn protected(address: &str, setting: &str, value: &str) -> String {
    let Ok(url) = reqwest::Url::parse(address) else { return address.to_owned() };
    let says =
        |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    // a parameter names the host too, or a folder with a socket
    let host = says("host").or_else(|| url.host_str().map(str::to_owned)).unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let here = bare.is_empty()
        || bare == "localhost"
        || bare.starts_with('/')
        || bare.starts_with("%2F")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || says("socket").is_some();
    if here || ["sslmode", "ssl-mode"].into_iter().any(|name| says(name).is_some()) {
        return address.to_owned();
    }
    let joined = if url.query().is_some() { '&' } else { '?' };
    format!("{address}{joined}{setting}={value}")
}

/// Says what to do where a link could not be protected.
fn unprotected(error: SourceError, address: &str, setting: &str) -> SourceError {
    match error {
        SourceError::Failed(why)
            if !address.contains(setting) && why.to_ascii_lowercase().contains("tls") =>
        {
            SourceError::Failed(format!(
                "{why}. A database on another machine is reached through TLS, its certificate verified; `{setting}=…` in its address \
                 says otherwise (docs/connector.md)"
            ))
        }
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
            "postgres" | "postgresql" => {
                let opened = Postgres::open(&protected(address, "sslmode", "verify-full"), read_only).await;
                Self::Postgres(opened.map_err(|e| unprotected(e, address, "sslmode"))?)
            }
            "mysql" | "mariadb" => {
                let opened = MySql::open(&protected(address, "ssl-mode", "VERIFY_IDENTITY"), read_only).await;
                Self::MySql(opened.map_err(|e| unprotected(e, address, "ssl-mode"))?)
            }
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
        let postgres = |address: &str| protected(address, "sslmode", "verify-full");
        let remote = "postgres://tongban:a%40b@10.0.0.5/registry";
        assert_eq!(postgres(remote), format!("{remote}?sslmode=verify-full"));
        let remote = "postgres://tongban@db.example/registry?sslrootcert=/etc/ca.pem";
        assert_eq!(postgres(remote), format!("{remote}&sslmode=verify-full"));
        let remote = "postgres:///registry?host=db.example";
        assert_eq!(postgres(remote), format!("{remote}&sslmode=verify-full"));
        for kept in [
            "postgres://tongban@10.0.0.5/registry?sslmode=disable",
            "postgres://tongban@localhost/registry",
            "postgres://tongban@127.0.0.1:5433/registry",
            "postgres://tongban@[::1]/registry",
            "postgres://tongban@%2Fvar%2Frun%2Fpostgresql/registry",
            "postgres:///registry?host=/var/run/postgresql",
            "postgres:///registry",
        ] {
            assert_eq!(postgres(kept), kept);
        }
        let mysql = "mariadb://tongban@10.0.0.5/tax";
        assert_eq!(
            protected(mysql, "ssl-mode", "VERIFY_IDENTITY"),
            "mariadb://tongban@10.0.0.5/tax?ssl-mode=VERIFY_IDENTITY"
        );
    }

    #[tokio::test]
    async fn who_cannot_protect_it_is_told_what_to_say() {
        crate::use_tls();
        // a server on this machine's other address that says no to TLS, as PostgreSQL does
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 8];
                let _ = stream.read_exact(&mut asked).await;
                let _ = stream.write_all(b"N").await;
            }
        });
        let address = format!("postgres://tongban@127.0.0.1:{port}/registry");
        let opened = Postgres::open(&format!("{address}?sslmode=verify-full"), true).await;
        let error = unprotected(opened.err().unwrap(), &address, "sslmode").to_string();
        assert!(error.contains("`sslmode=…` in its address"), "{error}");
    }
}
