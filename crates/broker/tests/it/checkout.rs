//! Warm checkouts and workspaces made of them.

use crate::support::{NAME, World, git, write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_broker::{
    CheckoutLimits, Checkouts, RunFiles, RunRepository, SharedPlaces, Symlinks, remote_url,
};

fn checkouts(world: &World, limits: CheckoutLimits) -> Checkouts {
    Checkouts::new(Arc::clone(&world.git), world.path("checkouts"), limits).unwrap()
}

fn run_files(world: &World) -> RunFiles {
    RunFiles::new(&RunRepository {
        name: NAME.parse().unwrap(),
        commit: world.base.commit.clone(),
        base_branch: world.base.branch.clone(),
        branch: Some(world.own()),
        user_name: "builder \"x\" [tipstaff]".to_owned(),
        user_email: "agent@example.com".to_owned(),
    })
}

/// What an overlay shows: the lower tree with the upper files over it.
fn lay_over(lower: &Path, target: &Path, files: &RunFiles) {
    let status = crate::support::command("cp").arg("-a").arg(lower).arg(target).status().unwrap();
    assert!(status.success());
    files.write_into(target).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_checkout_holds_one_commit_and_no_other_ref() {
    let mut world = World::new().await;
    let checkouts = checkouts(&world, CheckoutLimits::default());
    let checkout = checkouts.warm(&world.mirror, &world.base.commit, Symlinks::Links).await.unwrap();
    let path = checkout.path();
    assert_eq!(git(path, &["rev-parse", "HEAD"]).await.succeeded().trim(), world.base.commit.as_str());
    assert_eq!(git(path, &["for-each-ref"]).await.succeeded(), "");
    assert_eq!(git(path, &["status", "--porcelain"]).await.succeeded(), "");
    assert!(path.join("src/lib.rs").is_file() && !path.join("secret.txt").exists());
    assert_eq!(std::fs::read_dir(path.join(".git/hooks")).unwrap().count(), 0);
    // Objects are the mirror's own, by link.
    let pack = std::fs::read_dir(path.join(".git/objects/pack")).unwrap().flatten().next().unwrap();
    assert!(pack.metadata().unwrap().nlink() > 1);
    // Warm means: the same folder again, nothing made.
    let again = checkouts.warm(&world.mirror, &world.base.commit, Symlinks::Links).await.unwrap();
    assert_eq!(again.path(), path);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_laid_over_a_checkout_commits_and_pushes() {
    let mut world = World::new().await;
    let checkouts = checkouts(&world, CheckoutLimits::default());
    let checkout = checkouts.warm(&world.mirror, &world.base.commit, Symlinks::Links).await.unwrap();
    let work = world.path("work");
    lay_over(checkout.path(), &work, &run_files(&world));
    let own = world.own();
    let said = git(&work, &["status", "--porcelain", "--branch"]).await.succeeded();
    assert_eq!(said.trim(), format!("## {}", own.short()));
    assert_eq!(git(&work, &["config", "user.name"]).await.succeeded().trim(), "builder \"x\" [tipstaff]");
    assert_eq!(
        git(&work, &["config", "remote.origin.url"]).await.succeeded().trim(),
        remote_url(&NAME.parse().unwrap())
    );
    let refs = git(&work, &["for-each-ref", "--format=%(refname)"]).await.succeeded();
    assert_eq!(refs.trim(), format!("{own}\nrefs/remotes/origin/main"));
    assert_eq!(
        git(&work, &["fsck", "--strict"]).await.succeeded().lines().filter(|l| l.contains("error")).count(),
        0
    );
    write(&work.join("README.md"), "changed\n");
    git(&work, &["commit", "-qam", "Change"]).await.succeeded();
    // The test's broker listens elsewhere.
    git(&work, &["remote", "set-url", "origin", &world.url()]).await.succeeded();
    let said = git(&work, &["push"]).await;
    assert!(said.ok, "a plain push goes to the own ref: {}", said.text);
    assert_eq!(world.tip().await.unwrap(), git(&work, &["rev-parse", "HEAD"]).await.succeeded().trim());
    git(&work, &["fetch"]).await.succeeded();
    // The lower layer is as it was.
    assert_eq!(git(checkout.path(), &["status", "--porcelain"]).await.succeeded(), "");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_clone_works_with_objects_at_another_path() {
    let mut world = World::new().await;
    let checkouts = checkouts(&world, CheckoutLimits::default());
    let (work, objects, mounted) = (world.path("work"), world.path("objects"), world.path("mounted"));
    let places = SharedPlaces { workspace: &work, objects: &objects, objects_inside: &mounted };
    checkouts
        .clone_shared(&world.mirror, &world.base.commit, Symlinks::Links, &places, &run_files(&world))
        .await
        .unwrap();
    assert!(!git(&work, &["log", "-1"]).await.ok, "the objects are not mounted yet");
    std::os::unix::fs::symlink(&objects, &mounted).unwrap();
    assert_eq!(git(&work, &["status", "--porcelain"]).await.succeeded(), "");
    write(&work.join("a.txt"), "a\n");
    git(&work, &["add", "."]).await.succeeded();
    git(&work, &["commit", "-qm", "Change"]).await.succeeded();
    git(&work, &["remote", "set-url", "origin", &world.url()]).await.succeeded();
    git(&work, &["push", "-q"]).await.succeeded();
    let again = checkouts
        .clone_shared(&world.mirror, &world.base.commit, Symlinks::Links, &places, &run_files(&world))
        .await;
    assert_eq!(again.unwrap_err().code(), "destination-exists");
    assert!(work.join("a.txt").is_file());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_files_where_nothing_may_follow_them() {
    let mut world = World::new().await;
    std::os::unix::fs::symlink("/etc/passwd", world.source.join("link")).unwrap();
    git(&world.source, &["add", "."]).await.succeeded();
    git(&world.source, &["commit", "-qm", "Link"]).await.succeeded();
    let pinned = world.mirror.pin(None).await.unwrap();
    let checkouts = checkouts(&world, CheckoutLimits::default());
    let with = checkouts.warm(&world.mirror, &pinned.commit, Symlinks::Links).await.unwrap();
    assert!(with.path().join("link").symlink_metadata().unwrap().is_symlink());
    let without = checkouts.warm(&world.mirror, &pinned.commit, Symlinks::Files).await.unwrap();
    assert_eq!(std::fs::read_to_string(without.path().join("link")).unwrap(), "/etc/passwd");
    assert!(!without.path().join("link").symlink_metadata().unwrap().is_symlink());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_make_one_checkout_and_half_made_ones_never_show() {
    let mut world = World::new().await;
    let checkouts = checkouts(&world, CheckoutLimits::default());
    let folder = world.path("checkouts").join(world.mirror.path().file_stem().unwrap());
    // What a killed process left.
    let left = folder.join(format!(".making-{}-1-0", world.base.commit));
    write(&left.join("half"), "x");
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (checkouts, mirror, commit) =
                (checkouts.clone(), world.mirror.clone(), world.base.commit.clone());
            tokio::spawn(async move { checkouts.warm(&mirror, &commit, Symlinks::Links).await.unwrap() })
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        made.push(task.await.unwrap());
    }
    assert!(made.iter().all(|checkout| checkout.path() == made[0].path()));
    assert!(!left.exists());
    let folders = std::fs::read_dir(&folder).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
    assert_eq!(folders, 1);
    // In use: stays. Given back: goes.
    assert_eq!(checkouts.prune(0).unwrap(), 0);
    drop(made);
    assert_eq!(checkouts.prune(1).unwrap(), 0);
    assert_eq!(checkouts.prune(0).unwrap(), 1);
    assert_eq!(std::fs::read_dir(&folder).unwrap().flatten().filter(|e| e.path().is_dir()).count(), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_the_end_of_a_run_that_uses_the_checkout() {
    let mut world = World::new().await;
    let checkouts = checkouts(&world, CheckoutLimits::default());
    let path =
        checkouts.warm(&world.mirror, &world.base.commit, Symlinks::Links).await.unwrap().path().to_owned();
    // Another process finds no checkout, and before it can make one somebody else has made it and uses it.
    let away = path.with_file_name("away");
    std::fs::rename(&path, &away).unwrap();
    let mut lock = path.clone().into_os_string();
    lock.push(".lock");
    let used = std::fs::File::open(lock).unwrap();
    used.try_lock_shared().unwrap();
    let waiting = {
        let (checkouts, mirror, commit) =
            (checkouts.clone(), world.mirror.clone(), world.base.commit.clone());
        tokio::spawn(async move { checkouts.warm(&mirror, &commit, Symlinks::Links).await.unwrap() })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    std::fs::rename(&away, &path).unwrap();
    let made = tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
    assert_eq!(made.path(), path);
    drop(used);
    drop(made);
    assert_eq!(checkouts.prune(0).unwrap(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_beyond_the_bounds_are_refused_before_a_file_is_written() {
    let mut world = World::new().await;
    // Ten levels of ten: ten thousand million files out of twenty objects.
    let blob = git(&world.source, &["rev-parse", "main:README.md"]).await.succeeded();
    let mut id = blob.trim().to_owned();
    for level in 0..10 {
        let kind = if level == 0 { "100644 blob" } else { "040000 tree" };
        let listing: String = (0..10).map(|number| format!("{kind} {id}\tf{number}\n")).collect();
        let file = world.path("listing");
        std::fs::write(&file, listing).unwrap();
        let output = crate::support::command("git")
            .current_dir(&world.source)
            .arg("mktree")
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    }
    let commit = git(&world.source, &["commit-tree", &id, "-m", "bomb"]).await.succeeded();
    git(&world.source, &["branch", "bomb", commit.trim()]).await.succeeded();
    let pinned = world.mirror.pin(Some("bomb")).await.unwrap();
    let few = CheckoutLimits { files: 5000, ..CheckoutLimits::default() };
    let error =
        checkouts(&world, few).warm(&world.mirror, &pinned.commit, Symlinks::Links).await.unwrap_err();
    assert_eq!(error.code(), "tree-too-large", "{error}");
    let small = CheckoutLimits { bytes: 1000, ..CheckoutLimits::default() };
    let error =
        checkouts(&world, small).warm(&world.mirror, &pinned.commit, Symlinks::Links).await.unwrap_err();
    assert!(error.to_string().contains("bytes"), "{error}");
    let folder = world.path("checkouts").join(world.mirror.path().file_stem().unwrap());
    assert_eq!(std::fs::read_dir(folder).unwrap().flatten().filter(|e| e.path().is_dir()).count(), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_object_of_another_branch_is_given_away() {
    let mut world = World::new().await;
    let secret = git(&world.source, &["rev-parse", "secret:secret.txt"]).await.succeeded();
    let checkouts = checkouts(&world, CheckoutLimits::default());
    let packs = |path: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(path).unwrap().flatten().map(|e| e.file_name()).collect();
        names.sort();
        names
    };
    // Alone in the mirror: links to its packs.
    let first = checkouts.warm(&world.mirror, &world.base.commit, Symlinks::Links).await.unwrap();
    assert_eq!(packs(&first.path().join(".git/objects/pack")), packs(&world.mirror.objects().join("pack")));
    // With another branch in the mirror, and after the source moved on.
    let other = world.mirror.pin(Some("secret")).await.unwrap();
    write(&world.source.join("README.md"), "moved\n");
    git(&world.source, &["commit", "-qam", "Third"]).await.succeeded();
    let moved = world.mirror.pin(None).await.unwrap();
    assert!(git(world.mirror.path(), &["cat-file", "-e", secret.trim()]).await.ok);
    let (work, objects) = (world.path("work"), world.path("objects"));
    let places = SharedPlaces { workspace: &work, objects: &objects, objects_inside: &objects };
    checkouts
        .clone_shared(&world.mirror, &moved.commit, Symlinks::Links, &places, &run_files(&world))
        .await
        .unwrap();
    let second = checkouts.warm(&world.mirror, &moved.commit, Symlinks::Links).await.unwrap();
    let older = checkouts.warm(&world.mirror, &world.base.commit, Symlinks::Files).await.unwrap();
    for path in [first.path(), second.path(), older.path(), &work] {
        assert!(git(path, &["fsck", "--full", "--strict"]).await.ok, "{path:?}");
        for object in [secret.trim(), other.commit.as_str()] {
            assert!(!git(path, &["cat-file", "-e", object]).await.ok, "{path:?} gives {object} away");
        }
    }
    assert!(!git(older.path(), &["cat-file", "-e", moved.commit.as_str()]).await.ok);
    assert!(git(second.path(), &["cat-file", "-e", world.base.commit.as_str()]).await.ok);
    // A mirror whose fetch was cut off is never trusted to hold one history.
    std::fs::write(world.mirror.path().join("tipstaff-doubt"), "").unwrap();
    checkouts.prune(0).unwrap();
    drop((first, second, older));
    checkouts.prune(0).unwrap();
    let again = checkouts.warm(&world.mirror, &other.commit, Symlinks::Links).await.unwrap();
    assert!(!git(again.path(), &["cat-file", "-e", moved.commit.as_str()]).await.ok);
    world.stop().await;
}
