//! The set-up of a run's repository: what is to be done, and which hosts it may reach.

use crate::config::SetupConfig;
use crate::context::Context;
use crate::exit::Problem;
use tipstaff_broker::{Mirror, Source};
use tipstaff_model::warrant::{HostChoice, HostPattern, SetupGrant};
use tipstaff_model::{SetupChoice, TaskSpec};
use tipstaff_runner::{JobSetup, SetupPlan, SetupTable};

/// A set-up with what the warrant grants to it.
#[derive(Debug, Clone)]
pub(crate) struct PlannedSetup {
    pub(crate) job: JobSetup,
    pub(crate) grant: SetupGrant,
}

/// The set-up of a task; `None` where its base commit has none.
pub(crate) async fn planned(
    context: &Context,
    mirror: &Mirror,
    task: &TaskSpec,
    table: &SetupTable,
) -> anyhow::Result<Option<PlannedSetup>> {
    let found = SetupPlan::of_commit(mirror, &task.base_commit, table).await;
    if task.setup == SetupChoice::Skip {
        // It may be left out because it can't be used.
        return Ok(found
            .ok()
            .flatten()
            .map(|plan| planned_of(context, task, plan, SetupGrant { egress: Vec::new() })));
    }
    let Some(plan) = found? else { return Ok(None) };
    let grant = granted(&context.config.setup, task, &plan.table)?;
    Ok(Some(planned_of(context, task, plan, grant)))
}

fn planned_of(context: &Context, task: &TaskSpec, plan: SetupPlan, grant: SetupGrant) -> PlannedSetup {
    let tree = match crate::begin::source_from(&task.source) {
        Ok(Source::Local(local)) => Some(local.root),
        _ => None,
    };
    let job = JobSetup { plan, choice: task.setup, tree, bounds: context.config.setup.bounds() };
    PlannedSetup { job, grant }
}

/// The hosts that a set-up may reach: those that the operator allows to every set-up, and those that the person grants to
/// the run.
fn granted(config: &SetupConfig, task: &TaskSpec, table: &SetupTable) -> anyhow::Result<SetupGrant> {
    let allowed: Vec<HostPattern> = config.hosts()?.iter().flat_map(HostChoice::hosts).collect();
    let of_run: Vec<HostPattern> = task
        .allow_hosts
        .iter()
        .filter_map(|host| host.parse::<HostChoice>().ok())
        .flat_map(|choice| choice.hosts())
        .collect();
    let mut egress: Vec<HostPattern> = Vec::new();
    for choice in &table.hosts {
        for host in choice.hosts() {
            if !allowed.iter().chain(&of_run).any(|one| one.covers(&host)) {
                let text = format!(
                    "setup.hosts in tipstaff.toml asks for {choice}, which no set-up may reach here; grant it to this run with --allow-host {choice}, let every set-up reach it with [setup] hosts in config.toml, or leave the set-up out with --no-setup"
                );
                return Err(Problem::refused("setup-host-not-granted", text));
            }
            if !egress.contains(&host) {
                egress.push(host);
            }
        }
    }
    Ok(SetupGrant { egress })
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{} KiB", count >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", count >> 20),
        _ => format!("{}.{} GiB", count >> 30, (count >> 20) % 1024 * 10 / 1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        assert_eq!((bytes(7), bytes(2_048), bytes(5 << 20)), ("7 B".into(), "2 KiB".into(), "5 MiB".into()));
        assert_eq!(bytes((3 << 30) + (512 << 20)), "3.5 GiB");
    }
}
