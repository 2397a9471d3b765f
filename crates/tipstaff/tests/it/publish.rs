//! A run's change goes upstream: signed, as a new branch, with a credential that no run ever sees.

use crate::backend::{Backend, Pushes, base64};
use crate::secrets::{fed, holders};
use crate::world::{Ended, World};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const TOKEN: &str = "forge-pat-Zq8vT3nE5hWm7rYkLp2sDf9xJc4bGa6u";
const USER: &str = "release-bot";

/// A server with one repository, and a run on it whose change waits in quarantine.
pub(crate) struct Upstream {
    pub(crate) world: World,
    pub(crate) backend: Backend,
    pub(crate) url: String,
    pub(crate) bare: PathBuf,
}

impl Upstream {
    pub(crate) fn new() -> Self {
        let world = World::new();
        world.repository("demo");
        world.git(world.path(), &["clone", "-q", "--bare", "demo", "served/acme/site.git"]);
        let bare = world.path().join("served/acme/site.git");
        let backend = Backend::serve(world.path().join("served"));
        let url = format!("{}/acme/site.git", backend.url);
        Self { world, backend, url, bare }
    }

    pub(crate) fn run(&self, script: &str, code: i32) -> Value {
        let args = ["run", "--json", "--timeout", "60s", "--repo", &self.url, "--", "sh", "-c", script];
        self.world.tipstaff(&args).expect(code).json()
    }

    pub(crate) fn publish(&self, more: &[&str]) -> Ended {
        self.world.tipstaff(&[&["runs", "publish", "--json"], more].concat())
    }

    /// Refused or failed with this exit code and this stable code; what was said.
    fn refused(&self, more: &[&str], exit: i32, code: &str) -> String {
        let ended = self.publish(more).expect(exit);
        let error = ended.json()["error"].clone();
        assert_eq!(error["code"], code, "{error}");
        error["message"].as_str().unwrap().to_owned()
    }

    fn set_credential(&self, token: &str) {
        let args = ["secrets", "set", "--git", self.backend.host(), "--username", USER];
        fed(&self.world, &args, token.as_bytes()).expect(0);
    }

    /// The branches upstream, `name commit` each.
    fn branches(&self) -> Vec<String> {
        let text = self.world.git(&self.bare, &["for-each-ref", "--format=%(refname:short) %(objectname)"]);
        text.lines().map(str::to_owned).collect()
    }

    /// The records of the log with this action, oldest first.
    fn records(&self, action: &str) -> Vec<Value> {
        let log = self.world.tipstaff(&["audit", "list", "--limit", "1000", "--json"]).expect(0).stdout;
        let all = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|record| record["action"] == action).collect()
    }
}

/// `git verify-commit` as a person would do it, with nothing of ours but the file of signers.
pub(crate) fn verified_by_git(world: &World, repository: &Path, commit: &str) -> bool {
    let signers = world.tipstaff(&["provenance", "signers"]).expect(0).stdout;
    let file = world.path().join("allowed_signers");
    world.write(&file, &signers);
    let mut command = world.command("git");
    command.current_dir(repository).args(["-c", "safe.directory=*"]);
    command.arg("-c").arg(format!("gpg.ssh.allowedSignersFile={}", file.display()));
    command.args(["verify-commit", commit]);
    crate::world::run(command).code == Some(0)
}

