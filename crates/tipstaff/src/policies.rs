//! The policies of a run: all layers joined, and what of them becomes part of its warrant.
//!
//! Promises: every layer counts, the strictest decision holds; a stored policy that can't be read stops the run, it is
//! never left out; what a rule denies is not granted, whoever asks for it.

use crate::bound::BoundSecret;
use crate::exit::Problem;
use std::path::Path;
use tipstaff_model::policy::{LARGEST_POLICY, PolicyError, Walls};
use tipstaff_model::warrant::{HostChoice, HostPattern, SetupGrant};
use tipstaff_model::{Policies, Policy, PolicyOrigin, TaskSpec};
use tipstaff_runner::{PROJECT_FILE, Project, PushRules, parse_policy};
use tipstaff_store::OrgRead;

/// The laws of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Laws {
    /// What the repository says of pushes.
    pub(crate) push: PushRules,
    /// All layers but the repository's own, which the runner reads at the base commit.
    pub(crate) layers: Policies,
    /// What its warrant lacks because of all layers.
    pub(crate) walls: Walls,
}

impl Laws {
    /// What a set-up may reach, without the hosts that a rule denies.
    pub(crate) fn without_denied(&self, mut setup: SetupGrant) -> SetupGrant {
        setup.egress.retain(|host| self.walls.keeps_out(host).is_none());
        setup
    }
}

/// A policy from a file: one of its own, or a `tipstaff.toml`.
///
/// # Errors
/// `policy-file` when it can't be read, `policy-invalid` when it is no policy.
pub(crate) fn of_file(path: &Path) -> anyhow::Result<(Policy, String)> {
    let shown = path.display();
    let unusable = |why: String| Problem::usage("policy-file", format!("{shown} can't be used: {why}"));
    let size = std::fs::metadata(path).map_err(|error| unusable(error.to_string()))?;
    if !size.is_file() {
        return Err(unusable("it is no ordinary file".to_owned()));
    }
    if size.len() > u64::try_from(LARGEST_POLICY).unwrap_or(u64::MAX) {
        return Err(invalid(&shown.to_string(), &PolicyError::TooLarge));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    let policy = if path.file_name().is_some_and(|name| name == PROJECT_FILE) {
        Project::parse(&text)?.policy
    } else {
        parse_policy(&text).map_err(|error| invalid(&shown.to_string(), &error))?
    };
    Ok((policy, text))
}

fn invalid(name: &str, error: &PolicyError) -> anyhow::Error {
    Problem::usage(error.code(), format!("{name} is no policy: {error}"))
}

/// The layers of the org and of a project, by the project's name.
pub(crate) async fn stored(read: &mut OrgRead, project: Option<&str>) -> anyhow::Result<Policies> {
    let mut layers = Policies::default();
    for one in read.policy_list().await? {
        let origin = match &one.project {
            None => PolicyOrigin::Org,
            Some(name) if Some(name.as_str()) == project => PolicyOrigin::Project(name.clone()),
            Some(_) => continue,
        };
        let policy = parse_policy(&one.text).map_err(|error| {
            Problem::refused(
                error.code(),
                format!("the policy of {origin} can't be read ({error}), so nothing starts under it: tipstaff policy set"),
            )
        })?;
        layers.add(origin, policy);
    }
    Ok(layers)
}

/// All layers of a task but the repository's own.
pub(crate) async fn layers(read: &mut OrgRead, task: &TaskSpec, now_ms: i64) -> anyhow::Result<Policies> {
    let project = match read.repository_by_source(&task.source).await? {
        Some(repository) => read.project_of(repository.id).await?.map(|project| project.name),
        None => None,
    };
    let mut layers = stored(read, project.as_deref()).await?;
    for policy in crate::under::policies(read, task).await? {
        layers.add(PolicyOrigin::RunAbove, policy);
    }
    layers.add(PolicyOrigin::Run, task.policy.clone());
    Ok(layers.at(now_ms))
}

/// The laws of a task whose repository says this of itself.
///
/// # Errors
/// `policy-denied` when a host is asked for that a rule denies.
pub(crate) async fn laws(
    read: &mut OrgRead,
    task: &TaskSpec,
    bound: &[BoundSecret],
    project: Project,
    now_ms: i64,
) -> anyhow::Result<Laws> {
    let layers = layers(read, task, now_ms).await?;
    let mut all = layers.clone();
    all.add(PolicyOrigin::Repository, project.policy);
    let walls = all.at(now_ms).walls(task.role);
    let (mut egress, mut hosts) = (crate::begin::egress_of(&chosen(task)?), task.host_rules.clone());
    crate::bound::grants(bound, &mut egress, &mut hosts);
    keep_out(&mut egress, task, &walls)?;
    Ok(Laws { push: project.push, layers, walls })
}

/// The hosts and classes that a task names.
pub(crate) fn chosen(task: &TaskSpec) -> anyhow::Result<Vec<HostChoice>> {
    let read = task.allow_hosts.iter().map(|host| host.parse::<HostChoice>()).collect::<Result<Vec<_>, _>>();
    read.map_err(|error| Problem::usage("host-pattern", error.to_string()))
}

/// Takes the hosts away that a rule denies: quietly where a class brought them, with an error where they were asked for.
pub(crate) fn keep_out(egress: &mut Vec<HostPattern>, task: &TaskSpec, walls: &Walls) -> anyhow::Result<()> {
    if walls.hosts.is_empty() {
        return Ok(());
    }
    let of_classes: Vec<HostPattern> = chosen(task)?
        .iter()
        .filter(|choice| matches!(choice, HostChoice::Class(_)))
        .flat_map(HostChoice::hosts)
        .collect();
    let named: Vec<HostPattern> = chosen(task)?
        .iter()
        .filter(|choice| matches!(choice, HostChoice::Host(_)))
        .flat_map(HostChoice::hosts)
        .collect();
    let mut refused = None;
    egress.retain(|host| match walls.keeps_out(host) {
        None => true,
        Some(_) if of_classes.contains(host) && !named.contains(host) => false,
        Some(wall) => {
            refused.get_or_insert_with(|| {
                let part = if wall.what.covers(&host.at_port(wall.what.port())) {
                    ""
                } else {
                    " in part, and a warrant has no exceptions"
                };
                format!(
                    "{host} is denied{part}: {} ({}). Leave it away, or ask who keeps that policy",
                    wall.because, wall.what
                )
            });
            true
        }
    });
    match refused {
        Some(text) => Err(Problem::refused("policy-denied", text)),
        None => Ok(()),
    }
}
