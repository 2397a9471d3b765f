//! Write-then-execute: the command is allowed, and afterwards the product collects, diffs, commits, applies and
//! cleans up. Nothing of it may ever run on the host. The cases A46 to A54, and our own.

use crate::world::World;
use std::path::Path;

/// Runs the attack, then everything that a person might do with its result; the canary must not appear.
fn attack(name: &str, script: &str) -> (World, std::path::PathBuf, serde_json::Value) {
    let world = World::new();
    let repository = world.repository("demo");
    world.write(&repository.join("f.txt"), "f\n");
    world.commit(&repository, "f");
    let canaries = world.path().join("canaries");
    world.folder(&canaries);
    world.write(&canaries.join("secret.txt"), "CANARY-7f3a\n");
    let script = script
        .replace("$C", canaries.to_str().unwrap())
        .replace("$PWNED", &format!("{}/pwned-{name}", canaries.display()));
    let ended = world.run_script(&repository, &script);
    let summary = ended.json();
    for arguments in [
        vec!["runs", "show"],
        vec!["runs", "diff"],
        vec!["runs", "diff", "--stat"],
        vec!["runs", "logs"],
        vec!["runs", "apply", "--branch", "looked-at"],
        vec!["runs", "apply"],
    ] {
        let ended = world.tipstaff_in(&repository, &arguments);
        assert!(!ended.stdout.contains("CANARY"), "{name}: {ended:#?}");
    }
    world.run_script(&repository, "git status --short; true");
    assert!(!canaries.join(format!("pwned-{name}")).exists(), "{name}: something ran on the host");
    world.tipstaff(&["audit", "verify"]).expect(0);
    (world, repository, summary)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a46_hooks() {
    let script = "D=$(git rev-parse --git-dir); for h in post-checkout pre-commit post-index-change post-merge reference-transaction pre-push; do \
                  mkdir -p $D/hooks; printf '#!/bin/sh\\ntouch $PWNED\\n' >$D/hooks/$h; chmod +x $D/hooks/$h; done; echo z >>f.txt";
    let (_world, repository, summary) = attack("A46", script);
    assert_eq!(summary["files_changed"], 1, "{summary}");
    assert_eq!(text(&repository.join("f.txt")), "f\nz\n");
}

#[test]
fn a47_fsmonitor() {
    let (.., summary) = attack("A47", "git config core.fsmonitor 'touch $PWNED; false'; echo z >>f.txt");
    assert_eq!(summary["files_changed"], 1);
}

#[test]
fn a48_external_diff_textconv_and_filters() {
    let script = "git config diff.external 'touch $PWNED; true'; git config diff.x.textconv 'touch $PWNED; cat'; \
                  git config filter.x.clean 'touch $PWNED; cat'; git config filter.x.smudge 'touch $PWNED; cat'; \
                  git config merge.x.driver 'touch $PWNED; true'; \
                  echo '* diff=x filter=x merge=x' > .gitattributes; echo z >>f.txt";
    let (.., summary) = attack("A48", script);
    assert_eq!(summary["files_changed"], 2);
}

#[test]
fn a49_the_git_folder_is_a_file() {
    let script = "cp -r .git evil.d && rm -rf .git && git --git-dir=evil.d config core.fsmonitor 'touch $PWNED; false' && echo 'gitdir: evil.d' >.git; echo z >>f.txt";
    let (.., summary) = attack("A49", script);
    assert_eq!(summary["state"], "done", "{summary}");
}

#[test]
fn a51_credential_helper_and_ssh_command() {
    let script = "git config credential.helper '!touch $PWNED;'; git config core.sshCommand 'touch $PWNED; false'; \
                  git remote remove origin; git remote add origin ssh://git@127.0.0.1/x; echo z >>f.txt";
    let (.., summary) = attack("A51", script);
    assert_eq!(summary["files_changed"], 1);
}

#[test]
fn a52_a_repository_within() {
    let script = "git init -q sm && git -C sm -c user.email=a@b -c user.name=a commit -q --allow-empty -m x && \
                  git -C sm config core.fsmonitor 'touch $PWNED; false'; echo z >>f.txt";
    let (.., summary) = attack("A52", script);
    assert_eq!(summary["files_changed"], 1, "it did not become a submodule: {summary}");
}

#[test]
fn a53_a_symlinked_artifact_is_refused() {
    let (_world, repository, summary) = attack("A53", "ln -s $C/secret.txt report.md");
    assert_eq!(summary["exit_reason"], "refused");
    assert_eq!(summary["refusals"][0]["rule"], "symlink-escapes");
    assert!(!repository.join("report.md").exists() && !repository.join("report.md").is_symlink());
    // One that stays within is merged as a link.
    let (_world, repository, summary) = attack("A53", "ln -s README.md report.md");
    assert_eq!(summary["files_changed"], 1);
    assert!(repository.join("report.md").is_symlink(), "a link was merged as a link");
}

#[test]
fn a54_configuration_that_would_poison_the_next_run() {
    let script = "mkdir -p .claude .vscode && echo '{\"hooks\":{}}' >.claude/settings.json && echo '{}' >.vscode/tasks.json && echo '{}' >.mcp.json";
    let (_world, repository, summary) = attack("A54", script);
    assert_eq!(summary["exit_reason"], "refused");
    assert_eq!(summary["refusals"][0]["rule"], "path-protected");
    assert!(!repository.join(".claude").exists());
}

#[test]
fn a_hook_folder_in_the_tree_is_not_run_by_apply() {
    let world = World::new();
    let repository = world.repository("demo");
    let canary = world.path().join("pwned");
    // As husky and friends do: the person's own configuration points at a folder of the tree.
    world.write(&repository.join("hooks/post-merge"), "#!/bin/sh\nexit 0\n");
    world.commit(&repository, "hooks");
    world.git(&repository, &["config", "core.hooksPath", "hooks"]);
    world.git(&repository, &["config", "filter.tree.smudge", "./hooks/smudge"]);
    world.git(&repository, &["config", "merge.tree.driver", "./hooks/smudge"]);
    world.git(&repository, &["config", "core.fsmonitor", "./hooks/smudge"]);
    let payload = format!("#!/bin/sh\\ntouch {}\\ncat\\n", canary.display());
    let script = format!(
        "for h in post-merge post-checkout reference-transaction prepare-commit-msg commit-msg pre-merge-commit smudge; do \
         printf '{payload}' > hooks/$h; chmod +x hooks/$h; done; echo '* filter=tree merge=tree' > .gitattributes; echo z >> README.md"
    );
    world.run_script(&repository, &script).expect(0);
    world.tipstaff_in(&repository, &["runs", "apply"]).expect(0);
    assert!(!canary.exists(), "apply ran something of the agent's");
    assert_eq!(text(&repository.join("README.md")), "# Demo\nz\n");
}

#[test]
fn a_poisoned_source_runs_nothing_on_the_host() {
    let world = World::new();
    let repository = world.repository("demo");
    let canary = world.path().join("pwned");
    let touch = format!("touch {}; false", canary.display());
    for key in [
        "core.fsmonitor",
        "core.sshCommand",
        "diff.external",
        "filter.x.clean",
        "filter.x.smudge",
        "uploadpack.packObjectsHook",
        "core.pager",
        "core.editor",
    ] {
        world.git(&repository, &["config", key, &touch]);
    }
    for hook in ["post-checkout", "reference-transaction", "post-index-change", "pre-push"] {
        let path = repository.join(".git/hooks").join(hook);
        world.write(&path, &format!("#!/bin/sh\n{touch}\n"));
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    world.write(&repository.join(".gitattributes"), "* filter=x\n");
    let mut commit = world.command("git");
    commit.current_dir(&repository).args([
        "-c",
        "core.fsmonitor=",
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "filter.x.clean=cat",
        "-c",
        "user.name=p",
        "-c",
        "user.email=p@example.com",
    ]);
    commit.args(["commit", "-q", "-a", "-m", "attributes"]);
    crate::world::run(commit);
    let _before = std::fs::remove_file(&canary);
    let summary = world.run_script(&repository, "echo z >> README.md").expect(0).json();
    assert_eq!(summary["files_changed"], 1);
    assert!(!canary.exists(), "the source's configuration ran something on the host");
}

#[test]
fn a_tree_without_permissions_and_a_broken_git_folder_are_collected_and_removed() {
    let world = World::new();
    let repository = world.repository("demo");
    let script = "echo z >> README.md; mkdir -p deep/$(printf 'd/%.0s' $(seq 60)) locked; echo x > locked/x; chmod 000 locked; rm -rf .git";
    let summary = world.run_script(&repository, script).json();
    assert_eq!(summary["state"], "done", "{summary}");
    assert!(summary["files_changed"].as_u64().unwrap() >= 1);
    assert_eq!(std::fs::read_dir(world.home().join("runs")).unwrap().count(), 0, "the workspace is gone");
}

#[test]
fn history_that_was_rewritten_does_not_lose_the_work() {
    let world = World::new();
    let repository = world.repository("demo");
    let script = "git checkout -q --orphan other && git rm -rq --cached . && echo z > z.txt && git add z.txt && git commit -q -m orphan";
    let summary = world.run_script(&repository, script).expect(0).json();
    assert_eq!(summary["state"], "done");
    assert!(summary["files_changed"].as_u64().unwrap() >= 1, "{summary}");
}
