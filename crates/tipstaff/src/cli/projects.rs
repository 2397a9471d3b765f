//! The part of the command line about projects.

use clap::Subcommand;

/// `tipstaff projects …`
#[derive(Debug, Subcommand)]
pub(crate) enum ProjectsCommand {
    /// All projects and their repositories
    List,
    /// Make a project
    #[command(after_help = "\
Examples:
  tipstaff projects add web
  tipstaff projects assign local/site web
  tipstaff budgets set --project web --per month 100")]
    Add {
        /// Its name: 1 to 40 of a-z, 0-9 and '-', starting with a letter
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make a repository part of a project, and of no other. Runs that begin from then on are the project's
    Assign {
        /// The repository, as runs name it: `tipstaff runs show` says it, such as local/site
        #[arg(value_name = "REPOSITORY")]
        repository: String,
        /// The project; without one the repository belongs to none
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Remove a project that has no budget; its repositories belong to none then. What it spent stays on record
    Remove {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}
