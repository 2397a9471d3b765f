//! Clones that git counts ahead for: they say the same as slow ones, whatever happens around them.

use crate::support::{Options, World, git, write};
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use tipstaff_broker::Quarantine;

/// Commits upon a branch of the source, each with a file, a folder and a message of its own.
async fn add_commits(path: &Path, branch: &str, commits: usize) {
    let (path, branch) = (path.to_owned(), branch.to_owned());
    tokio::task::spawn_blocking(move || {
        let tip = std::fs::read_to_string(path.join(".git/refs/heads").join(&branch)).unwrap_or_default();
        let mut stream = String::new();
        for number in 0..commits {
            let from = if number == 0 && !tip.is_empty() { format!("from {tip}") } else { String::new() };
            let text = format!("{branch} {tip} {number}\n");
            stream.push_str(&format!(
                "commit refs/heads/{branch}\ncommitter A <a@b.c> 1700000000 +0000\ndata 1\nx\n{from}M 100644 inline src/file\ndata {}\n{text}",
                text.len()
            ));
        }
        let mut child = crate::support::command("git")
            .current_dir(&path)
            .args(["fast-import", "--quiet", "--force"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    })
    .await
    .unwrap();
}

async fn large() -> World {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir_all(&source).unwrap();
    git(&source, &["init", "-q", "-b", "main"]).await.succeeded();
    // Four objects each: enough for a bitmap to be worth it.
    add_commits(&source, "main", 2_600).await;
    git(&source, &["reset", "-q", "--hard"]).await.succeeded();
    World::around(dir, source, Options::default()).await
}

fn bitmaps(objects: &Path) -> usize {
    let entries = std::fs::read_dir(objects.join("pack")).unwrap().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "bitmap")).count()
}

/// All objects of a clone through the broker, sorted.
async fn cloned(world: &World, name: &str) -> String {
    let path = world.path(name);
    git(world.dir.path(), &["clone", "-q", "--bare", &world.url(), path.to_str().unwrap()]).await.succeeded();
    git(&path, &["fsck", "--full", "--strict"]).await.succeeded();
    objects(&path).await
}

