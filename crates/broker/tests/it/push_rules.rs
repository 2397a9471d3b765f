//! What a hostile agent puts into a push: secrets, names, links and commits that are not its own.

use crate::pushing::{commit_tree, graft, hash_object, mktree};
use crate::support::{Options, World, git, git_at, make_source, write};
use std::ffi::OsStr;
use std::path::Path;
use tipstaff_model::Rule;

/// Looks like a token of GitHub, and is none.
const TOKEN: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
/// A value that the broker holds.
const HELD: &str = "sealed-value-of-the-broker-77";

/// A world whose base has `file` with `content`.
async fn world_with(file: &str, content: &str, options: Options) -> World {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    make_source(&source).await;
    write(&source.join(file), content);
    git(&source, &["add", "-f", "."]).await.succeeded();
    git(&source, &["commit", "-qm", "Base"]).await.succeeded();
    World::around(dir, source, options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_refused_wherever_they_hide_and_never_repeated() {
    let mut world = World::with(Options { held: vec![HELD], ..Options::default() }).await;
    let own = world.own();
    let own = own.short();
    let mut number = 0;
    let mut fresh = async || {
        number += 1;
        world.clone_to(&format!("clone{number}")).await
    };
    let refused = async |clone: &Path, place: &str| {
        let said = world.push(clone, &[], &[own]).await;
        said.refused_with("secret-in-diff");
        assert!(
            said.text.contains("[remote rejected]") && said.text.contains(place),
            "{place}: {}",
            said.text
        );
        assert!(!said.text.contains(&TOKEN[4..]) && !said.text.contains("broker-77"), "{}", said.text);
        assert_eq!((world.tip().await, world.held()), (None, 0), "{place}");
    };
    let clone = fresh().await;
    world.commit(&clone, "src/new.rs", &format!("one\ntwo\nlet t = \"{TOKEN}\";\n")).await;
    refused(&clone, "src/new.rs, line 3, holds what looks like a secret (github-token)").await;
    // Taken back by a later commit.
    git(&clone, &["revert", "--no-edit", "HEAD"]).await.succeeded();
    refused(&clone, "a later commit removes it").await;
    // In the second parent of a merge that takes nothing from it.
    let clone = fresh().await;
    git(&clone, &["checkout", "-q", "-b", "side"]).await.succeeded();
    world.commit(&clone, "side.txt", &format!("key {TOKEN}\n")).await;
    git(&clone, &["checkout", "-q", own]).await.succeeded();
    world.commit(&clone, "x.txt", "x\n").await;
    git(&clone, &["merge", "-q", "-s", "ours", "--no-edit", "side"]).await.succeeded();
    refused(&clone, "side.txt, line 1").await;
    // In a message, in a name, as the target of a link, deep in a binary file, as UTF-16.
    let clone = fresh().await;
    git(&clone, &["commit", "-q", "--allow-empty", "-m", &format!("use {TOKEN}")]).await.succeeded();
    refused(&clone, "its message or author holds").await;
    let clone = fresh().await;
    world.commit(&clone, &format!("notes/{TOKEN}.txt"), "x\n").await;
    refused(&clone, "the name notes/[redacted:github-token]").await;
    let clone = fresh().await;
    std::os::unix::fs::symlink(TOKEN, clone.join("link")).unwrap();
    world.commit(&clone, "x.txt", "x\n").await;
    refused(&clone, "link, line 1").await;
    let clone = fresh().await;
    let mut binary = [0_u8, 159, 146, 150].repeat(100_000);
    binary.extend_from_slice(format!("\n\n{TOKEN} ").as_bytes());
    std::fs::write(clone.join("data.bin"), &binary).unwrap();
    world.commit(&clone, "x.txt", "x\n").await;
    refused(&clone, "data.bin, line 3").await;
    // A value that the broker holds, in clear and in other spellings.
    for content in [HELD.to_owned(), format!("\"{HELD}\""), hex(HELD)] {
        let clone = fresh().await;
        world.commit(&clone, "held.txt", &format!("a\n{content}\n")).await;
        refused(&clone, "held.txt, line 2, holds a value that the broker holds").await;
    }
    let report = world.stop().await;
    assert_eq!(report.refusals_by_rule[&Rule::SecretInDiff], 10);
    let kept = format!("{:?}{:?}", report.refusals, world.control.refusals.lock().unwrap());
    assert!(!kept.contains(&TOKEN[4..]) && !kept.contains(HELD), "{kept}");
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_new_counts_and_fixtures_may_look_like_secrets() {
    let adjust = |warrant: &mut tipstaff_model::Warrant| {
        warrant.paths.fixtures = vec!["tests/fixtures/**".parse().unwrap()]
    };
    let options = Options { held: vec![HELD], adjust, ..Options::default() };
    let mut world = world_with("old.txt", &format!("first\n{TOKEN}\n"), options).await;
    let own = world.own();
    let own = own.short();
    // What the base has already, in the same file and in a file that is moved.
    let clone = world.clone_to("same").await;
    world.commit(&clone, "old.txt", &format!("added above\nfirst\n{TOKEN}\nadded below\n")).await;
    git(&clone, &["mv", "old.txt", "moved.txt"]).await.succeeded();
    git(&clone, &["commit", "-qm", "Move"]).await.succeeded();
    world.push(&clone, &[], &[own]).await.succeeded();
    // Another secret in the same file is new, and so is the same one in another file that stays.
    for (name, file, content) in [
        ("other", "old.txt", format!("first\n{TOKEN}\n{}\n", TOKEN.replace("16C7", "99Xy"))),
        ("copy", "copy.txt", format!("{TOKEN}\n")),
        ("almost", "tests/fixtures.txt", format!("{TOKEN}\n")),
        ("held", "tests/fixtures/a.txt", format!("{HELD}\n")),
    ] {
        let clone = world.clone_to(name).await;
        git(&clone, &["reset", "-q", "--hard", &format!("origin/{own}")]).await.succeeded();
        git(&clone, &["checkout", world.base.commit.as_str(), "--", "old.txt"]).await.succeeded();
        world.commit(&clone, file, &content).await;
        world.push(&clone, &[], &[own]).await.refused_with("secret-in-diff");
    }
    let clone = world.clone_to("fixture").await;
    git(&clone, &["reset", "-q", "--hard", &format!("origin/{own}")]).await.succeeded();
    world.commit(&clone, "tests/fixtures/deep/token.txt", &format!("{TOKEN}\n")).await;
    world.push(&clone, &[], &[own]).await.succeeded();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_to_look_through_is_refused() {
    let bounds = tipstaff_broker::Bounds { scan_bytes: 64 * 1024, ..Default::default() };
    let mut world = World::with(Options { bounds, ..Options::default() }).await;
    let clone = world.clone_to("clone").await;
    world.commit(&clone, "zeros.txt", &"0".repeat(128 * 1024)).await;
    let own = world.own();
    let said = world.push(&clone, &[], &[own.short()]).await;
    said.refused_with("limit-reached");
    assert!(said.text.contains("looked through for secrets"), "{}", said.text);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_something_else_elsewhere_are_refused() {
    let mut world = World::new().await;
    let own = world.own();
    let own = own.short();
    let clone = world.clone_to("clone").await;
    let blob = hash_object(&clone, "blob", b"x");
    // Whatever git's own check lets through is refused by ours.
    let mut ours = 0;
    for name in [
        ".git ",
        ".git.",
        ".git::$INDEX_ALLOCATION",
        ".Git",
        "GIT~2",
        "git~1 ",
        ".g\u{200c}it",
        "\u{feff}.git",
        "x\\.git\\config",
        "..\\..\\x",
        "a\nb",
        "a\x7fb",
        "a\u{202e}txt.sh",
        ".gitmodules.",
        "GITMOD~1",
        "gi7eba~1",
        ".GitAttributes",
        &"n".repeat(300),
        "\u{9b}31m",
    ] {
        let tree = graft(&clone, &mktree(&clone, &[(b"100644", name.as_bytes(), &blob)]));
        commit_tree(&clone, &tree, "bad").await;
        let said = world.push(&clone, &[], &[&format!("bad:{own}")]).await;
        assert!(!said.ok, "{name:?}: {}", said.text);
        let by_us = said.text.contains("path-dangerous");
        ours += usize::from(by_us);
        assert!(by_us || said.text.contains("push-object-check"), "{name:?}: {}", said.text);
        assert_eq!(world.tip().await, None, "{name:?}");
    }
    assert!(ours >= 8, "git's own check found all but {ours}");
    // A name in a folder that nothing else names: no file changes, and still the name is there.
    let hidden = mktree(&clone, &[(b"40000", b"a\\b", &hash_object(&clone, "tree", b""))]);
    commit_tree(&clone, &graft(&clone, &hidden), "bad").await;
    world.push(&clone, &[], &[&format!("bad:{own}")]).await.refused_with("path-dangerous");
    // A link and a folder that are one to a file system without case (CVE-2021-21300), also across folders.
    let link = hash_object(&clone, "blob", b"other");
    let file = mktree(&clone, &[(b"100644", b"post-checkout", &blob)]);
    for entries in [
        vec![(&b"40000"[..], "A".as_bytes(), file.as_str()), (b"120000", b"a", &link)],
        vec![(b"40000", "E\u{301}".as_bytes(), &file), (b"120000", "\u{e9}".as_bytes(), &link)],
        vec![(b"40000", b"Sub", &file), (b"40000", b"sub", &file)],
    ] {
        let tree = graft(&clone, &mktree(&clone, &entries));
        commit_tree(&clone, &tree, "bad").await;
        let said = world.push(&clone, &[], &[&format!("bad:{own}")]).await;
        said.refused_with("path-dangerous");
        assert!(said.text.contains("one name to a file system"), "{}", said.text);
    }
    // Two plain files hide one another there, and no more.
    let tree = graft(&clone, &mktree(&clone, &[(b"100644", b"A", &blob), (b"100644", b"a", &blob)]));
    commit_tree(&clone, &tree, "fine").await;
    world.push(&clone, &[], &[&format!("fine:{own}")]).await.succeeded();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_that_the_base_has_hold_nobody_up() {
    let mut world = world_with("odd/a\\b.txt", "x\n", Options::default()).await;
    let clone = world.clone_to("clone").await;
    let own = world.own();
    world.commit(&clone, "odd/new.txt", "y\n").await;
    world.push(&clone, &[], &[own.short()]).await.succeeded();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_out_of_the_repository_are_refused() {
    let mut world = World::new().await;
    let own = world.own();
    let own = own.short();
    for (number, (path, target)) in [
        ("report.md", "/etc/passwd"),
        ("report.md", "../outside"),
        ("src/deep", "../../outside"),
        ("src/up", "lib.rs/../../../outside"),
        ("hooks", ".git/hooks"),
        ("src/git", "../.GIT/config"),
        ("x", "git~1/config"),
        ("x", "..\\outside"),
        ("x", "C:\\Windows"),
    ]
    .iter()
    .enumerate()
    {
        let clone = world.clone_to(&format!("clone{number}")).await;
        std::os::unix::fs::symlink(target, clone.join(path)).unwrap();
        world.commit(&clone, "note.txt", "x\n").await;
        let said = world.push(&clone, &[], &[own]).await;
        said.refused_with("symlink-escapes");
        assert!(said.text.contains(path), "{}", said.text);
        // Taken back is too late: the commit with the link stays.
        std::fs::remove_file(clone.join(path)).unwrap();
        world.commit(&clone, "note.txt", "y\n").await;
        world.push(&clone, &[], &[own]).await.refused_with("symlink-escapes");
    }
    // A link whose target is a blob that the base has already.
    let clone = world.clone_to("known").await;
    let blob = hash_object(&clone, "blob", b"# app\n");
    let tree = graft(&clone, &mktree(&clone, &[(b"120000", b"link", &blob)]));
    commit_tree(&clone, &tree, "bad").await;
    world.push(&clone, &[], &[&format!("bad:{own}")]).await.refused_with("symlink-escapes");
    assert_eq!(world.tip().await, None);
    // Links within are fine.
    let clone = world.clone_to("fine").await;
    std::os::unix::fs::symlink("../README.md", clone.join("src/readme")).unwrap();
    std::os::unix::fs::symlink("src", clone.join("source")).unwrap();
    world.commit(&clone, "note.txt", "x\n").await;
    world.push(&clone, &[], &[own]).await.succeeded();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_commits_in_the_name_of_somebody_else() {
    let mut world = World::new().await;
    let own = world.own();
    let own = own.short();
    let person = ["--author", "Linus <torvalds@example.org>"];
    let clone = world.clone_to("author").await;
    write(&clone.join("a.txt"), "a\n");
    git(&clone, &["add", "."]).await.succeeded();
    git(&clone, &[&["commit", "-qm", "x"][..], &person].concat()).await.succeeded();
    let said = world.push(&clone, &[], &[own]).await;
    said.refused_with("commit-identity");
    assert!(said.text.contains("its author is not Tipstaff builder"), "{}", said.text);
    assert!(said.text.contains("--reset-author"), "it says what to do: {}", said.text);
    // What the message says helps.
    git(&clone, &["commit", "-q", "--amend", "--no-edit", "--reset-author"]).await.succeeded();
    world.push(&clone, &[], &[own]).await.succeeded();
    for (name, environment, message) in [
        ("committer", &[("GIT_COMMITTER_EMAIL", "torvalds@example.org")][..], "x"),
        ("name", &[("GIT_COMMITTER_NAME", "Linus"), ("GIT_AUTHOR_NAME", "Linus")], "x"),
        ("signed", &[], "x\n\nSigned-off-by: Linus <torvalds@example.org>"),
        ("together", &[], "x\n\nCo-authored-by: Linus <torvalds@example.org>"),
        ("run", &[], "x\n\nTipstaff-Run: 00000000-0000-7000-8000-000000000000"),
    ] {
        let clone = world.clone_to(name).await;
        git(&clone, &["reset", "-q", "--hard", &format!("origin/{own}")]).await.succeeded();
        write(&clone.join("b.txt"), name);
        git(&clone, &["add", "."]).await.succeeded();
        let environment: Vec<(&str, &OsStr)> =
            environment.iter().map(|(key, value)| (*key, OsStr::new(*value))).collect();
        git_at(&clone, &environment, &["commit", "-qm", message].map(OsStr::new)).succeeded();
        // An honest commit on top changes nothing.
        world.commit(&clone, "c.txt", "c\n").await;
        world.push(&clone, &[], &[own]).await.refused_with("commit-identity");
    }
    // An agent's mark and its program as co-author are its own.
    let clone = world.clone_to("mark").await;
    git(&clone, &["reset", "-q", "--hard", &format!("origin/{own}")]).await.succeeded();
    write(&clone.join("b.txt"), "b\n");
    git(&clone, &["add", "."]).await.succeeded();
    let environment = [("GIT_AUTHOR_NAME", OsStr::new("Tipstaff builder (aider)"))];
    let message = "x\n\nCo-Authored-By: Claude <noreply@anthropic.com>";
    git_at(&clone, &environment, &["commit", "-qm", message].map(OsStr::new)).succeeded();
    world.push(&clone, &[], &[own]).await.succeeded();
    assert_eq!(world.stop().await.refusals_by_rule[&Rule::CommitIdentity], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_branch_does_not_lead_to_is_not_taken() {
    let mut world = World::new().await;
    let own = world.own();
    let own = own.short();
    let clone = world.clone_to("clone").await;
    // A link out of the repository that no commit of this push names: the next one would only have to point at it.
    let blob = hash_object(&clone, "blob", b"/etc/passwd");
    let tree = graft(&clone, &mktree(&clone, &[(b"120000", b"link", &blob)]));
    commit_tree(&clone, &tree, "junk").await;
    world.commit(&clone, "a.txt", "a\n").await;
    let listed = git(&clone, &["rev-list", "--objects", "HEAD", "junk", "^origin/main"]).await.succeeded();
    let pack = crate::push_bombs::pack_of(&clone, &listed);
    let request = crate::pushing::push_request(&world, "HEAD", &clone, &pack).await;
    let answer = world.raw(request).await;
    assert!(answer.contains("push-object-check") && answer.contains("does not lead to"), "{answer}");
    assert_eq!((world.tip().await, world.held()), (None, 0));
    world.push(&clone, &[], &[own]).await.succeeded();
    world.stop().await;
}