#[test]
fn a_change_is_signed_and_pushed_with_a_credential_that_no_run_sees() {
    let up = Upstream::new();
    up.backend.pushes(Pushes::Needs(USER.to_owned(), TOKEN.to_owned()));
    up.set_credential(TOKEN);
    let script = "echo x >> README.md; { env; cat /proc/*/environ /proc/*/cmdline; git config --list; } 2>/dev/null \
                  | tr '\\0' '\\n' | grep -c 'forge-[p]at'; true";
    let summary = up.run(script, 0);
    let plan = up.publish(&["--dry-run"]).expect(0).json();
    assert_eq!(
        (&plan["dry_run"], &plan["credential"], &plan["url"]),
        (&true.into(), &true.into(), &up.url.clone().into())
    );
    assert_eq!(up.branches().len(), 1, "nothing was pushed");

    let published = up.publish(&[]).expect(0).json();
    assert_eq!(published["published"], "new");
    assert_eq!((&published["branch"], &published["original"]), (&summary["branch"], &summary["commit"]));
    let (branch, commit) = (published["branch"].as_str().unwrap(), published["commit"].as_str().unwrap());
    assert_eq!(commit, plan["commit"], "attesting twice gives the same commit");
    assert!(up.branches().contains(&format!("{branch} {commit}")), "{:?}", up.branches());

    // Anybody with git sees who vouches for it.
    assert!(verified_by_git(&up.world, &up.bare, commit));
    let trailers = up.world.git(&up.bare, &["log", "-1", "--format=%(trailers:only,unfold)|%an|%T", commit]);
    let run = summary["run"].as_str().unwrap();
    assert!(trailers.starts_with(&format!("Tipstaff-Run: {run}\nTipstaff-Warrant: sha256:")), "{trailers}");
    let inside = up.world.home().join(format!("results/{run}.git"));
    let original =
        up.world.git(&inside, &["log", "-1", "--format=|%an|%T", summary["commit"].as_str().unwrap()]);
    assert!(trailers.ends_with(&original), "author and tree stay: {trailers} {original}");
    let kept = up.world.git(&inside, &["rev-parse", &format!("refs/heads/{branch}")]);
    assert_eq!(kept.trim(), summary["commit"], "what the run pushed stays as it is");

    // Once more: nothing changes, and nothing is written.
    let records = up.records("push.published").len();
    assert_eq!(up.publish(&[]).expect(0).json()["published"], "already_there");
    assert_eq!((up.records("push.published").len(), up.records("push.publishing").len()), (records, 1));
    let shown = up.world.tipstaff(&["runs", "show", "--json"]).expect(0).json();
    assert_eq!((&shown["decision"], &shown["published"][0]["state"]), (&"published".into(), &"done".into()));
    assert_eq!(
        (&shown["published"][0]["url"], &shown["published"][0]["commit"]),
        (&up.url.clone().into(), &commit.into())
    );
    let text = up.world.tipstaff(&["runs", "show"]).expect(0).stdout;
    assert!(text.contains("published") && text.contains(&up.url), "{text}");

    // The credential was used as it should, and is nowhere else.
    let basic = base64(format!("{USER}:{TOKEN}").as_bytes());
    assert!(up.backend.seen.lock().unwrap().iter().any(|head| head.contains(&basic)));
    for form in [TOKEN, &basic, &TOKEN[8..30]] {
        assert_eq!(holders(&up.world, form.as_bytes()), Vec::<PathBuf>::new());
    }
    let log = up.world.tipstaff(&["audit", "list", "--json"]).expect(0).stdout;
    assert!(!log.contains(TOKEN));
    let said = up.world.tipstaff(&["runs", "logs"]).expect(0).stdout;
    assert_eq!(said.trim(), "0", "the run did not see it");
    assert_eq!(
        std::fs::read_dir(up.world.home().join("git"))
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("credential"))
            .count(),
        0
    );
    up.world.tipstaff(&["audit", "verify"]).expect(0);
    up.world.tipstaff(&["keys", "rotate"]).expect(0);
    assert_eq!(up.publish(&["--branch", "agent/again"]).expect(0).json()["commit"], commit);
}

