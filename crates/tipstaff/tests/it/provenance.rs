//! Where a commit came from, and every way to make one look as if it came out of quarantine.

use crate::publish::{Upstream, verified_by_git};
use crate::world::{Ended, World, run};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// `tipstaff provenance verify COMMIT --repo REPO --json`.
fn verify(world: &World, repository: &Path, commit: &str, more: &[&str]) -> Ended {
    let repo = repository.to_str().unwrap();
    world.tipstaff(&[&["provenance", "verify", commit, "--repo", repo, "--json"], more].concat())
}

/// The checks that do not hold.
fn broken(ended: &Ended) -> Vec<String> {
    let found = ended.json();
    assert_eq!(found["holds"], ended.code.unwrap() == 0, "{found}");
    let checks = found["checks"].as_array().unwrap().clone();
    checks
        .iter()
        .filter(|one| one["holds"] == false)
        .map(|one| one["check"].as_str().unwrap().to_owned())
        .collect()
}

/// A published change of several commits and a merge, and a fresh clone of upstream.
struct Published {
    up: Upstream,
    clone: PathBuf,
    commit: String,
    run: String,
}

const WORK: &str = "set -e; echo one >> README.md; git commit -qam 'One\n\nMentions Tipstaff-Run in passing'
git checkout -qb side HEAD~1; echo side > side.txt; git add side.txt; git commit -qm 'Side\n\nReviewed-on: paper'
git checkout -q -; git merge -q --no-ff -m 'Merge side' side; echo two >> README.md";

impl Published {
    fn new() -> Self {
        let up = Upstream::new();
        let summary = up.run(WORK, 0);
        let published = up.publish(&[]).expect(0).json();
        let commit = published["commit"].as_str().unwrap().to_owned();
        assert_eq!(published["commits"], 4, "three of the run, and what was not committed");
        up.world.git(up.world.path(), &["clone", "-q", up.bare.to_str().unwrap(), "clone"]);
        let clone = up.world.path().join("clone");
        up.world.git(&clone, &["checkout", "-q", published["branch"].as_str().unwrap()]);
        Self { clone, commit, run: summary["run"].as_str().unwrap().to_owned(), up }
    }

    fn git(&self, args: &[&str]) -> String {
        self.up.world.git(&self.clone, args).trim().to_owned()
    }

    fn verify(&self, commit: &str) -> Ended {
        verify(&self.up.world, &self.clone, commit, &[])
    }

