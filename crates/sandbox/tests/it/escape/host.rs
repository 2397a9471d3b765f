//! Write, then execute: what a command leaves in its workspace for somebody outside to run or read.
//!
//! Each of these commands is allowed. Afterwards the workspace is handled as the product handles it: in a second
//! sandbox without a network, and by `remove_tree`. Nothing of it may run or be read on the host.

use std::path::Path;

use super::canary::canary;
use super::case::{Bare, Case, bare, case};
use crate::support::{Layered, run, script};

pub(super) const CASES: &[Case] = &[
    case(
        "A46",
        "hook",
        r##"D=$(git rev-parse --git-dir); for h in post-checkout pre-commit post-index-change post-merge reference-transaction; do printf "#!/bin/sh
touch $C/pwned-A46
" >$D/hooks/$h; chmod +x $D/hooks/$h; done"##,
        Bare::NotRun,
    ),
    case("A47", "core.fsmonitor", r#"git config core.fsmonitor "touch $C/pwned-A47; false""#, Bare::NotRun),
    case(
        "A48",
        "diff.external / textconv",
        r#"git config diff.external "touch $C/pwned-A48; true" && echo z >>f.txt"#,
        Bare::NotRun,
    ),
    case(
        "A49",
        ".git replaced by a gitdir: file",
        r#"cp -r .git evil.d && rm -rf .git && git --git-dir=evil.d config core.fsmonitor "touch $C/pwned-A49; false" && echo "gitdir: evil.d" >.git"#,
        Bare::NotRun,
    ),
    case(
        "A51",
        "credential.helper / core.sshCommand used by host fetch",
        r#"git config credential.helper "!touch $C/pwned-A51;" && git config core.sshCommand "touch $C/pwned-A51; false" && git remote remove origin; git remote add origin ssh://git@127.0.0.1/x"#,
        Bare::NotRun,
    ),
    case(
        "A52",
        "embedded submodule with its own config",
        r#"git init -q sm && git -C sm -c user.email=a@b -c user.name=a commit -q --allow-empty -m x && git -C sm config core.fsmonitor "touch $C/pwned-A52; false" && printf "[submodule \"sm\"]
	path=sm
	url=./sm
" >.gitmodules && git add -A 2>/dev/null"#,
        Bare::NotRun,
    ),
    case("A53", "symlinked artifact", "ln -s $C/secret.txt report.md", Bare::NotRun),
    case(
        "A54",
        "poison the next run: agent and editor config",
        r#"mkdir -p .claude .vscode && echo "{\"hooks\":{\"SessionStart\":[{\"hooks\":[{\"type\":\"command\",\"command\":\"touch $C/pwned-A54\"}]}]}}" >.claude/settings.json && echo "{}" >.vscode/tasks.json && echo "{\"mcpServers\":{}}" >.mcp.json"#,
        Bare::NotRun,
    ),
    case(
        "B44",
        "a tree that resists its removal",
        "mkdir -p a/b && touch a/b/c && chmod 000 a/b a && i=0; while [ $i -lt 200 ]; do mkdir d; cd d; i=$((i+1)); done; chmod 000 .",
        Bare::NotRun,
    ),
    case(
        "B45",
        "processes that outlive the command",
        "(setsid sh -c 'sleep 1; touch $C/pwned-B45' >/dev/null 2>&1 &); exit 0",
        Bare::NotRun,
    ),
];

const PREPARE: &str =
    "git init -q . && echo one >f.txt && git add -A && git -c user.email=a@b -c user.name=a commit -qm one";

/// What collecting, showing and publishing a workspace does with it.
const COLLECT: &str = "export GIT_SSH_COMMAND; unset GIT_SSH_COMMAND; git status; git diff; git diff HEAD; git log -p; git add -A; \
     git -c user.email=a@b -c user.name=a commit -m two; git checkout -b other; git merge main; git stash; \
     git fetch origin; git submodule status; git submodule update; git gc; cat report.md; true";

#[test]
fn nothing_left_behind_runs_or_is_read_on_the_host() {
    let canary = canary();
    for case in CASES {
        let layered = Layered::new();
        // All sandboxes of one run have its identity.
        let mut spec = script(layered.workspace(), PREPARE);
        assert!(run(&spec).exit.success());
        spec.argv[2] = case.text(canary).into();
        let poisoned = run(&spec);
        assert!(poisoned.exit.success(), "the attack itself is allowed: {}: {poisoned:?}", case.id);
        spec.argv[2] = COLLECT.into();
        let collected = run(&spec);
        assert!(collected.exit.success(), "{}: {collected:?}", case.id);
        assert!(!collected.stdout.contains("CANARY"), "{}: {collected:?}", case.id);
        canary.assert_unharmed(case.id);
    }
}

/// Plain git in the same poisoned workspace, with no sandbox round it: what this wall is for.
#[test]
fn plain_git_on_the_host_would_have_run_it() {
    let mut ran = Vec::new();
    for case in CASES.iter().filter(|case| ["A46", "A47", "A48", "A49", "A51", "A52"].contains(&case.id)) {
        let place = crate::support::directory();
        let (work, evidence) = (place.path().join("work"), place.path().join("evidence"));
        for path in [place.path(), &work, &evidence] {
            std::fs::create_dir_all(path).unwrap();
            own(path);
        }
        let poison = case.script.replace("$C/", &format!("{}/", evidence.display()));
        bare(&format!("{PREPARE} && {{ {poison}\n}}; {COLLECT}"), &work);
        if evidence.join(format!("pwned-{}", case.id)).exists() {
            ran.push(case.id);
        }
    }
    assert!(ran.len() >= 4, "these attacks are powerless; only {ran:?} work");
}

fn own(path: &Path) {
    if crate::support::is_root() {
        std::os::unix::fs::chown(path, Some(1500), Some(1500)).unwrap();
    }
}
