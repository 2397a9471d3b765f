#![doc = include_str!("../README.md")]

mod begin;
mod bound;
mod cli;
mod commands;
mod config;
mod context;
mod control;
mod env;
mod exit;
mod git_credential;
mod kept;
mod landed;
mod learn;
mod models;
mod notify;
mod output;
mod policies;
mod privacy;
mod setup;
mod transcript;
mod tui;
mod under;
mod watch;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use context::Context;
use env::Environment;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Inside a sandbox this very program is the stage that confines and then becomes the command.
    tipstaff_sandbox::init_stage_if_requested();
    let cli = Cli::parse();
    let env = Environment::read();
    let output = Output::new(cli.json, env.no_color);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::from(error), &output),
    };
    let ended = runtime.block_on(dispatch(cli.command, env, output));
    // Blocking threads that wait for a dead store must not hold the program up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ended.unwrap_or_else(|error| exit::report(&error, &output))
}

async fn dispatch(command: Command, env: Environment, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tipstaff", &mut script);
            output.bytes(&script);
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { dir } => manual(dir.as_deref(), &output),
        Command::Sandbox(command) => commands::sandbox::sandbox(command, env, output).await,
        Command::Database(cli::DatabaseCommand::Prepare) => commands::database::prepare(&env, &output).await,
        Command::Redact(arguments) => commands::redact::redact(&arguments, &output),
        Command::Doctor => commands::doctor::doctor(env, output).await,
        Command::Bench(command) => commands::bench::bench(command, env, output).await,
        Command::Audit(command) if command.is_offline() => commands::audit::offline(command, &output),
        Command::GitCredential { operation } => {
            Ok(commands::publish::git_credential(&operation, &env, &output))
        }
        Command::Provenance(command) if command.is_offline() => {
            commands::provenance::offline(command, &env, &output).await
        }
        Command::Provenance(command) => {
            commands::provenance::provenance(command, Context::open(env, output).await?).await
        }
        Command::Run(arguments) => {
            // Our git and the sandbox are tried while the store opens.
            let layout = context::layout(&env)?;
            let trying = context::try_sandbox(&env, &layout)?;
            let (context, git) =
                tokio::join!(Context::open(env.clone(), output), context::git(&env, &layout));
            commands::run::run(*arguments, context?, git?, trying).await
        }
        Command::Runs(command) => commands::runs::runs(command, Context::open(env, output).await?).await,
        Command::Watch(arguments) => {
            commands::watch::watch(&arguments, &Context::open(env, output).await?).await
        }
        Command::Warrants(command) => {
            commands::warrants::warrants(command, Context::open(env, output).await?).await
        }
        Command::Approvals(command) => {
            commands::approvals::approvals(command, Context::open(env, output).await?).await
        }
        Command::Policy(command) => {
            commands::policy::policy(command, Context::open(env, output).await?).await
        }
        Command::Agents(command) => {
            commands::agents::agents(command, Context::open(env, output).await?).await
        }
        Command::Worker(arguments) => {
            commands::worker::worker(&arguments, Context::open(env, output).await?).await
        }
        Command::Audit(command) => commands::audit::audit(command, Context::open(env, output).await?).await,
        Command::Keys(command) => commands::keys::keys(command, Context::open(env, output).await?).await,
        Command::Secrets(command) => {
            commands::secrets::secrets(command, Context::open(env, output).await?).await
        }
        Command::Models(command) => {
            commands::models::models(command, Context::open(env, output).await?).await
        }
        Command::Prices(command) => {
            commands::prices::prices(command, Context::open(env, output).await?).await
        }
        Command::Projects(command) => {
            commands::projects::projects(command, Context::open(env, output).await?).await
        }
        Command::Budgets(command) => {
            commands::budgets::budgets(command, Context::open(env, output).await?).await
        }
        Command::Retention(command) => {
            commands::retention::retention(command, Context::open(env, output).await?).await
        }
        Command::Setup(command) => commands::setup::setup(command, Context::open(env, output).await?).await,
        Command::Costs(arguments) => {
            commands::costs::costs(arguments, Context::open(env, output).await?).await
        }
    }
}

fn manual(dir: Option<&std::path::Path>, output: &Output) -> anyhow::Result<ExitCode> {
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(Cli::command(), dir)?;
            output.note(&format!("the manual pages are in {}", dir.display()));
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            output.bytes(&page);
        }
    }
    Ok(ExitCode::SUCCESS)
}