    /// Writes these bytes as a commit; its id.
    fn write(&self, bytes: &str) -> String {
        let mut command = self.up.world.command("git");
        command.current_dir(&self.clone).args([
            "hash-object",
            "-t",
            "commit",
            "-w",
            "--stdin",
            "--literally",
        ]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
    }

    fn raw(&self, commit: &str) -> String {
        self.up.world.git(&self.clone, &["cat-file", "commit", commit])
    }
}

#[test]
fn every_commit_of_a_published_change_verifies_here_and_with_plain_git() {
    let it = Published::new();
    let world = &it.up.world;
    let commits = it.git(&["rev-list", "main..HEAD"]);
    assert_eq!(commits.lines().count(), 4);
    for commit in commits.lines() {
        let ended = it.verify(commit).expect(0);
        assert_eq!((&ended.json()["run"], broken(&ended)), (&it.run.clone().into(), vec![]));
        assert!(verified_by_git(world, &it.clone, commit), "{commit}");
        let runs =
            it.git(&["log", "-1", "--format=%(trailers:key=Tipstaff-Run,valueonly,separator=%x2C)", commit]);
        assert_eq!(runs, it.run, "one trailer, the true one");
        let message = it.git(&["log", "-1", "--format=%B", commit]);
        assert!(!message.contains("forged") && !message.contains("sha256:0\n"), "{message}");
    }
    let side = it.git(&["log", "--format=%(trailers:key=Reviewed-on)", "--grep=^Side", "-1"]);
    assert!(side.contains("Reviewed-on: paper"), "what was a trailer is one still: {side}");
    let parents = it.git(&["rev-list", "--parents", "--min-parents=2", "main..HEAD"]);
    assert_eq!(parents.split(' ').count(), 3, "the merge is a merge");

    // Offline: nothing but the repository, the export and its key.
    let export = world.path().join("audit.jsonl");
    world.tipstaff(&["audit", "export", "--output", export.to_str().unwrap()]).expect(0);
    let shown = world.tipstaff(&["runs", "show", "--json"]).expect(0).json();
    let warrant =
        world.tipstaff(&["warrants", "show", "--json", shown["warrant"]["id"].as_str().unwrap()]).expect(0);
    let file = world.path().join("warrant.json");
    world.write(&file, &warrant.stdout);
    let stranger = World::new();
    let offline = |commit: &str, more: &[&str]| {
        let export = ["--export", export.to_str().unwrap()];
        verify(&stranger, &it.clone, commit, &[&export, more].concat())
    };
    let without = offline(&it.commit, &[]).expect(0);
    let paths =
        without.json()["checks"].as_array().unwrap().iter().find(|one| one["check"] == "paths").cloned();
    assert_eq!(paths.unwrap()["holds"], Value::Null, "the paths are in the warrant");
    assert_eq!(
        broken(&offline(&it.commit, &["--warrant", file.to_str().unwrap()]).expect(0)),
        Vec::<String>::new()
    );
    assert!(!stranger.home().join("tipstaff.db").exists(), "no database was made");
    world.write(&file, &warrant.stdout.replace("\\\"write\\\":[", "\\\"write\\\":[\\\"/etc/**\\\","));
    offline(&it.commit, &["--warrant", file.to_str().unwrap()]).expect(2);
    // An export that was touched vouches for nothing.
    let text = std::fs::read_to_string(&export).unwrap();
    std::fs::write(&export, text.replace(&it.commit, &it.git(&["rev-parse", "HEAD~1"]))).unwrap();
    assert_eq!(broken(&offline(&it.commit, &[]).expect(1)), ["log"]);

    let show = stranger
        .tipstaff(&["provenance", "show", &it.commit, "--repo", it.clone.to_str().unwrap()])
        .expect(0);
    assert!(show.stdout.contains(&it.run) && show.stdout.contains("SHA256:"), "{show:#?}");
    let text = world.tipstaff_in(&it.clone, &["provenance", "verify", "HEAD"]).expect(0).stdout;
    assert!(text.contains("verified") && text.contains("push.published"), "{text}");
}

#[test]
fn a_commit_that_was_changed_or_made_elsewhere_does_not_verify() {
    let it = Published::new();
    let world = &it.up.world;
    let good = it.raw(&it.commit);
    let only = |commit: &str, check: &str| {
        let ended = it.verify(commit).expect(1);
        assert_eq!(broken(&ended), [check], "{ended:#?}");
    };
    // Amended, cherry-picked, rebased: the trailers stay, the signature does not.
    it.git(&["commit", "-q", "--amend", "-m", &it.git(&["log", "-1", "--format=%B"]), "--date=now"]);
    only("HEAD", "signature");
    it.git(&["checkout", "-q", "-B", "picked", "main"]);
    world.write(&it.clone.join("base.txt"), "meanwhile\n");
    world.commit(&it.clone, "meanwhile");
    it.git(&["cherry-pick", "-x", &format!("{}~1^2", it.commit)]);
    assert!(it.git(&["log", "-1", "--format=%B"]).contains("Tipstaff-Run"));
    only("HEAD", "signature");
    only("main", "signature");
    // By hand, with the signature left in place.
    for (from, to) in [
        ("\n\n", "\n\nBetter: "),
        ("author ", "author Somebody "),
        (
            &format!("tree {}", it.git(&["rev-parse", &format!("{}^{{tree}}", it.commit)])),
            &format!("tree {}", it.git(&["rev-parse", "main^{tree}"])),
        ),
        (&it.run, "00000000-0000-7000-8000-000000000000"),
        ("\n\n", &format!("\n\nTipstaff-Run: {}\n\n", it.run)),
        ("\ngpgsig", "\nextra header\ngpgsig"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        only(&it.write(&bad), "signature");
    }
    // The signature of another commit of the same run.
    let other = it.raw(&format!("{}~1", it.commit));
    let signature = |raw: &str| raw.split("gpgsig ").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    only(&it.write(&good.replace(&signature(&good), &signature(&other))), "signature");
    // An object that is shown in place of another.
    let forged = it.write(&good.replacen("\n\n", "\n\nReplaced: ", 1));
    it.git(&["replace", &forged, &it.commit]);
    assert!(verified_by_git(world, &it.clone, &forged), "plain git is taken in");
    only(&forged, "signature");
    it.git(&["replace", "-d", &forged]);
    // Bytes that are not those of the id: the good commit's, lying where the forged one's should.
    let loose = |root: &Path, id: &str| root.join(".git/objects").join(&id[..2]).join(&id[2..]);
    let elsewhere = world.repository("elsewhere");
    let file = world.path().join("good");
    world.write(&file, &good);
    let written = ["hash-object", "-t", "commit", "-w", "--literally", file.to_str().unwrap()];
    assert_eq!(world.git(&elsewhere, &written).trim(), it.commit);
    std::fs::remove_file(loose(&it.clone, &forged)).unwrap();
    std::fs::copy(loose(&elsewhere, &it.commit), loose(&it.clone, &forged)).unwrap();
    assert_ne!(it.verify(&forged).code, Some(0));
}

#[test]
fn another_key_another_org_and_another_log_do_not_vouch() {
    let it = Published::new();
    let world = &it.up.world;
    // Signed by a person's own SSH key, with our trailers.
    let keygen = |dir: &Path| {
        let mut command = world.command("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join("key"));
        run(command).expect(0);
    };
    keygen(world.path());
    let raw = it.raw(&it.commit);
    let head = raw.split("gpgsig ").next().unwrap().to_owned();
    let payload = format!("{head}\n{}", raw.split_once("\n\n").unwrap().1);
    let file = world.path().join("payload");
    world.write(&file, &payload);
    let mut command = world.command("ssh-keygen");
    command.args(["-Y", "sign", "-n", "git", "-f"]).arg(world.path().join("key")).arg(&file);
    run(command).expect(0);
    let armor = std::fs::read_to_string(world.path().join("payload.sig")).unwrap();
    let folded = armor.trim_end().replace('\n', "\n ");
    let theirs = it.write(&format!("{head}gpgsig {folded}\n\n{}", raw.split_once("\n\n").unwrap().1));
    let ended = it.verify(&theirs).expect(1);
    assert_eq!(broken(&ended), ["signer", "audit"], "{ended:#?}");
    assert!(!verified_by_git(world, &it.clone, &theirs));

    // Another org: its store knows neither key nor run.
    let other = World::new();
    let ended = verify(&other, &it.clone, &it.commit, &[]).expect(1);
    assert_eq!(broken(&ended), ["signer", "warrant", "audit"]);
    assert!(!verified_by_git(&other, &it.clone, &it.commit));

    // Attested, but it never left: the log says nothing of it.
    it.up.run("echo more >> README.md", 0);
    let plan = it.up.publish(&["--dry-run"]).expect(0).json();
    let inside = world.home().join(format!("results/{}.git", plan["run"].as_str().unwrap()));
    let ended = verify(world, &inside, plan["commit"].as_str().unwrap(), &[]).expect(1);
    assert_eq!(broken(&ended), ["audit"]);

    // A log that was tampered with vouches for nothing.
    let mut command = world.command("python3");
    command.args(["-c", "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute(\"update audit_record set at = at + 1 where seq = 3\"); c.commit()"]);
    command.arg(world.home().join("tipstaff.db"));
    run(command).expect(0);
    assert_eq!(broken(&it.verify(&it.commit).expect(1)), ["log"]);
}

#[test]
fn what_is_applied_is_signed_as_well() {
    let world = World::new();
    let repository = world.repository("demo");
    world.run_script(&repository, "echo x >> README.md").expect(0);
    world.tipstaff_in(&repository, &["runs", "apply"]).expect(0);
    verify(&world, &repository, "HEAD^2", &[]).expect(0);
    assert!(verified_by_git(&world, &repository, "HEAD^2"));
    assert_eq!(
        broken(&verify(&world, &repository, "HEAD", &[]).expect(1)),
        ["signature"],
        "a person made the merge"
    );
    assert_eq!(world.git(&repository, &["log", "-1", "--format=%an"]).trim(), "person", "their own name");
}

#[test]
fn what_can_not_be_looked_at_says_so() {
    let world = World::new();
    let repository = world.repository("demo");
    let repo = repository.to_str().unwrap();
    for bad in ["nothing", "HEAD:README.md", "--all", "main..HEAD", ""] {
        let ended = world.tipstaff(&["provenance", "verify", "--json", "--repo", repo, "--", bad]).expect(2);
        assert_eq!(ended.json()["error"]["code"], "commit-unknown", "{bad}");
    }
    let remote = ["provenance", "verify", "HEAD", "--repo", "https://example.com/a/b", "--json"];
    assert_eq!(world.tipstaff(&remote).expect(2).json()["error"]["code"], "provenance-needs-repository");
    let missing = ["provenance", "verify", "HEAD", "--repo", repo, "--export", "/nonexistent", "--json"];
    world.tipstaff(&missing).expect(1);
    assert_eq!(broken(&verify(&world, &repository, "HEAD", &[]).expect(1)), ["signature"]);
}