async fn objects(repository: &Path) -> String {
    let listing = ["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"];
    git(repository, &listing).await.succeeded()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_the_same_with_and_without_a_bitmap() {
    let mut world = large().await;
    let slow = cloned(&world, "slow").await;
    assert!(world.quarantine.quicken(&world.mirror).await.unwrap());
    assert_eq!((bitmaps(&world.mirror.objects()), bitmaps(&world.quarantine.path().join("objects"))), (1, 1));
    assert_eq!(cloned(&world, "quick").await, slow);
    let compare = ["rev-list", "--test-bitmap", world.base.commit.as_str()];
    let said = git(world.quarantine.path(), &compare).await.succeeded();
    assert!(said.contains("OK!"), "{said}");

    // What is pushed on top is in the next clone.
    let clone = world.clone_to("work").await;
    world.commit(&clone, "new.rs", "pub fn new() {}\n").await;
    let own = world.own();
    world.push(&clone, &[], &[own.short()]).await.succeeded();
    let more = cloned(&world, "more").await;
    assert_eq!(more.lines().count(), slow.lines().count() + 3, "a commit, a tree and a blob");

    // A run on what the source got since has it all, and what is little is not counted anew.
    add_commits(&world.source, "main", 20).await;
    let base = world.mirror.pin(None).await.unwrap();
    let next =
        Quarantine::create(world.git.clone(), &world.path("next.git"), &world.mirror, &base).await.unwrap();
    assert!(next.quicken(&world.mirror).await.unwrap());
    git(next.path(), &["fsck", "--full", "--strict", "--connectivity-only"]).await.succeeded();
    assert_eq!(bitmaps(&world.mirror.objects()), 1);
    git(world.dir.path(), &["clone", "-q", "--bare", next.path().to_str().unwrap(), "next"])
        .await
        .succeeded();
    git(&world.source, &["fetch", "-q", next.path().to_str().unwrap(), "main"]).await.succeeded();
    let (there, here) = (objects(&world.path("next")).await, objects(&world.source).await);
    assert_eq!(there, here);

    // The first run's quarantine has not the packs of the second, and what it has stays right.
    assert!(!world.quarantine.quicken(&world.mirror).await.unwrap());
    assert_eq!(cloned(&world, "again").await, more);
    assert_eq!(world.stop().await.refusals_total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_repository_and_a_cut_one_never_pay() {
    let world = World::new().await;
    assert!(!world.quarantine.quicken(&world.mirror).await.unwrap());
    assert_eq!(bitmaps(&world.mirror.objects()), 0);

    let large = large().await;
    let shallow = large.path("shallow");
    let source = format!("file://{}", large.source.to_str().unwrap());
    git(large.dir.path(), &["clone", "-q", "--depth=1", &source, shallow.to_str().unwrap()])
        .await
        .succeeded();
    let git_again = crate::support::open_git(&large.path("again")).await;
    let mirrors =
        tipstaff_broker::Mirrors::new(git_again.clone(), large.path("other"), Default::default()).unwrap();
    let mirror = mirrors.open(&crate::support::source_at(&shallow)).await.unwrap();
    let base = mirror.pin(None).await.unwrap();
    let quarantine = Quarantine::create(git_again, &large.path("cut.git"), &mirror, &base).await.unwrap();
    assert!(mirror.is_shallow());
    assert!(!quarantine.quicken(&mirror).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_among_others_is_counted_by_itself() {
    let mut world = large().await;
    git(&world.source, &["branch", "side"]).await.succeeded();
    add_commits(&world.source, "side", 30).await;
    add_commits(&world.source, "main", 30).await;
    let side = world.mirror.pin(Some("side")).await.unwrap();
    let main = world.mirror.pin(Some("main")).await.unwrap();
    for (name, base, other) in [("main.git", &main, &side), ("side.git", &side, &main)] {
        let made =
            Quarantine::create(world.git.clone(), &world.path(name), &world.mirror, base).await.unwrap();
        assert!(made.quicken(&world.mirror).await.unwrap(), "{name}");
        let all = objects(made.path()).await;
        assert!(all.contains(base.commit.as_str()) && !all.contains(other.commit.as_str()), "{name}");
        let copy = format!("{name}-copy");
        git(world.dir.path(), &["clone", "-q", "--bare", made.path().to_str().unwrap(), &copy])
            .await
            .succeeded();
        assert_eq!(objects(&world.path(&copy)).await, all);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_and_what_the_dead_left_do_no_harm() {
    let mut world = large().await;
    let folder = world.mirror.objects().join("pack");
    // What a killed git leaves: its lock, half a bitmap, and half of the note of ours.
    for name in ["multi-pack-index.lock", "tmp_bitmap_abc123", "tmp_midx_abc123"] {
        write(&folder.join(name), "half");
    }
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let (quarantine, mirror) = (world.quarantine.clone(), world.mirror.clone());
            tokio::spawn(async move { quarantine.quicken(&mirror).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap());
    }
    assert!(!folder.join("multi-pack-index.lock").exists() && !folder.join("tmp_bitmap_abc123").exists());
    cloned(&world, "clone").await;
    // Dropped in the middle, it leaves nothing that the next one stumbles over.
    std::fs::remove_file(world.mirror.objects().join("tipstaff-counted")).unwrap();
    for millis in [1, 5, 20, 60] {
        let work = world.quarantine.quicken(&world.mirror);
        let _ = tokio::time::timeout(std::time::Duration::from_millis(millis), work).await;
    }
    assert!(world.quarantine.quicken(&world.mirror).await.unwrap());
    cloned(&world, "later").await;
    world.stop().await;
}
