//! Measures a workspace of a local repository against a full clone of it: `workspace REPOSITORY FOLDER`.
//!
//! Prints one line of JSON with milliseconds: the full `file://` clone, the mirror and the checkout when there is
//! nothing yet, and both again when they are warm. The folder must not exist; it is left for a look.

#![expect(clippy::print_stdout, reason = "a program that prints what it measured")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tipstaff_broker::{
    BrokerError, CheckoutLimits, Checkouts, Git, MirrorLimits, Mirrors, PlainHttp, Quarantine, RunFiles,
    RunRepository, SharedPlaces, Source, Symlinks,
};
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BrokerError> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(repository), Some(folder)) = (arguments.next(), arguments.next()) else {
        println!("usage: workspace REPOSITORY FOLDER");
        return Ok(());
    };
    let folder = PathBuf::from(folder);
    let program = Git::find(OsStr::new("/usr/local/bin:/usr/bin:/bin"))?;
    let git = Arc::new(Git::open(program, folder.join("git")).await?);
    let source = Source::parse(&repository, Path::new("/"), PlainHttp::LoopbackOnly)?;
    let mut lines = Vec::new();
    let mut note = |what: &str, since: Instant| {
        lines.push(format!("\"{what}\":{:.1}", since.elapsed().as_secs_f64() * 1000.0));
    };

    let since = Instant::now();
    let clone = git
        .command("clone")
        .args(["--quiet", "--no-local"])
        .arg(&repository)
        .arg(folder.join("clone"))
        .protocols("file")
        .reading_source([PathBuf::from(&repository), Path::new(&repository).join(".git")])
        .config("transfer.fsckObjects", "false")
        .config("fetch.fsckObjects", "false")
        .timeout(Duration::from_secs(3600));
    clone.run().await?;
    note("full_clone", since);

    let mirrors = Mirrors::new(Arc::clone(&git), folder.join("mirrors"), MirrorLimits::default())?;
    let checkouts = Checkouts::new(Arc::clone(&git), folder.join("checkouts"), CheckoutLimits::default())?;
    let since = Instant::now();
    let mirror = mirrors.open(&source).await?;
    let base = mirror.pin(None).await?;
    note("mirror_cold", since);
    let since = Instant::now();
    drop(checkouts.warm(&mirror, &base.commit, Symlinks::Links).await?);
    note("checkout_cold", since);

    let run = RunFiles::new(&RunRepository {
        name: source.repository_name(),
        commit: base.commit.clone(),
        base_branch: base.branch.clone(),
        branch: None,
        user_name: "bench".to_owned(),
        user_email: "bench@localhost".to_owned(),
    });
    for round in 0..5 {
        let since = Instant::now();
        let mirror = mirrors.open(&source).await?;
        let base = mirror.pin(None).await?;
        note(&format!("mirror_warm_{round}"), since);
        let since = Instant::now();
        let _checkout = checkouts.warm(&mirror, &base.commit, Symlinks::Links).await?;
        run.write_into(&folder.join(format!("upper-{round}")))?;
        note(&format!("checkout_warm_{round}"), since);
        let since = Instant::now();
        Quarantine::create(Arc::clone(&git), &folder.join(format!("q-{round}.git")), &mirror, &base).await?;
        note(&format!("quarantine_{round}"), since);
    }
    let since = Instant::now();
    let (workspace, objects) = (folder.join("shared"), folder.join("shared-objects"));
    let places = SharedPlaces { workspace: &workspace, objects: &objects, objects_inside: &objects };
    checkouts.clone_shared(&mirror, &base.commit, Symlinks::Links, &places, &run).await?;
    note("clone_shared", since);
    println!("{{{}}}", lines.join(","));
    Ok(())
}
