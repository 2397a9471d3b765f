//! Hostile repositories: whatever they configure, nothing of theirs runs on the host. Each trick touches a canary file
//! when it works; the first test proves that the tricks do work on a git without our settings.

use crate::support::{Options, World, git, git_at, make_source, open_git, source_at, write};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tipstaff_broker::{CheckoutLimits, Checkouts, Color, MirrorLimits, Mirrors, Symlinks};

/// Poisons a repository in every way at once. Returns the folder where canaries would appear.
async fn poison(path: &Path) -> PathBuf {
    let canaries = path.parent().unwrap().join("canaries");
    std::fs::create_dir_all(&canaries).unwrap();
    let touch = |name: &str| format!("touch {}", canaries.join(name).display());
    // Content first, while its filters are not configured yet.
    write(
        &path.join(".gitattributes"),
        "*.txt filter=evil diff=evil merge=evil\n*.dat filter=daemon\n*.bin filter=lfs diff=lfs merge=lfs -text\n* ident\n",
    );
    write(&path.join("file.txt"), "content\n");
    write(&path.join("data.dat"), "content\n");
    write(&path.join("big.bin"), "version https://git-lfs.github.com/spec/v1\n");
    write(&path.join(".lfsconfig"), "[lfs]\n\turl = http://127.0.0.1:1/x\n");
    git(path, &["add", "."]).await.succeeded();
    git(path, &["commit", "-qm", "Attributes"]).await.succeeded();
    for hook in [
        "post-checkout",
        "pre-commit",
        "post-commit",
        "post-index-change",
        "post-merge",
        "reference-transaction",
        "pre-receive",
        "update",
        "post-receive",
        "post-update",
        "pre-push",
        "proc-receive",
        "fsmonitor-watchman",
        "post-upload-pack",
        "pre-upload-pack",
        "push-to-checkout",
        "post-rewrite",
    ] {
        let file = path.join(".git/hooks").join(hook);
        write(&file, &format!("#!/bin/sh\n{}\n", touch(&format!("hook-{hook}"))));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (key, value) in [
        ("core.fsmonitor", format!("{}; false", touch("fsmonitor"))),
        ("core.sshCommand", format!("{}; false", touch("ssh"))),
        ("core.gitProxy", format!("{}; false", touch("git-proxy"))),
        ("core.pager", touch("pager")),
        ("core.editor", touch("editor")),
        ("core.askPass", touch("askpass")),
        ("core.alternateRefsCommand", touch("alternate-refs")),
        ("credential.helper", format!("!{};", touch("credential"))),
        ("diff.external", format!("{}; true", touch("diff-external"))),
        ("diff.evil.textconv", format!("{}; cat", touch("textconv"))),
        ("diff.evil.command", format!("{}; true", touch("diff-command"))),
        ("filter.evil.clean", format!("{}; cat", touch("clean"))),
        ("filter.evil.smudge", format!("{}; cat", touch("smudge"))),
        ("filter.daemon.process", touch("process")),
        ("filter.lfs.clean", format!("{}; cat", touch("lfs-clean"))),
        ("filter.lfs.smudge", format!("{}; cat", touch("lfs-smudge"))),
        ("merge.evil.driver", touch("merge")),
        ("uploadpack.packObjectsHook", touch("pack-objects")),
        ("gpg.program", touch("gpg")),
        ("gpg.ssh.program", touch("gpg-ssh")),
        ("log.showSignature", "true".to_owned()),
        ("commit.gpgSign", "true".to_owned()),
        ("protocol.ext.allow", "always".to_owned()),
        ("remote.origin.url", format!("ext::sh -c {}", touch("ext"))),
        ("remote.origin.uploadpack", touch("remote-upload-pack")),
        ("remote.origin.promisor", "true".to_owned()),
        ("remote.origin.partialclonefilter", "blob:none".to_owned()),
        ("extensions.partialClone", "origin".to_owned()),
        ("alias.status", format!("!{}", touch("alias"))),
        ("alias.upload-pack", format!("!{}", touch("alias-upload-pack"))),
        ("trailer.x.command", touch("trailer")),
        ("sequence.editor", touch("sequence-editor")),
        ("include.path", "evil.config".to_owned()),
        ("submodule.recurse", "true".to_owned()),
        ("submodule.sub.update", format!("!{}", touch("submodule"))),
    ] {
        git(path, &["config", key, &value]).await.succeeded();
    }
    write(&path.join(".git/evil.config"), &format!("[core]\n\tfsmonitor = {}\n", touch("included")));
    write(&path.join(".git/info/attributes"), "* filter=evil diff=evil\n");
    // Looked at anew by every status.
    write(&path.join("file.txt"), "changed\n");
    canaries
}

fn touched(canaries: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(canaries)
        .unwrap()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tricks_work_without_our_settings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    make_source(&path).await;
    let canaries = poison(&path).await;
    git(&path, &["status"]).await;
    git(&path, &["diff"]).await;
    git(&path, &["checkout", "-f", "HEAD~1"]).await;
    git(&path, &["checkout", "-f", "main"]).await;
    git(&path, &["fetch", "origin"]).await;
    git(&path, &["-c", "commit.gpgSign=false", "commit", "--allow-empty", "-m", "x"]).await;
    let found = touched(&canaries);
    for trick in
        ["included", "clean", "smudge", "diff-command", "hook-post-checkout", "hook-reference-transaction"]
    {
        assert!(
            found.iter().any(|name| name == trick),
            "{trick} is no threat here, so the next test proves nothing: {found:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_source_runs_nothing_from_mirror_to_result() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    make_source(&path).await;
    let canaries = poison(&path).await;
    let git_door = open_git(dir.path()).await;
    let mirrors = Mirrors::new(Arc::clone(&git_door), dir.path().join("m"), MirrorLimits::default()).unwrap();
    let mirror = mirrors.open(&source_at(&path)).await.unwrap();
    let info = mirror.inspect().await.unwrap();
    assert!(matches!(info.dirty, tipstaff_broker::Dirty::Files(count) if count >= 1), "{:?}", info.dirty);
    let pinned = mirror.pin(None).await.unwrap();
    mirror.pin(Some("secret")).await.unwrap();
    mirror.pin(Some("v1")).await.unwrap();
    assert!(mirror.pin(Some("nothing")).await.is_err());
    let checkouts =
        Checkouts::new(git_door, dir.path().join("checkouts"), CheckoutLimits::default()).unwrap();
    let checkout = checkouts.warm(&mirror, &pinned.commit, Symlinks::Links).await.unwrap();
    assert_eq!(std::fs::read_to_string(checkout.path().join("file.txt")).unwrap(), "content\n");
    assert_eq!(touched(&canaries), Vec::<String>::new());
    // A run on it, with its change shown and brought home.
    let mut world = World::around(dir, path.clone(), Options::default()).await;
    let clone = world.clone_to("clone").await;
    world.commit(&clone, "file.txt", "by the agent\n").await;
    world.commit(&clone, ".gitattributes", "* diff=evil filter=evil\n").await;
    let own = world.own();
    world.push(&clone, &[], &[own.short()]).await.succeeded();
    world.quarantine.diffstat(&own).await.unwrap();
    world.quarantine.diff(&own, Color::Always).await.unwrap();
    world.quarantine.commits(&own, 10).await.unwrap();
    let tip = world.quarantine.tip(&own).await.unwrap().unwrap();
    world.quarantine.export(&source_at(&path), &tip, &own).await.unwrap();
    world.stop().await;
    assert_eq!(touched(&canaries), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_source_does_not_fetch_its_missing_objects_by_a_poisoned_remote() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    make_source(&path).await;
    let canaries = poison(&path).await;
    let blob = git_at(&path, &[], &["rev-parse", "main:src/lib.rs"].map(OsStr::new)).succeeded();
    let (folder, file) = blob.trim().split_at(2);
    let object = path.join(".git/objects").join(folder).join(file);
    std::fs::set_permissions(&object, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::remove_file(object).unwrap();
    let git_door = open_git(dir.path()).await;
    let mirrors = Mirrors::new(git_door, dir.path().join("m"), MirrorLimits::default()).unwrap();
    let mirror = mirrors.open(&source_at(&path)).await.unwrap();
    let error = mirror.pin(None).await.unwrap_err();
    assert_eq!(error.code(), "source-unreadable", "{error}");
    let _ = mirror.inspect().await;
    assert_eq!(touched(&canaries), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_a_link_or_borrows_is_read_as_data() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    make_source(&real).await;
    let canaries = poison(&real).await;
    // `.git` is a link to another repository, or a file that names one.
    let linked = dir.path().join("linked");
    std::fs::create_dir_all(&linked).unwrap();
    std::os::unix::fs::symlink(real.join(".git"), linked.join(".git")).unwrap();
    let pointed = dir.path().join("pointed");
    write(&pointed.join(".git"), &format!("gitdir: {}\n", real.join(".git").display()));
    let borrowing = dir.path().join("borrowing");
    git(dir.path(), &["init", "-q", "-b", "main", "borrowing"]).await.succeeded();
    write(
        &borrowing.join(".git/objects/info/alternates"),
        &format!("{}\n", real.join(".git/objects").display()),
    );
    let head = git(&real, &["-c", "core.fsmonitor=false", "rev-parse", "main"]).await.succeeded();
    write(&borrowing.join(".git/refs/heads/main"), &head);
    for hook in touched(&canaries) {
        std::fs::remove_file(canaries.join(hook)).unwrap();
    }
    let git_door = open_git(dir.path()).await;
    let mirrors = Mirrors::new(git_door, dir.path().join("m"), MirrorLimits::default()).unwrap();
    for path in [&linked, &pointed, &borrowing] {
        let mirror = mirrors.open(&source_at(path)).await.unwrap();
        mirror.inspect().await.unwrap();
        let pinned = mirror.pin(None).await.unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(pinned.commit.as_str(), head.trim());
    }
    assert_eq!(touched(&canaries), Vec::<String>::new());
    // A pointer that blocks, loops or is endless is no repository, and nobody waits for it.
    let fifo = dir.path().join("fifo");
    std::fs::create_dir_all(&fifo).unwrap();
    assert!(crate::support::command("mkfifo").arg(fifo.join(".git")).status().unwrap().success());
    let endless = dir.path().join("endless");
    std::fs::create_dir_all(&endless).unwrap();
    std::os::unix::fs::symlink("/dev/zero", endless.join(".git")).unwrap();
    let looping = dir.path().join("looping");
    std::fs::create_dir_all(&looping).unwrap();
    std::os::unix::fs::symlink(".git", looping.join(".git")).unwrap();
    for path in [fifo, endless, looping] {
        let found = tipstaff_broker::Source::parse(
            path.as_os_str(),
            Path::new("/"),
            tipstaff_broker::PlainHttp::LoopbackOnly,
        );
        assert_eq!(found.unwrap_err().code(), "not-a-repository", "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_owners_repository_is_read_when_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    make_source(&path).await;
    // Only root can give files away; for others the world is fine as it is.
    let given = crate::support::command("chown").args(["-R", "12345:12345"]).arg(&path).status().unwrap();
    let git_door = open_git(dir.path()).await;
    let mirrors = Mirrors::new(git_door, dir.path().join("m"), MirrorLimits::default()).unwrap();
    let mirror = mirrors.open(&source_at(&path)).await.unwrap();
    mirror.pin(None).await.unwrap();
    let info = mirror.inspect().await.unwrap();
    assert_eq!(info.dirty, tipstaff_broker::Dirty::No, "chown worked: {}", given.success());
}