#[test]
fn every_refusal_of_upstream_says_what_to_do_and_loses_nothing() {
    let up = Upstream::new();
    let summary = up.run("echo x >> README.md", 0);
    let host = up.backend.host().to_owned();
    up.backend.pushes(Pushes::Needs(USER.to_owned(), TOKEN.to_owned()));
    let said = up.refused(&[], 3, "publish-credential-missing");
    assert!(said.contains(&format!("tipstaff secrets set --git {host}")), "{said}");
    up.set_credential("another-token-0123456789");
    let said = up.refused(&[], 3, "publish-credential-refused");
    assert!(!said.contains("another-token"), "{said}");
    for (status, line, exit, code) in [
        ("403 Forbidden", "X: y".to_owned(), 3, "publish-forbidden"),
        (
            "302 Found",
            format!("Location: {}/other/site.git/info/refs", up.backend.url),
            3,
            "publish-redirected",
        ),
        ("301 Moved", "Location: http://169.254.169.254/".to_owned(), 3, "publish-redirected"),
        ("502 Bad Gateway", "X: y".to_owned(), 1, "publish-unreachable"),
        ("404 Not Found", "X: y".to_owned(), 1, "publish-upstream-missing"),
    ] {
        up.backend.pushes(Pushes::Answers(status, line));
        up.refused(&[], exit, code);
    }
    up.backend.pushes(Pushes::Open);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    up.refused(&["--to", &format!("http://{closed}/a/b.git")], 1, "publish-unreachable");
    up.refused(&["--to", &format!("{}/acme/none.git", up.backend.url)], 1, "publish-upstream-missing");
    for to in [
        "http://example.com/a/b.git",
        "https://me:hunter2@example.com/a.git",
        "ssh://git@example.com/a",
        "ext::sh",
    ] {
        let said = up.refused(&["--to", to], 2, "source-unsupported");
        assert!(!said.contains("hunter2"), "{said}");
    }
    // Names that are nobody's to make.
    for branch in ["main", "refs/heads/main", "feature/x", "agent", "agents/x", "Agent/x"] {
        up.refused(&["--branch", branch], 2, "publish-branch");
    }
    for branch in ["agent/../main", "agent/a b", "agent/x.lock", "-f", "+agent/x", "agent/x:main"] {
        let ended = up.publish(&[&format!("--branch={branch}")]).expect(2).json();
        assert!(
            ended["error"]["code"] == "branch-name" || ended["error"]["code"] == "publish-branch",
            "{ended}"
        );
    }
    assert_eq!(up.branches().len(), 1, "{:?}", up.branches());
    // Somebody else's branch of that name stays as it is.
    let branch = summary["branch"].as_str().unwrap();
    up.world.git(&up.bare, &["branch", branch, "main"]);
    let before = up.branches();
    let said = up.refused(&[], 3, "publish-branch-taken");
    assert!(said.contains("--branch agent/"), "{said}");
    assert_eq!(up.branches(), before);
    // A branch that is in the way of the name.
    up.world.git(&up.bare, &["branch", "agent/taken", "main"]);
    up.refused(&["--branch", "agent/taken/below"], 3, "publish-rejected");
    // At last it goes.
    up.publish(&["--branch", "agent/mine"]).expect(0);
    let shown = up.world.tipstaff(&["runs", "show", "--json"]).expect(0).json();
    let states: Vec<&str> =
        shown["published"].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states.last(), Some(&"done"), "{states:?}");
    assert!(states.contains(&"refused"), "{states:?}");
}

#[test]
fn a_hostile_server_neither_draws_on_the_terminal_nor_tells_the_credential() {
    let up = Upstream::new();
    up.run("echo x >> README.md", 0);
    up.backend.pushes(Pushes::Needs(USER.to_owned(), TOKEN.to_owned()));
    up.set_credential(TOKEN);
    let basic = base64(format!("{USER}:{TOKEN}").as_bytes());
    let hook = format!(
        "#!/bin/sh\nprintf '\\033[2J\\033]0;owned\\007your token is {TOKEN} or {basic}\\n' >&2\nhead -c 3000000 /dev/zero | tr '\\0' 'x' >&2\nexit 1\n"
    );
    let file = up.bare.join("hooks/pre-receive");
    up.world.write(&file, &hook);
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let said = up.refused(&[], 3, "publish-rejected");
    assert!(said.contains("pre-receive hook declined") && said.contains("your token is"), "{said}");
    let plain = up.world.tipstaff(&["runs", "publish"]).expect(3);
    let shown = up.world.tipstaff(&["runs", "show"]).expect(0);
    let log = up.world.tipstaff(&["audit", "list"]).expect(0);
    for text in [&said, &plain.stderr, &shown.stdout, &log.stdout] {
        assert!(!text.contains(TOKEN) && !text.contains(&basic) && !text.contains('\u{1b}'), "{text}");
        assert!(text.len() < 20_000);
    }
    assert_eq!(up.branches().len(), 1);
    assert_eq!(holders(&up.world, TOKEN.as_bytes()), Vec::<PathBuf>::new());
    std::fs::remove_file(file).unwrap();
    up.publish(&[]).expect(0);
}

