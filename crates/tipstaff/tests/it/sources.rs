//! Repositories from a URL: git's own HTTP backend on loopback.

use crate::backend::Backend;
use crate::world::World;
use std::io::Write;
use std::process::Stdio;

#[test]
fn a_url_is_mirrored_once_and_then_fetched_incrementally() {
    let world = World::new();
    let repository = world.repository("demo");
    world.git(world.path(), &["clone", "-q", "--bare", "demo", "served/acme/site.git"]);
    let backend = Backend::serve(world.path().join("served"));
    let url = format!("{}/acme/site.git", backend.url);
    let run = |script: &str| {
        world.tipstaff(&["run", "--json", "--repo", &url, "--", "sh", "-c", script]).expect(0).json()
    };
    assert_eq!(
        run("git remote get-url origin | grep -q 127.0.0.1:8080/git/acme/site.git && echo x >> README.md")["files_changed"],
        1
    );
    // The next run sees what was pushed meanwhile.
    world.write(&repository.join("later.txt"), "later\n");
    world.commit(&repository, "later");
    world.git(
        &repository,
        &["push", "-q", &format!("{}/served/acme/site.git", world.path().display()), "HEAD:main"],
    );
    assert_eq!(run("test -f later.txt && echo y >> later.txt")["files_changed"], 1);
    // The change can go into any clone.
    world.tipstaff_in(&repository, &["runs", "apply", "--repo", repository.to_str().unwrap()]).expect(0);
    assert_eq!(std::fs::read_to_string(repository.join("later.txt")).unwrap(), "later\ny\n");
    // What is not there says so; credentials never go into a URL.
    let missing = format!("{}/acme/none.git", backend.url);
    let ended = world.tipstaff(&["run", "--repo", &missing, "--", "true"]);
    assert!(matches!(ended.code, Some(2 | 7)) && !ended.stderr.is_empty(), "{ended:#?}");
    let secret =
        world.tipstaff(&["run", "--repo", "https://me:hunter2@example.com/a/b", "--", "true"]).expect(2);
    assert!(!secret.stderr.contains("hunter2"), "{}", secret.stderr);
}

#[test]
fn a_clone_through_the_broker_sees_the_granted_repository_and_no_other() {
    let world = World::new();
    let repository = world.repository("demo");
    world.repository("other");
    world.run_script(&world.path().join("other"), "true").expect(0);
    let script = "git clone -q http://127.0.0.1:8080/git/local/demo.git /tmp/again && test -f /tmp/again/README.md \
                  && ! git clone -q http://127.0.0.1:8080/git/local/other.git /tmp/other";
    let summary = world.run_script(&repository, script).expect(0).json();
    assert_eq!(summary["refusals"][0]["rule"], "repository-not-granted");
}

/// A history of `commits` commits over `files` files, written as git's import stream.
fn import_stream(commits: usize, files: usize) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut text = String::new();
    for number in 0..commits {
        let mark = number + 1;
        writeln!(
            text,
            "commit refs/heads/main\nmark :{mark}\ncommitter A <a@b.c> {} +0000\ndata 1\nx",
            1_700_000_000 + number
        )
        .unwrap();
        if number > 0 {
            writeln!(text, "from :{number}").unwrap();
        }
        let touched: Vec<usize> = if number == 0 { (0..files).collect() } else { vec![number % files] };
        for file in touched {
            let content = format!("file {file} in commit {number}\n").repeat(20);
            writeln!(
                text,
                "M 100644 inline src/d{}/f{file}.txt\ndata {}\n{content}",
                file % 60,
                content.len()
            )
            .unwrap();
        }
    }
    text.into_bytes()
}

