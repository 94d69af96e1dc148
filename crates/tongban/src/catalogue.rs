//! `tongban resource` and `basis`: what a department publishes on the ledger.

use crate::{archive::client, client::Refused, govern::Own, say};
use anyhow::{Result, ensure};
use clap::Subcommand;
use model::{
    ApprovalId, ApproveBasis, Body, DepartmentId, DescribeResource, FieldId, MatterId, Resource, ResourceId,
};
use node::Config;
use serde_json::{Value, json};
use std::path::PathBuf;

/// `tongban resource …`.
#[derive(Subcommand)]
pub enum ResourceCommand {
    /// Compare the connector's resources with the catalogue on the ledger. Exits 1 where something is not published as declared.
    ///
    /// Example: tongban resource check --config nodes/tax/node.toml
    Check {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Publish the connector's resources on the ledger: those that are new, or declared otherwise than published.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban resource publish --config nodes/tax/node.toml
    Publish {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Only say what would be published.
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// List the catalogue, or the entries that have all words of a search in their name, title, holder or fields.
    ///
    /// Example: tongban resource list 不动产 --config nodes/tax/node.toml
    List {
        /// What to search for.
        words: Vec<String>,
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Show one entry.
    ///
    /// Example: tongban resource show registry.title --config nodes/tax/node.toml
    Show {
        /// The entry.
        id: ResourceId,
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

/// `tongban basis …`.
#[derive(Subcommand)]
pub enum BasisCommand {
    /// As holder, approve that a department may use a resource of yours in a matter under a statutory duty.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban basis approve restriction-check --asker bureau --matter house-transfer
    /// --resource registry.restriction --names seized,objected --citation 不动产登记暂行条例第二十二条 --days 365
    /// --config nodes/registry/node.toml
    Approve {
        /// The approval's name; matters refer to it.
        id: ApprovalId,
        /// Who may ask.
        #[arg(long)]
        asker: DepartmentId,
        /// In which matter.
        #[arg(long)]
        matter: MatterId,
        /// For which of your resources.
        #[arg(long)]
        resource: ResourceId,
        /// For which fields or predicates.
        #[arg(long, value_delimiter = ',', required = true)]
        names: Vec<FieldId>,
        /// The statute.
        #[arg(long)]
        citation: String,
        /// For how many days from now.
        #[arg(long, default_value_t = 365)]
        days: u64,
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

impl ResourceCommand {
    /// Whether it prints one JSON document.
    pub fn json(&self) -> bool {
        let (Self::Check { json, .. }
        | Self::Publish { json, .. }
        | Self::List { json, .. }
        | Self::Show { json, .. }) = self;
        *json
    }
}

impl BasisCommand {
    /// Whether it prints one JSON document.
    pub fn json(&self) -> bool {
        let Self::Approve { json, .. } = self;
        *json
    }
}

/// How something declared stands to the ledger.
struct Standing {
    /// `registry.deed`, or `registry.deed, described`.
    id: String,
    /// The version that is published, or is to be.
    version: u32,
    state: &'static str,
    body: Body,
}

impl Standing {
    fn is_published(&self) -> bool {
        self.state == "published"
    }
}

/// What is on the ledger, or none where a code says that nothing is.
async fn found<T: serde::de::DeserializeOwned>(
    client: &crate::client::Client,
    path: &str,
    none: &str,
) -> Result<Option<T>> {
    match client.get(path).await {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.downcast_ref::<Refused>().is_some_and(|r| r.code == none) => Ok(None),
        Err(e) => Err(e),
    }
}

/// How what is declared stands to the catalogue, with the version to publish where it must be.
async fn standing(config: &Config) -> Result<Vec<Standing>> {
    let connector = gateway::Connector::read(&config.connector)?;
    let client = client(config);
    let mut standing = Vec::new();
    for mut resource in connector.resources.clone() {
        ensure!(
            resource.holder == config.department,
            "{} declares {} as its holder, and this is {}",
            resource.id,
            resource.holder,
            config.department
        );
        let path = format!("/api/v1/resources/{}", resource.id);
        let published: Option<Resource> = found(&client, &path, "unknown_resource").await?;
        let state = match published {
            None => {
                resource.version = 1;
                "new"
            }
            Some(published) => {
                resource.version = published.version;
                if published == resource {
                    "published"
                } else {
                    resource.version += 1;
                    "changed"
                }
            }
        };
        let (id, version) = (resource.id.to_string(), resource.version);
        standing.push(Standing { id, version, state, body: Body::PublishResource(resource) });
    }
    for (id, description) in connector.descriptions {
        ensure!(
            connector.resources.iter().any(|r| r.id == id),
            "{} is described and is no resource of this connector",
            id
        );
        let path = format!("/api/v1/resources/{id}/description");
        let published: Option<DescribeResource> = found(&client, &path, "no_description").await?;
        let (version, state) = match published {
            None => (1, "new"),
            Some(published) if published.description == description => (published.version, "published"),
            Some(published) => (published.version + 1, "changed"),
        };
        let label = format!("{id}, described");
        let body = Body::DescribeResource(DescribeResource { resource: id, version, description });
        standing.push(Standing { id: label, version, state, body });
    }
    Ok(standing)
}

/// Runs `tongban resource …`. Says no where the answer is no.
pub async fn resource(command: ResourceCommand) -> Result<Option<String>> {
    match command {
        ResourceCommand::Check { config, json } => {
            let standing = standing(&Config::read(&config)?).await?;
            say_standing(&standing, json);
            let n = standing.iter().filter(|s| !s.is_published()).count();
            Ok((n > 0).then(|| {
                format!("{n} resource(s) are not published as declared: `tongban resource publish`")
            }))
        }
        ResourceCommand::Publish { config, dry_run, json } => {
            let own = Own::open(&config)?;
            let mut standing = standing(&own.config).await?;
            let (protocol, mut too_new) = (own.protocol().await?, 0);
            for one in standing.iter_mut().filter(|s| !s.is_published()) {
                if one.body.since() > protocol {
                    one.state = "needs a later protocol";
                    too_new += 1;
                } else if !dry_run {
                    own.submit(one.body.clone()).await?;
                    one.state = "published now";
                }
            }
            say_standing(&standing, json);
            if own.outdated().await? {
                eprintln!("the running node began with other files, and answers by those: start it again");
            }
            Ok((too_new > 0).then(|| {
                format!(
                    "{too_new} of them the consortium does not know at protocol {protocol}: `tongban governance propose --protocol {}`",
                    protocol + 1
                )
            }))
        }
        ResourceCommand::List { words, config, json } => {
            let mut path = url_of("/api/v1/resources", &words.join(" "));
            path.push_str("&limit=500");
            let found: Value = client(&Config::read(&config)?).get(&path).await?;
            if json {
                say!("{found}");
                return Ok(None);
            }
            let resources: Vec<Resource> = serde_json::from_value(found["resources"].clone())?;
            for resource in &resources {
                say!(
                    "{:<28} v{:<3} {:<10} {}",
                    resource.id.as_str(),
                    resource.version,
                    resource.holder.as_str(),
                    resource.title.zh
                );
            }
            say!("{} of {}", resources.len(), found["total"]);
            Ok(None)
        }
        ResourceCommand::Show { id, config, json } => {
            let resource: Value =
                client(&Config::read(&config)?).get(&format!("/api/v1/resources/{id}")).await?;
            match json {
                true => say!("{resource}"),
                false => say!("{}", serde_json::to_string_pretty(&resource)?),
            }
            Ok(None)
        }
    }
}

fn url_of(path: &str, query: &str) -> String {
    let encoded: String = query
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    format!("{path}?q={encoded}")
}

fn say_standing(standing: &[Standing], json: bool) {
    if json {
        let resources: Vec<_> =
            standing.iter().map(|s| json!({ "id": s.id, "version": s.version, "status": s.state })).collect();
        say!("{}", json!({ "resources": resources }));
    } else {
        standing.iter().for_each(|s| say!("{:<14} {} version {}", s.state, s.id, s.version));
    }
}

/// Runs `tongban basis …`.
pub async fn basis(command: BasisCommand) -> Result<()> {
    let BasisCommand::Approve { id, asker, matter, resource, names, citation, days, config, json } = command;
    let own = Own::open(&config)?;
    let expires_ms = crate::govern::now_ms() + days * 86_400_000;
    let approval = ApproveBasis {
        id: id.clone(),
        asker: asker.clone(),
        matter: matter.clone(),
        resource,
        names,
        citation,
        expires_ms,
    };
    let command = own.submit(Body::ApproveBasis(approval)).await?;
    if json {
        say!("{}", json!({ "id": id, "command": command, "expires_ms": expires_ms }));
    } else {
        say!("{asker} may ask in {matter} under `{id}` for {days} days");
    }
    Ok(())
}