#[test]
fn only_what_ended_well_and_is_still_there_is_published() {
    let up = Upstream::new();
    up.run("echo x >> README.md; exit 7", 1);
    let said = up.refused(&[], 3, "publish-unverified");
    assert!(said.contains("--unverified") && said.contains("command_failed"), "{said}");
    assert_eq!(up.branches().len(), 1);
    up.publish(&["--unverified"]).expect(0);

    up.run("true", 0);
    up.refused(&[], 2, "run-without-change");
    up.run("echo y >> README.md", 0);
    up.world.tipstaff(&["runs", "discard"]).expect(0);
    up.refused(&[], 2, "run-discarded");
    up.refused(&["ffffffff"], 2, "run-unknown");

    // What somebody put into quarantine behind the run's back is not what the run ended with.
    let summary = up.run("echo z >> README.md", 0);
    let inside = up.world.home().join(format!("results/{}.git", summary["run"].as_str().unwrap()));
    let reference = format!("refs/heads/{}", summary["branch"].as_str().unwrap());
    up.world.git(&inside, &["update-ref", &reference, "refs/tipstaff/base"]);
    up.refused(&[], 3, "result-changed");
    up.world.git(&inside, &["update-ref", &reference, summary["commit"].as_str().unwrap()]);
    up.publish(&[]).expect(0);
}

#[test]
fn a_verification_that_failed_keeps_a_change_from_upstream() {
    let up = Upstream::new();
    let demo = up.world.path().join("demo");
    up.world.write(&demo.join("tipstaff.toml"), "[verify]\ncommands = [\"test ! -e broken\"]\n");
    up.world.commit(&demo, "checks");
    up.world.git(&demo, &["push", "-q", up.bare.to_str().unwrap(), "HEAD:main"]);
    let failed = up.run("touch broken", 1);
    assert_eq!(failed["exit_reason"], "verify_failed", "{failed}");
    let said = up.refused(&[], 3, "publish-unverified");
    assert!(said.contains("verification failed"), "{said}");
    assert_eq!(up.publish(&["--unverified"]).expect(0).json()["published"], "new");
    up.run("touch fine", 0);
    up.publish(&[]).expect(0);
}

/// Starts publishing, kills it with -9 while the server holds the push, and lets the server carry it out or hang up.
fn killed(up: &Upstream, land: bool) {
    up.backend.pushes(Pushes::Gated);
    let mut child = up.world.start(&["runs", "publish"]);
    up.backend.arrived.recv_timeout(Duration::from_secs(60)).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    up.backend.go_on.send(land).unwrap();
    up.backend.answered.recv_timeout(Duration::from_secs(60)).unwrap();
    up.backend.pushes(Pushes::Open);
}

