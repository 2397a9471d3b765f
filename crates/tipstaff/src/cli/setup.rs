//! The part of the command line about what set-ups made.

use clap::Subcommand;

/// `tipstaff setup …`
#[derive(Debug, Subcommand)]
pub(crate) enum SetupCommand {
    /// What set-ups made and is kept for later runs, the one that was used last first
    #[command(after_help = "\
A set-up is .tipstaff/setup in the base commit, with [setup] in tipstaff.toml. `tipstaff run --dry-run` shows what would be
done, and whether it is kept already.

Examples:
  tipstaff setup list
  tipstaff setup clear --repository local/site
  tipstaff run --fresh-setup -- npm test")]
    List,
    /// Remove what set-ups made; the next run does them again. What a run uses now stays
    Clear {
        /// Only this one: its key, or the beginning of it
        #[arg(value_name = "KEY", conflicts_with = "repository")]
        key: Option<String>,
        /// Only those of this repository, as `tipstaff setup list` names it
        #[arg(long, value_name = "NAME")]
        repository: Option<String>,
    },
}
