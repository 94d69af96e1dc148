//! `tongban project`: what a department registers that it uses data for, with all it needs, in one file.

use crate::sharing::{Read, Write, list, public, read_toml, submit, word};
use anyhow::{Result, ensure};
use clap::Subcommand;
use model::*;
use node::Config;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;

/// `tongban project …`.
#[derive(Subcommand)]
pub enum ProjectCommand {
    /// Register an application project from a file, and ask its holders for all it needs.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban project register one-stop.toml --config nodes/bureau/node.toml
    Register {
        /// The project's file; docs/sharing.md describes it.
        file: PathBuf,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// End a project at once, and with it all that was granted for it.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban project end one-stop --note "its purpose is served" --config nodes/bureau/node.toml
    End {
        /// The project.
        id: ProjectId,
        /// Whose it is, where a coordinator ends it.
        #[arg(long)]
        owner: Option<DepartmentId>,
        /// Why; everybody can read it.
        #[arg(long)]
        note: String,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// List application projects.
    ///
    /// Example: tongban project list --open --config nodes/audit/node.toml
    List {
        /// Only those that go on.
        #[arg(long)]
        open: bool,
        /// How.
        #[command(flatten)]
        read: Read,
    },
}

/// A project's file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ProjectFile {
    /// The version of this format: 1.
    format: u32,
    /// The project's name, unique with its department.
    id: ProjectId,
    /// What people call it.
    title: Text,
    /// What it is for.
    purpose: Text,
    /// The statute it serves.
    citation: String,
    /// The last day.
    until: Day,
    /// All it uses.
    needs: Vec<NeedEntry>,
}

/// What a project uses of one resource in the cases of one matter.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NeedEntry {
    /// The name of the basis, once granted; the matter's package refers to it.
    basis: ApprovalId,
    /// Who holds it.
    holder: DepartmentId,
    /// The resource.
    resource: ResourceId,
    /// The fields and predicates.
    names: Vec<FieldId>,
    /// The matter in whose cases it is used.
    matter: MatterId,
    /// How many calls a day.
    per_day: u32,
    /// What for, where it is not what the project is for.
    purpose: Option<Text>,
    /// The statute, where it is not the project's.
    citation: Option<String>,
}

/// The JSON Schema of a project's file.
pub fn project_schema() -> Value {
    schemars::schema_for!(ProjectFile).to_value()
}

impl ProjectCommand {
    /// Whether it prints one JSON document.
    pub fn json(&self) -> bool {
        match self {
            Self::List { read, .. } => read.json,
            Self::Register { write, .. } | Self::End { write, .. } => write.json,
        }
    }
}

/// Runs `tongban project …`.
pub async fn project(command: ProjectCommand) -> Result<()> {
    match command {
        ProjectCommand::Register { file, write } => {
            let project: ProjectFile = read_toml(&file)?;
            ensure!(project.format == 1, "{}: say `format = 1`", file.display());
            submit(&write, registration(project)?).await
        }
        ProjectCommand::End { id, owner, note, write } => {
            public("--note", &note)?;
            let owner = match owner {
                Some(owner) => owner,
                None => Config::read(&write.config)?.department,
            };
            let words =
                format!("end the project `{id}` of {owner}: nothing more is granted or answered for it");
            submit(&write, vec![(Body::EndProject(EndProject { owner, id, note }), words)]).await
        }
        ProjectCommand::List { open, read } => {
            list("/api/v1/projects", "projects", open, &read, |p| {
                let project = &p["project"];
                format!(
                    "{:<24} {:<12} {:<8} {} needs until {}  {}",
                    word(project, "id"),
                    word(p, "owner"),
                    word(p, "state"),
                    project["needs"].as_array().map_or(0, Vec::len),
                    Day::of(project["until_ms"].as_u64().unwrap_or(0)),
                    word(&project["title"], "en"),
                )
            })
            .await
        }
    }
}

/// The registration of a project and a request for each of its needs.
fn registration(file: ProjectFile) -> Result<Vec<(Body, String)>> {
    let ProjectFile { id, title, purpose, citation, until, needs, .. } = file;
    for (what, text) in [
        ("title", &title.zh),
        ("title", &title.en),
        ("purpose", &purpose.zh),
        ("purpose", &purpose.en),
        ("citation", &citation),
    ] {
        public(what, text)?;
    }
    ensure!(!needs.is_empty(), "needs: a project that needs nothing need not be registered");
    let uses = needs.iter().map(|n| Use {
        holder: n.holder.clone(),
        resource: n.resource.clone(),
        names: n.names.clone(),
        matter: n.matter.clone(),
        per_day: n.per_day,
    });
    let until_ms = until.ends_ms();
    let project = RegisterProject {
        id: id.clone(),
        title,
        purpose: purpose.clone(),
        citation: citation.clone(),
        needs: uses.collect(),
        until_ms,
    };
    let mut bodies = vec![(Body::RegisterProject(project), format!("register the project `{id}`"))];
    for need in needs {
        let purpose = need.purpose.unwrap_or_else(|| purpose.clone());
        let citation = need.citation.unwrap_or_else(|| citation.clone());
        public("purpose", &purpose.zh)?;
        public("purpose", &purpose.en)?;
        public("citation", &citation)?;
        let words = format!("ask {} for {} as `{}`", need.holder, need.resource, need.basis);
        let request = RequestShare {
            id: need.basis,
            holder: need.holder,
            resource: need.resource,
            names: need.names,
            matter: need.matter,
            project: Some(id.clone()),
            citation,
            purpose,
            per_day: need.per_day,
            until_ms,
        };
        bodies.push((Body::RequestShare(request), words));
    }
    Ok(bodies)
}