#[test]
fn a_kill_between_the_push_and_its_record_is_reconciled() {
    let up = Upstream::new();
    up.run("echo x >> README.md", 0);
    killed(&up, true);
    let shown = up.world.tipstaff(&["runs", "show", "--json"]).expect(0).json();
    assert_eq!(shown["published"][0]["state"], "begun", "{shown}");
    let text = up.world.tipstaff(&["runs", "show"]).expect(0).stdout;
    assert!(text.contains("end unknown"), "{text}");
    assert_eq!(up.branches().len(), 2, "it landed");
    assert_eq!((up.records("push.publishing").len(), up.records("push.published").len()), (1, 0));
    let again = up.publish(&[]).expect(0).json();
    assert_eq!(again["published"], "reconciled");
    let ended = up.records("push.published");
    assert_eq!((&ended[0]["outcome"], &ended[0]["detail"]["how"]), (&"ok".into(), &"reconciled".into()));
    assert_eq!(ended[0]["detail"]["commit"], again["commit"]);
    let shown = up.world.tipstaff(&["runs", "show", "--json"]).expect(0).json();
    assert_eq!((&shown["published"][0]["state"], &shown["decision"]), (&"done".into(), &"published".into()));
    assert_eq!(up.publish(&[]).expect(0).json()["published"], "already_there");

    // The other way round: it never arrived.
    up.run("echo y >> README.md", 0);
    killed(&up, false);
    assert_eq!(up.branches().len(), 2);
    assert_eq!(up.publish(&[]).expect(0).json()["published"], "new");
    assert_eq!(up.branches().len(), 3);
    let shown = up.world.tipstaff(&["runs", "show", "--json"]).expect(0).json();
    let states: Vec<&Value> =
        shown["published"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["failed", "done"]);
    up.world.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn a_server_that_hangs_up_after_it_took_the_push_is_asked_again() {
    let up = Upstream::new();
    up.run("echo x >> README.md", 0);
    up.backend.pushes(Pushes::Gated);
    let child = up.world.start(&["runs", "publish", "--json"]);
    up.backend.arrived.recv_timeout(Duration::from_secs(60)).unwrap();
    // Somebody else publishes meanwhile: only one process at a time.
    let other = up.publish(&[]).expect(1).json();
    assert_eq!(other["error"]["code"], "publish-going-on");
    // The branch is there with this very commit, made by the other hand; then the connection breaks.
    let run = up.world.tipstaff(&["runs", "show", "--json"]).expect(0).json();
    let (id, published) = (run["summary"]["run"].as_str().unwrap(), &run["published"][0]);
    let inside = up.world.home().join(format!("results/{id}.git"));
    let refspec = format!(
        "{}:refs/heads/{}",
        published["commit"].as_str().unwrap(),
        published["branch"].as_str().unwrap()
    );
    up.world.git(&inside, &["push", "-q", up.bare.to_str().unwrap(), &refspec]);
    up.backend.go_on.send(false).unwrap();
    let ended = crate::world::wait(child, Duration::from_secs(60)).expect(0).json();
    assert_eq!(ended["published"], "already_there");
}

#[test]
fn a_folder_gets_a_branch_and_runs_no_hook() {
    let world = World::new();
    let repository = world.repository("demo");
    let canary = world.path().join("canary");
    for hook in
        ["pre-receive", "update", "post-receive", "post-update", "reference-transaction", "post-checkout"]
    {
        let file = repository.join(".git/hooks").join(hook);
        world.write(&file, &format!("#!/bin/sh\necho {hook} >> {}\n", canary.display()));
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    world.git(&repository, &["config", "core.hooksPath", repository.join(".git/hooks").to_str().unwrap()]);
    let summary = world.run_script(&repository, "echo x >> README.md").expect(0).json();
    let _whatever_git_itself_ran = std::fs::remove_file(&canary);
    world.write(&repository.join("README.md"), "unsaved\n");
    let published = world.tipstaff(&["runs", "publish", "--json"]).expect(0).json();
    assert!(!canary.exists(), "{:?}", std::fs::read_to_string(&canary));
    std::fs::remove_dir_all(repository.join(".git/hooks")).unwrap();
    let branch = format!("refs/heads/{}", summary["branch"].as_str().unwrap());
    assert_eq!(world.git(&repository, &["rev-parse", &branch]).trim(), published["commit"]);
    let all = world.git(&repository, &["for-each-ref", "--format=%(refname)"]);
    assert_eq!(all.lines().count(), 2, "the branch and main: {all}");
    assert_eq!(std::fs::read_to_string(repository.join("README.md")).unwrap(), "unsaved\n");
    assert_eq!(world.tipstaff(&["runs", "publish", "--json"]).expect(0).json()["published"], "already_there");
    world.git(&repository, &["update-ref", &branch, "HEAD"]);
    let taken = world.tipstaff(&["runs", "publish", "--json"]).expect(3).json();
    assert_eq!(taken["error"]["code"], "publish-branch-taken");
    assert!(verified_by_git(&world, &repository, published["commit"].as_str().unwrap()));
}

#[test]
fn a_host_is_named_once_and_a_credential_is_for_its_host_only() {
    let up = Upstream::new();
    up.run("echo x >> README.md", 0);
    for bad in ["", "a/b", "me@host", "https://host/path", "h:0"] {
        let ended = fed(&up.world, &["secrets", "set", "--git", bad, "--json"], TOKEN.as_bytes()).expect(2);
        assert_eq!(ended.json()["error"]["code"], "git-host", "{bad}");
    }
    fed(&up.world, &["secrets", "set", "--git", "h", "--username", "a:b"], TOKEN.as_bytes()).expect(2);
    fed(&up.world, &["secrets", "set", "name", "--username", "a"], TOKEN.as_bytes()).expect(2);
    fed(&up.world, &["secrets", "set", "--git", "127.0.0.1:1"], TOKEN.as_bytes()).expect(0);
    up.backend.pushes(Pushes::Needs(USER.to_owned(), TOKEN.to_owned()));
    up.refused(&[], 3, "publish-credential-missing");
    let list = up.world.tipstaff(&["secrets", "list", "--json"]).expect(0).stdout;
    assert!(list.contains("git/127.0.0.1:1") && !list.contains(TOKEN), "{list}");
    up.world.tipstaff(&["secrets", "remove", "--git", "http://127.0.0.1:1/"]).expect(0);
    // The helper by itself knows nothing.
    assert_eq!(
        fed(&up.world, &["git-credential", "get"], b"protocol=https\nhost=h\n\n").expect(0).stdout,
        ""
    );
}

/// A key of an app as a forge makes it, and its public half.
fn app_key(world: &World) -> (String, String) {
    let file = world.path().join("app-key");
    let name = file.display().to_string();
    let made = |args: &[&str]| {
        let mut command = world.command("ssh-keygen");
        command.args(args);
        let ended = crate::world::run(command);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stdout
    };
    made(&["-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f", &name]);
    let public = made(&["-e", "-m", "PKCS8", "-f", &name]);
    (std::fs::read_to_string(&file).unwrap(), public)
}

const MINTED: &str = "ghs_MintedForOnePush7Kq2Wc9ZrT5yHnB8vX3mJ";

fn minted(more: &Value) -> Value {
    let mut answer = serde_json::json!({
        "token": MINTED, "expires_at": "2031-01-02T03:04:05Z",
        "permissions": {"contents": "write", "metadata": "read"}, "repositories": [{"name": "site"}],
    });
    let fields = more.as_object().unwrap().clone();
    answer.as_object_mut().unwrap().extend(fields);
    answer
}

#[test]
fn a_push_has_a_token_that_was_minted_for_it_and_is_taken_back() {
    let up = Upstream::new();
    up.run("echo x >> README.md", 0);
    let (key, public) = app_key(&up.world);
    let api = tipstaff_testkit::AppApi::start(&public).unwrap();
    let (host, url) = (up.backend.host().to_owned(), api.url());
    let set = ["secrets", "set", "--git", &host, "--app", "123456", "--api", &url];
    // What is no key is not kept.
    let ended = fed(&up.world, &set, b"-----BEGIN nothing").expect(2);
    assert!(ended.stderr.contains("app-key"), "{}", ended.stderr);
    fed(&up.world, &set, key.as_bytes()).expect(0);
    up.backend.pushes(Pushes::Needs("x-access-token".to_owned(), MINTED.to_owned()));

    api.answers(201, minted(&serde_json::json!({})));
    let plan = up.world.tipstaff(&["runs", "publish", "--dry-run"]).expect(0).stdout;
    assert!(plan.contains("minted for this push, until 2031-01-02T03:04:05Z"), "{plan}");
    up.publish(&[]).expect(0);
    let asked = api.asked();
    let last: Vec<&str> = asked.iter().rev().take(3).rev().map(|one| one.what.as_str()).collect();
    assert_eq!(
        last,
        [
            "GET /repos/acme/site/installation",
            "POST /app/installations/7/access_tokens",
            "DELETE /installation/token"
        ]
    );
    let [.., mint, back] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(
        mint.body,
        serde_json::json!({"repositories": ["site"], "permissions": {"contents": "write"}})
    );
    assert_eq!(mint.claims["iss"], "123456");
    let lives = mint.claims["exp"].as_i64().unwrap() - mint.claims["iat"].as_i64().unwrap();
    assert!((60..=600).contains(&lives), "{lives}");
    assert_eq!(back.bearer.as_deref(), Some(MINTED));
    let told = up.records("push.publishing").pop().unwrap();
    assert_eq!(told["detail"]["credential"], "minted for this push, until 2031-01-02T03:04:05Z");
    // Neither the token nor the key is anywhere in clear.
    for form in [MINTED, &key[200..260]] {
        assert_eq!(
            holders(&up.world, form.as_bytes())
                .into_iter()
                .filter(|path| !path.ends_with("app-key"))
                .collect::<Vec<_>>(),
            Vec::<PathBuf>::new()
        );
    }
}

#[test]
fn a_token_that_grants_more_than_the_push_needs_is_not_used() {
    let up = Upstream::new();
    up.run("echo x >> README.md", 0);
    let (key, public) = app_key(&up.world);
    let api = tipstaff_testkit::AppApi::start(&public).unwrap();
    let (host, url) = (up.backend.host().to_owned(), api.url());
    fed(&up.world, &["secrets", "set", "--git", &host, "--app", "9", "--api", &url], key.as_bytes())
        .expect(0);
    up.backend.pushes(Pushes::Needs("x-access-token".to_owned(), MINTED.to_owned()));
    let refused = |status: u16, answer: Value, words: &str| {
        api.answers(status, answer);
        let ended = up.publish(&[]);
        assert!(matches!(ended.code, Some(1 | 3)), "{}", ended.stdout);
        let error = ended.json()["error"].clone();
        assert_eq!(error["code"], "publish-credential-unavailable", "{error}");
        let said = error["message"].as_str().unwrap();
        assert!(said.contains(words) && !said.contains(MINTED), "{said}");
    };
    let wide = serde_json::json!({"permissions": {"contents": "write", "administration": "write"}});
    refused(201, minted(&wide), "grants more than writing contents");
    assert_eq!(
        api.asked().last().unwrap().what,
        "DELETE /installation/token",
        "what was granted is given back"
    );
    let all = serde_json::json!({"repositories": [{"name": "site"}, {"name": "payroll"}]});
    refused(201, minted(&all), "not for this repository alone");
    refused(422, serde_json::json!({"message": "\u{1b}[31mno"}), "Contents: write");
    refused(201, serde_json::json!({"token": "a b"}), "no usable token");
    refused(201, serde_json::json!([]), "no usable token");
    // Another key than the app's.
    std::fs::remove_file(up.world.path().join("app-key")).unwrap();
    let (other, _) = app_key(&up.world);
    fed(&up.world, &["secrets", "set", "--git", &host, "--app", "9", "--api", &url], other.as_bytes())
        .expect(0);
    refused(201, minted(&serde_json::json!({})), "does not know the app");
    assert_eq!(up.branches().iter().filter(|name| name.starts_with("agent/")).count(), 0);
}
