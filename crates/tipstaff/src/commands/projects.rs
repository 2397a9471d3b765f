//! `tipstaff projects`: repositories whose money is counted together.

use crate::cli::ProjectsCommand;
use crate::context::Context;
use crate::exit::Problem;
use serde_json::json;
use std::process::ExitCode;
use tipstaff_model::{AuditAction, AuditDraft, RepositoryName};
use tipstaff_store::{OrgRead, Project, ProjectRemoval, Repository};

/// The error for a project that isn't there.
fn unknown(name: &str) -> anyhow::Error {
    let text = format!(
        "there is no project '{}'; `tipstaff projects list` shows them, `tipstaff projects add` makes one",
        name.escape_debug()
    );
    Problem::usage("project-unknown", text)
}

/// The project of a name.
pub(crate) async fn find(read: &mut OrgRead, name: &str) -> anyhow::Result<Project> {
    read.project_get(name).await?.ok_or_else(|| unknown(name))
}

async fn repository(read: &mut OrgRead, text: &str) -> anyhow::Result<Repository> {
    let known = match text.parse::<RepositoryName>() {
        Ok(name) => read.repository_by_name(&name).await?,
        Err(_) => None,
    };
    if let Some(known) = known {
        return Ok(known);
    }
    let all: Vec<String> = read.repository_list().await?.iter().map(|known| known.name.to_string()).collect();
    let known = if all.is_empty() { "none yet".to_owned() } else { all.join(", ") };
    let text = format!(
        "there is no repository '{}' here; known: {known}. One is known once it was run on: tipstaff run --repo PATH",
        text.escape_debug()
    );
    Err(Problem::usage("repository-unknown", text))
}

/// Carries out `tipstaff projects …`.
pub(crate) async fn projects(command: ProjectsCommand, context: Context) -> anyhow::Result<ExitCode> {
    let (name, step, line, repository_name) = match &command {
        ProjectsCommand::List => return list(&context).await,
        ProjectsCommand::Add { name } => (name.clone(), "add", format!("project {name} is made"), None),
        ProjectsCommand::Remove { name } => {
            (name.clone(), "remove", format!("project {name} is removed"), None)
        }
        ProjectsCommand::Assign { repository, name: Some(name) } => {
            let line =
                format!("{repository} belongs to {name}; runs that begin from now on are the project's");
            (name.clone(), "assign", line, Some(repository.clone()))
        }
        ProjectsCommand::Assign { repository, name: None } => (
            String::new(),
            "unassign",
            format!("{repository} belongs to no project"),
            Some(repository.clone()),
        ),
    };
    let mut tx = context.store.begin(context.scope()).await?;
    let mut subject = format!("project:{name}");
    match &command {
        ProjectsCommand::List => {}
        ProjectsCommand::Add { name } => {
            if !tipstaff_model::budget::project_name_is_valid(name) {
                let text = format!(
                    "'{}' can't name a project: write 1 to 40 of a-z, 0-9 and '-', starting with a letter",
                    name.escape_debug()
                );
                return Err(Problem::usage("project-name", text));
            }
            if !tx.project_add(name).await? {
                return Err(Problem::usage("project-exists", format!("there is a project {name} already")));
            }
        }
        ProjectsCommand::Assign { repository: text, name } => {
            let known = repository(&mut tx, text).await?;
            match name {
                Some(name) => {
                    let project = find(&mut tx, name).await?;
                    tx.project_assign(known.id, project.id).await?;
                }
                None => {
                    subject = format!("repository:{}", known.name);
                    if !tx.project_unassign(known.id).await? {
                        let text = format!("{} belongs to no project already", known.name);
                        return Err(Problem::usage("project-unassigned", text));
                    }
                }
            }
        }
        ProjectsCommand::Remove { name } => match tx.project_remove(name).await? {
            ProjectRemoval::Removed => {}
            ProjectRemoval::Unknown => return Err(unknown(name)),
            ProjectRemoval::HasBudget => {
                let text = format!(
                    "project {name} has a budget; remove it first: tipstaff budgets remove --project {name} --per PERIOD"
                );
                return Err(Problem::usage("project-has-budget", text));
            }
        },
    }
    let mut draft =
        AuditDraft::new(context.principal.actor(), AuditAction::ProjectSet, subject).with("step", step);
    if let Some(repository) = &repository_name {
        draft = draft.with("repository", repository);
    }
    tx.audit_note(draft);
    tx.commit().await?;
    context.pin_checkpoint().await?;
    if context.output.json {
        let name = Some(&name).filter(|name| !name.is_empty());
        context.output.object(&json!({ "project": name, "step": step, "repository": repository_name }));
    } else {
        context.output.line(&line);
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(context: &Context) -> anyhow::Result<ExitCode> {
    let mut read = context.store.read(context.scope()).await?;
    let mut all = Vec::new();
    for project in read.project_list().await? {
        let repositories: Vec<String> =
            read.project_repositories(project.id).await?.iter().map(ToString::to_string).collect();
        all.push((project, repositories));
    }
    let output = &context.output;
    if output.json {
        for (project, repositories) in &all {
            output.object(&json!({
                "id": project.id, "project": project.name, "created_at": project.created_at, "repositories": repositories,
            }));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if all.is_empty() {
        output.note("no projects yet; make one: tipstaff projects add NAME");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = all
        .into_iter()
        .map(|(project, repositories)| {
            let list = if repositories.is_empty() { "-".to_owned() } else { repositories.join(" ") };
            vec![project.name, list]
        })
        .collect();
    output.table(&["PROJECT", "REPOSITORIES"], &rows);
    Ok(ExitCode::SUCCESS)
}