#[test]
fn a_large_repository_is_run_on_from_a_path_and_from_a_url() {
    let world = World::new();
    let repository = world.path().join("served/acme/large");
    world.folder(&repository);
    world.git(&repository, &["init", "-q"]);
    let mut import = world.command("git");
    import.current_dir(&repository).args(["fast-import", "--quiet"]).stdin(Stdio::piped());
    let mut import = import.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(&import_stream(20_000, 3_000)).unwrap();
    crate::world::wait(import, std::time::Duration::from_secs(120)).expect(0);
    world.git(&repository, &["reset", "-q", "--hard", "main"]);
    let before = world.picture(&repository);
    let script = "echo hello >> src/d1/f1.txt && git log --oneline | wc -l && git status --short";
    let summary = world.run_script(&repository, script).expect(0).json();
    assert_eq!((&summary["files_changed"], &summary["additions"]), (&1.into(), &1.into()));
    assert_eq!(world.picture(&repository), before);
    let backend = Backend::serve(world.path().join("served"));
    let url = format!("{}/acme/large/.git", backend.url);
    let again =
        world.tipstaff(&["run", "--json", "--repo", &url, "--", "sh", "-c", "rm -r src/d2"]).expect(0).json();
    assert_eq!(again["files_changed"], 50);

    // While a run goes on, what clones are counted with comes to its repository, and to the next run at once.
    let mut long = world.start(&["run", "--repo", &url, "--", "sleep", "120"]);
    let counted = || -> Vec<_> {
        let results = std::fs::read_dir(world.home().join("results")).unwrap().flatten();
        results.filter(|run| run.path().join("objects/pack/multi-pack-index").is_file()).collect()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(100);
    while counted().is_empty() && std::time::Instant::now() < deadline {
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    let _may_have_ended = long.kill();
    long.wait().unwrap();
    assert!(!counted().is_empty(), "no bitmap came");
    let clone = "git clone -q --bare $(git remote get-url origin) /tmp/again && cd /tmp/again && git fsck --connectivity-only && git rev-list --count HEAD";
    let cloned = world.tipstaff(&["run", "--json", "--repo", &url, "--", "sh", "-c", clone]).expect(0);
    assert!(cloned.stderr.contains("20000"), "{cloned:#?}");
}

#[test]
fn another_orgs_repository_of_the_same_name_has_no_object_here() {
    let world = World::new();
    let theirs = world.repository("demo");
    world.write(&theirs.join("plans.txt"), "what the first org plans\n");
    world.commit(&theirs, "Plans of the first org");
    world.git(&theirs, &["branch", "side"]);
    world.run_script(&theirs, "echo more >> plans.txt").expect(0);
    let id = |revision: &str| world.git(&theirs, &["rev-parse", revision]).trim().to_owned();
    let ids = [id("HEAD"), id("HEAD^{tree}"), id("HEAD:plans.txt")];
    // Another org on the same machine: its own database, the same state folder, the same path and name.
    for entry in std::fs::read_dir(world.home()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("tipstaff.db") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    std::fs::rename(&theirs, world.path().join("of-the-first-org")).unwrap();
    let ours = world.repository("demo");
    world.write(&ours.join("ours.txt"), "of the second org\n");
    world.commit(&ours, "Of the second org");
    let [commit, tree, blob] = &ids;
    let script = format!(
        r#"
URL=$(git remote get-url origin)
for id in {commit} {tree} {blob}; do
  git cat-file -e $id 2>/dev/null && echo "found=$id" >&2
  for version in 0 2; do
    rm -rf /tmp/asker && git init -q /tmp/asker
    git -C /tmp/asker -c protocol.version=$version fetch -q "$URL" $id 2>/tmp/said && echo "fetched=$id" >&2
    git -C /tmp/asker cat-file -e $id 2>/dev/null && echo "found=$id" >&2
  done
  printf '0032want %s\n00000009done\n' $id >/tmp/want
  curl -sS -m 20 -o /tmp/pack -w 'status=%{{http_code}}\n' -H 'Content-Type: application/x-git-upload-pack-request' --data-binary @/tmp/want "$URL/git-upload-pack" >&2
  grep -a PACK /tmp/pack >&2 && echo "sent=$id" >&2
done
git clone -q "$URL" /tmp/mine && test -f /tmp/mine/ours.txt && echo mine=fine >&2
# Built by oneself out of known ids, it does not lead to what is not there either.
COMMIT=$(git commit-tree {tree} -p HEAD -m Guess 2>/dev/null) || echo guess=refused >&2
ls / /tipstaff 2>/dev/null | grep -i mirror >&2
true
"#
    );
    let ended = world.run_script(&ours, &script).expect(0);
    for bad in ["found=", "fetched=", "sent=", "status=200"] {
        assert!(!ended.stderr.contains(bad), "{bad}: {ended:#?}");
    }
    assert_eq!(ended.stderr.matches("status=403").count(), 3, "{ended:#?}");
    assert!(ended.stderr.contains("mine=fine") && ended.stderr.contains("guess=refused"), "{ended:#?}");
    // Both mirrors are there, side by side, and what one has the other has not.
    let mirrors: Vec<std::path::PathBuf> = std::fs::read_dir(world.home().join("mirrors"))
        .unwrap()
        .flatten()
        .flat_map(|org| std::fs::read_dir(org.path()).unwrap().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "git"))
        .collect();
    assert_eq!(mirrors.len(), 2, "{mirrors:?}");
    let all = |mirror: &std::path::Path| {
        world.git(mirror, &["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"])
    };
    assert_eq!(mirrors.iter().filter(|mirror| all(mirror).contains(commit.as_str())).count(), 1);
}
