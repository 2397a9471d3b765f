//! Pushing: what lands, and what is refused with which rule.

use crate::support::{Options, World, git, git_at, until, write};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use tipstaff_broker::{Bounds, Color};
use tipstaff_model::{AgentRole, AuditAction, Rule};

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_the_own_ref_lands_and_is_audited() {
    let mut world = World::new().await;
    let clone = world.clone_to("clone").await;
    let own = world.own();
    world.commit(&clone, "src/new.rs", "a\nb\n").await;
    let said = world.push(&clone, &[], &[own.short()]).await.succeeded();
    assert!(!said.contains("rejected"), "{said}");
    let head = git(&clone, &["rev-parse", "HEAD"]).await.succeeded();
    assert_eq!(world.tip().await.as_deref(), Some(head.trim()));
    assert_eq!(world.held(), 0);
    // A second push descends from the first one.
    world.commit(&clone, "README.md", "# changed\n").await;
    world.push(&clone, &[], &[own.short()]).await.succeeded();
    let stat = world.quarantine.diffstat(&own).await.unwrap();
    assert_eq!((stat.files_changed, stat.additions, stat.deletions), (2, 3, 1));
    let diff = world.quarantine.diff(&own, Color::Never).await.unwrap();
    assert!(String::from_utf8_lossy(&diff).contains("+# changed"));
    assert_eq!(world.quarantine.commits(&own, 10).await.unwrap().len(), 2);
    // What was pushed can be read again, by any clone.
    let other = world.path("other");
    git(world.dir.path(), &["clone", "-q", "-b", own.short(), &world.url(), other.to_str().unwrap()])
        .await
        .succeeded();
    let report = world.stop().await;
    assert_eq!(report.pushes.len(), 2);
    assert_eq!(report.pushes[0].old, None);
    assert_eq!(report.pushes[1].old.as_ref(), Some(&report.pushes[0].new));
    assert_eq!(report.refusals_total(), 0);
    let audits = world.control.audits.lock().unwrap();
    assert_eq!(audits.len(), 2);
    assert_eq!(audits[0].action, AuditAction::PushAccepted);
    assert_eq!(audits[0].detail["new"], report.pushes[0].new.as_str());
    assert_eq!(audits[0].detail["files"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ref_but_the_own_one_is_refused_by_name() {
    let mut world = World::new().await;
    let clone = world.clone_to("clone").await;
    let own = world.own();
    let own = own.short();
    world.commit(&clone, "a.txt", "a\n").await;
    git(&clone, &["tag", "t1"]).await.succeeded();
    git(&clone, &["tag", "-a", "t2", "-m", "t2"]).await.succeeded();
    for (options, refs, rule) in [
        (&[][..], &["HEAD:main"][..], "ref-not-granted"),
        (&[], &["HEAD:refs/heads/other"], "ref-not-granted"),
        (&[], &["HEAD:refs/heads/agent/builder-task-00000000"], "ref-not-granted"),
        (&[], &["HEAD:refs/notes/x"], "ref-not-granted"),
        (&[], &["HEAD:refs/tipstaff/base"], "ref-not-granted"),
        (&[], &["t1"], "ref-not-granted"),
        (&[], &["t2"], "ref-not-granted"),
        (&["--tags"], &[own], "push-too-many-refs"),
        (&["--force"], &["HEAD~2:main"], "ref-not-granted"),
        (&[], &[":main"], "ref-delete"),
        (&[], &[own, "HEAD:refs/heads/other"], "push-too-many-refs"),
        (&["--atomic"], &[own, "HEAD:refs/heads/other"], "ref-not-granted"),
        (&["--mirror"], &[], "ref-not-granted"),
        (&["-o", "ci.skip"], &[own], "push-option"),
    ] {
        let said = world.push(&clone, options, refs).await;
        said.refused_with(rule);
        assert!(said.text.contains("[remote rejected]"), "{refs:?}: {}", said.text);
        assert_eq!(world.tip().await, None, "{refs:?}");
    }
    // One ref, atomically, is a plain push.
    world.push(&clone, &["--atomic"], &[own]).await.succeeded();
    world.push(&clone, &[], &[&format!(":{own}")]).await.refused_with("ref-delete");
    let refs = git(world.quarantine.path(), &["for-each-ref", "--format=%(refname)"]).await.succeeded();
    assert_eq!(refs.lines().count(), 3, "{refs}");
    assert_eq!(world.held(), 0);
    let report = world.stop().await;
    assert!(report.refusals_by_rule[&Rule::RefNotGranted] >= 9);
    assert_eq!(report.pushes.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_never_rewritten() {
    let mut world = World::new().await;
    let clone = world.clone_to("clone").await;
    let own = world.own();
    let own = own.short();
    world.commit(&clone, "a.txt", "a\n").await;
    world.push(&clone, &[], &[own]).await.succeeded();
    let first = world.tip().await;
    git(&clone, &["commit", "-q", "--amend", "-m", "Other"]).await.succeeded();
    world.push(&clone, &["--force"], &[own]).await.refused_with("force-push");
    world.push(&clone, &["--force-with-lease"], &[own]).await.refused_with("force-push");
    git(&clone, &["reset", "-q", "--hard", "origin/main"]).await.succeeded();
    world.push(&clone, &["--force"], &[own]).await.refused_with("force-push");
    // A history of its own, and one that leaves the base out.
    git(&clone, &["checkout", "-q", "--orphan", "alone"]).await.succeeded();
    git(&clone, &["commit", "-qm", "Alone"]).await.succeeded();
    world.push(&clone, &["--force"], &[&format!("alone:{own}")]).await.refused_with("base-not-ancestor");
    git(&clone, &["checkout", "-q", "-b", "back", "origin/main~1"]).await.succeeded();
    world.commit(&clone, "b.txt", "b\n").await;
    world.push(&clone, &["--force"], &[&format!("back:{own}")]).await.refused_with("base-not-ancestor");
    assert_eq!(world.tip().await, first);
    let report = world.stop().await;
    assert_eq!(report.refusals_by_rule[&Rule::ForcePush], 3);
    assert_eq!(world.held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_paths_are_refused_even_when_a_later_commit_takes_them_back() {
    let mut world = World::new().await;
    let own = world.own();
    let own = own.short();
    for (number, path) in [
        ".github/workflows/ci.yml",
        ".GitHub/Workflows/evil.yml",
        "sub/CODEOWNERS",
        "infra/main.txt",
        "Dockerfile",
        ".gitmodules",
    ]
    .iter()
    .enumerate()
    {
        let clone = world.clone_to(&format!("clone{number}")).await;
        world.commit(&clone, path, "on: pull_request_target\n").await;
        world.push(&clone, &[], &[own]).await.refused_with("path-protected");
        git(&clone, &["revert", "--no-edit", "HEAD"]).await.succeeded();
        world.push(&clone, &[], &[own]).await.refused_with("path-protected");
    }
    let clone = world.clone_to("mover").await;
    git(&clone, &["mv", ".github/workflows/ci.yml", "ci.yml"]).await.succeeded();
    git(&clone, &["commit", "-qm", "Move"]).await.succeeded();
    world.push(&clone, &[], &[own]).await.refused_with("path-protected");
    // Hidden in the second parent of a merge.
    let clone = world.clone_to("merger").await;
    git(&clone, &["checkout", "-q", "-b", "side"]).await.succeeded();
    world.commit(&clone, ".github/workflows/ci.yml", "evil\n").await;
    git(&clone, &["checkout", "-q", own]).await.succeeded();
    world.commit(&clone, "x.txt", "x\n").await;
    git(&clone, &["merge", "-q", "-s", "ours", "--no-edit", "side"]).await.succeeded();
    world.push(&clone, &[], &[own]).await.refused_with("path-protected");
    assert_eq!(world.tip().await, None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gardener_changes_only_its_garden_and_a_reviewer_nothing() {
    let mut world = World::with(Options { role: AgentRole::Gardener, ..Options::default() }).await;
    let clone = world.clone_to("clone").await;
    let own = world.own();
    world.commit(&clone, "src/lib.rs", "pub fn one() {}\n").await;
    world.push(&clone, &[], &[own.short()]).await.refused_with("path-not-granted");
    git(&clone, &["reset", "-q", "--hard", "origin/main"]).await.succeeded();
    world.commit(&clone, "docs/a.md", "hello\n").await;
    world.push(&clone, &[], &[own.short()]).await.succeeded();
    world.stop().await;
    let mut world = World::with(Options { role: AgentRole::Reviewer, ..Options::default() }).await;
    let clone = world.path("reviewer");
    git(world.dir.path(), &["clone", "-q", &world.url(), clone.to_str().unwrap()]).await.succeeded();
    let said = world.push(&clone, &[], &["HEAD:refs/heads/x"]).await;
    assert!(!said.ok && said.text.contains("403"), "{}", said.text);
    assert!(said.text.contains("push-not-granted"), "{}", said.text);
    assert_eq!(world.stop().await.refusals_by_rule[&Rule::PushNotGranted], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_beyond_a_bound_are_refused_readably() {
    let adjust = |warrant: &mut tipstaff_model::Warrant| {
        warrant.limits.push_bytes = 256 * 1024;
        warrant.limits.push_objects = 40;
        warrant.limits.push_files = 12;
        warrant.limits.file_bytes = 1024 * 1024;
    };
    let mut world = World::with(Options { adjust, ..Options::default() }).await;
    let own = world.own();
    let own = own.short();
    // Larger than git's buffer, so that it probes and sends chunks.
    let clone = world.clone_to("large").await;
    let mut noise = String::new();
    let mut state = 1_u64;
    while noise.len() < 4 * 1024 * 1024 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.push_str(&format!("{state:x}"));
    }
    world.commit(&clone, "big.txt", &noise).await;
    let said = world.push(&clone, &[], &[own]).await;
    said.refused_with("push-too-large");
    assert!(said.text.contains("[remote rejected]"), "{}", said.text);
    // Small when packed, large when not.
    let clone = world.clone_to("bomb").await;
    world.commit(&clone, "zeros.txt", &"0".repeat(8 * 1024 * 1024)).await;
    world.push(&clone, &[], &[own]).await.refused_with("push-too-large");
    let clone = world.clone_to("many").await;
    for number in 0..50 {
        write(&clone.join(format!("f{number}")), &number.to_string());
    }
    world.commit(&clone, "last", "x").await;
    world.push(&clone, &[], &[own]).await.refused_with("push-too-many-objects");
    let clone = world.clone_to("files").await;
    for number in 0..20 {
        write(&clone.join(format!("f{number}")), "same");
    }
    world.commit(&clone, "last", "x").await;
    world.push(&clone, &[], &[own]).await.refused_with("push-too-many-files");
    assert_eq!(world.tip().await, None);
    assert_eq!(world.held(), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dangerous_objects_are_refused() {
    let mut world = World::new().await;
    let own = world.own();
    let own = own.short();
    let clone = world.clone_to("clone").await;
    let blob = hash_object(&clone, "blob", b"echo pwned");
    let mut refused = 0;
    for name in [".git", ".GIT", "git~1", "..", ".", "a/b", ".g\u{200c}it"] {
        let tree = mktree(&clone, &[(b"100644", name.as_bytes(), &blob)]);
        let tree = graft(&clone, &tree);
        commit_tree(&clone, &tree, "bad").await;
        let said = world.push(&clone, &[], &[&format!("bad:{own}")]).await;
        assert!(!said.ok, "{name:?}: {}", said.text);
        assert!(said.text.contains("push-object-check"), "{name:?}: {}", said.text);
        refused += 1;
    }
    // A submodule, and a .gitmodules that is no file.
    let link = "1".repeat(40);
    let tree = graft(&clone, &mktree(&clone, &[(b"160000", b"sub", &link)]));
    commit_tree(&clone, &tree, "bad").await;
    world.push(&clone, &[], &[&format!("bad:{own}")]).await.refused_with("path-not-granted");
    let tree = graft(&clone, &mktree(&clone, &[(b"120000", b".gitmodules", &blob)]));
    commit_tree(&clone, &tree, "bad").await;
    let said = world.push(&clone, &[], &[&format!("bad:{own}")]).await;
    assert!(!said.ok, "{}", said.text);
    // A commit whose author line is broken.
    let head = git(&clone, &["rev-parse", "HEAD"]).await.succeeded();
    let tree = git(&clone, &["rev-parse", "HEAD^{tree}"]).await.succeeded();
    let text = format!("tree {}\nparent {}\nauthor x\ncommitter x\n\nbad\n", tree.trim(), head.trim());
    let commit = hash_object(&clone, "commit", text.as_bytes());
    git(&clone, &["update-ref", "refs/heads/bad", &commit]).await.succeeded();
    world.push(&clone, &[], &[&format!("bad:{own}")]).await.refused_with("push-object-check");
    // A tag where a commit belongs.
    git(&clone, &["tag", "-f", "-a", "t", "-m", "t"]).await.succeeded();
    world.push(&clone, &[], &[&format!("t:refs/heads/{own}")]).await;
    assert_eq!(world.tip().await, None, "after {refused} refusals");
    assert_eq!(world.held(), 0);
    world.stop().await;
}

pub(crate) fn hash_object(repository: &Path, kind: &str, content: &[u8]) -> String {
    let file = repository.join("object.tmp");
    std::fs::write(&file, content).unwrap();
    let arguments = ["hash-object", "-t", kind, "-w", "--literally", "object.tmp"].map(OsStr::new);
    let id = git_at(repository, &[], &arguments).succeeded();
    std::fs::remove_file(file).unwrap();
    id.trim().to_owned()
}

/// A tree with exactly these entries, whatever git thinks of them.
pub(crate) fn mktree(repository: &Path, entries: &[(&[u8], &[u8], &str)]) -> String {
    let mut content = Vec::new();
    for (mode, name, id) in entries {
        content.extend_from_slice(mode);
        content.push(b' ');
        content.extend_from_slice(name);
        content.push(0);
        for pair in id.as_bytes().chunks(2) {
            content.push(u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
        }
    }
    hash_object(repository, "tree", &content)
}

/// The base's tree with `tree` below `zz`.
pub(crate) fn graft(repository: &Path, tree: &str) -> String {
    let text = git_at(repository, &[], &["rev-parse", "HEAD^{tree}"].map(OsStr::new)).succeeded();
    let listed = git_at(repository, &[], &["ls-tree", text.trim()].map(OsStr::new)).succeeded();
    let mut entries: Vec<(Vec<u8>, Vec<u8>, String)> = listed
        .lines()
        .map(|line| {
            let (front, name) = line.split_once('\t').unwrap();
            let words: Vec<&str> = front.split(' ').collect();
            let mode = words[0].trim_start_matches('0').as_bytes().to_vec();
            (mode, name.as_bytes().to_vec(), words[2].to_owned())
        })
        .collect();
    entries.push((b"40000".to_vec(), b"zz".to_vec(), tree.to_owned()));
    let entries: Vec<(&[u8], &[u8], &str)> =
        entries.iter().map(|(mode, name, id)| (mode.as_slice(), name.as_slice(), id.as_str())).collect();
    mktree(repository, &entries)
}

pub(crate) async fn commit_tree(repository: &Path, tree: &str, branch: &str) {
    let commit = git(repository, &["commit-tree", tree, "-p", "HEAD", "-m", "bad"]).await.succeeded();
    git(repository, &["update-ref", &format!("refs/heads/{branch}"), commit.trim()]).await.succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_the_mirror_that_were_not_granted_cannot_be_pushed_into_reach() {
    let mut world = World::new().await;
    let clone = world.clone_to("clone").await;
    world.mirror.pin(Some("secret")).await.unwrap();
    let blob = git(&world.source, &["rev-parse", "secret:secret.txt"]).await.succeeded();
    // A tree that names a blob which the client does not have: the server does.
    let tree = mktree(&clone, &[(b"100644", b"stolen.txt", blob.trim())]);
    let tree = graft(&clone, &tree);
    commit_tree(&clone, &tree, "thief").await;
    let own = world.own();
    let said = git_at(
        &clone,
        &[],
        &["-c", "pack.allowPackReuse=false", "push", "origin", &format!("thief:{}", own.short())]
            .map(OsStr::new),
    );
    assert!(!said.ok, "{}", said.text);
    // git itself refuses to send what it lacks; a client that does not is played by hand.
    let pack = pack_without(&clone, &blob).await;
    let answer = world.raw(push_request(&world, "thief", &clone, &pack).await).await;
    assert!(answer.contains("push-object-check"), "{answer}");
    assert_eq!(world.tip().await, None);
    world.stop().await;
}

/// A pack of the commit `thief` and its new trees, without the blob.
async fn pack_without(clone: &Path, blob: &str) -> Vec<u8> {
    let listed = git(clone, &["rev-list", "--objects", "--missing=allow-any", "thief", "^origin/main"])
        .await
        .succeeded();
    let ids: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|id| *id != blob.trim() && !id.starts_with('?'))
        .collect();
    let list = clone.join("list.tmp");
    std::fs::write(&list, format!("{}\n", ids.join("\n"))).unwrap();
    let output = crate::support::command("git")
        .current_dir(clone)
        .args(["pack-objects", "--stdout", "-q"])
        .stdin(std::fs::File::open(&list).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub(crate) async fn push_request(world: &World, branch: &str, clone: &Path, pack: &[u8]) -> Vec<u8> {
    let new = git(clone, &["rev-parse", branch]).await.succeeded();
    let mut body = Vec::new();
    let line = format!("{} {} {}\0report-status", "0".repeat(40), new.trim(), world.own());
    tipstaff_broker::parse::pkt_line::write(&mut body, line.as_bytes());
    body.extend_from_slice(b"0000");
    body.extend_from_slice(pack);
    let mut request = format!(
        "POST /git/{}.git/git-receive-pack HTTP/1.1\r\nHost: b\r\nContent-Length: {}\r\n\r\n",
        crate::support::NAME,
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn no_audit_no_push() {
    let mut world = World::new().await;
    let clone = world.clone_to("clone").await;
    let own = world.own();
    world.commit(&clone, "a.txt", "a\n").await;
    let packs = || std::fs::read_dir(world.quarantine.path().join("objects/pack")).unwrap().count();
    let before = packs();
    world.control.fail_records.store(true, Ordering::SeqCst);
    world.push(&clone, &[], &[own.short()]).await.refused_with("audit-unavailable");
    assert_eq!(world.tip().await, None);
    assert_eq!(world.held(), 0);
    assert_eq!(packs(), before, "no object stays");
    world.control.fail_records.store(false, Ordering::SeqCst);
    world.push(&clone, &[], &[own.short()]).await.succeeded();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_pushes_at_once_exactly_one_lands() {
    let mut world = World::new().await;
    let own = world.own();
    let mut clones = Vec::new();
    for number in 0..6 {
        let clone = world.clone_to(&format!("clone{number}")).await;
        world.commit(&clone, "a.txt", &number.to_string()).await;
        clones.push(clone);
    }
    let pushes = clones.iter().map(|clone| {
        let (clone, refs) = (clone.clone(), own.short().to_owned());
        tokio::spawn(async move { git(&clone, &["push", "origin", &refs]).await })
    });
    let pushes: Vec<_> = pushes.collect();
    let mut landed = 0;
    for push in pushes {
        let said = push.await.unwrap();
        if said.ok {
            landed += 1;
        } else {
            assert!(said.text.contains("force-push") || said.text.contains("fetch first"), "{}", said.text);
        }
    }
    assert_eq!(landed, 1);
    let report = world.stop().await;
    assert_eq!(report.pushes.len(), 1);
    assert_eq!(world.tip().await.as_deref(), Some(report.pushes[0].new.as_str()));
    let audits = world.control.audits.lock().unwrap();
    let recorded: HashSet<_> = audits.iter().map(|audit| audit.detail["new"].clone()).collect();
    assert_eq!(recorded.len(), 1, "nothing is recorded that did not land");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_killed_in_the_middle_leaves_nothing() {
    use std::io::Write;
    let bounds = Bounds { idle_time: std::time::Duration::from_secs(30), ..Bounds::default() };
    let mut world = World::with(Options { bounds, ..Options::default() }).await;
    let clone = world.clone_to("clone").await;
    world.commit(&clone, "a.txt", "a\n").await;
    git(&clone, &["branch", "thief"]).await.succeeded();
    let pack = pack_without(&clone, "none").await;
    let whole = push_request(&world, "thief", &clone, &pack).await;
    for cut in [whole.len() - 1, whole.len() - pack.len() + 12, whole.len() - pack.len() / 2] {
        let mut stream = std::net::TcpStream::connect(world.address).unwrap();
        stream.write_all(&whole[..cut]).unwrap();
        drop(stream);
    }
    let connections = world.handle.as_ref().unwrap().report().connections;
    assert!(connections >= 3);
    until("the held objects go away", || world.held() == 0).await;
    assert_eq!(world.tip().await, None);
    // The same push, whole, lands.
    let answer = world.raw(whole).await;
    assert!(answer.contains("unpack ok") && answer.contains("ok refs/heads/agent/"), "{answer}");
    world.stop().await;
    assert_eq!(world.held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_warrant_pushes_nothing() {
    let mut world = World::new().await;
    let clone = world.clone_to("clone").await;
    let own = world.own();
    world.commit(&clone, "a.txt", "a\n").await;
    world.clock.advance(25 * 60 * 60 * 1000);
    let said = world.push(&clone, &[], &[own.short()]).await;
    assert!(!said.ok && said.text.contains("403"), "{}", said.text);
    assert_eq!(world.tip().await, None);
    assert!(world.stop().await.refusals_by_rule[&Rule::WarrantExpired] >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_utf8_are_pushed_counted_and_judged() {
    let mut world = World::new().await;
    let clone = world.clone_to("clone").await;
    let own = world.own();
    let name = OsStr::from_bytes(b"caf\xe9 name.txt");
    std::fs::write(clone.join(name), "x\n").unwrap();
    world.commit(&clone, "plain.txt", "y\n").await;
    world.push(&clone, &[], &[own.short()]).await.succeeded();
    let stat = world.quarantine.diffstat(&own).await.unwrap();
    assert_eq!(stat.files_changed, 2);
    assert!(stat.files.iter().any(|file| file.path == name.as_bytes()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_brought_home_as_a_branch_and_replaces_none() {
    let mut world = World::new().await;
    let clone = world.clone_to("clone").await;
    let own = world.own();
    world.commit(&clone, "a.txt", "a\n").await;
    world.push(&clone, &[], &[own.short()]).await.succeeded();
    world.stop().await;
    write(&world.source.join("README.md"), "unsaved work\n");
    let target = crate::support::source_at(&world.source);
    let tip = world.quarantine.tip(&own).await.unwrap().unwrap();
    world.quarantine.export(&target, &tip, &own).await.unwrap();
    let home = git(&world.source, &["rev-parse", own.as_str()]).await.succeeded();
    assert_eq!(world.tip().await.as_deref(), Some(home.trim()));
    assert_eq!(std::fs::read_to_string(world.source.join("README.md")).unwrap(), "unsaved work\n");
    let secret: tipstaff_model::RefName = "refs/heads/secret".parse().unwrap();
    let error = world.quarantine.export(&target, &tip, &secret).await.unwrap_err();
    assert_eq!(error.code(), "git-failed");
}
