//! Questions to a person and steering through the real binary. The worker's side is played over the store.

use crate::world::{Ended, World, run};
use serde_json::json;
use std::sync::Arc;
use tipstaff_model::approval::ApprovalRequest;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::warrant::{IssueRequest, RepositoryGrant, Warrant};
use tipstaff_model::{
    Action, ActionKind, AgentRole, ApprovalId, ApprovalState, Clock, EngineKind, Risk, RunState, SteerState,
    TaskSpec, WarrantId,
};
use tipstaff_seal::{KekSource, SignedWarrant, SystemClock, SystemEntropy};
use tipstaff_store::{
    KeyPurpose, Lease, LocalPrincipal, OrgTx, Principal, RunDraft, Store, StoreConfig, TaskDraft,
};

const SECRET: &str = "ghp_0123456789abcdefghijABCDEFGHIJ012345";

/// A run at work on another machine, played by the test.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) runtime: tokio::runtime::Runtime,
    store: Store,
    me: Principal,
    pub(crate) lease: Lease,
    pub(crate) warrant: WarrantId,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let world = World::new();
        // Makes the state folder, the key and the org.
        world.tipstaff(&["runs", "list"]).expect(0);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (store, me, lease, warrant) = runtime.block_on(begun(&world));
        Self { world, runtime, store, me, lease, warrant }
    }

    pub(crate) fn write<T>(&self, act: impl AsyncFnOnce(&mut OrgTx, &Lease) -> T) -> T {
        self.runtime.block_on(async {
            let mut tx = self.store.begin(&self.me.scope).await.unwrap();
            let done = act(&mut tx, &self.lease).await;
            tx.commit().await.unwrap();
            done
        })
    }

    /// Asks about a command; the question's id.
    pub(crate) fn ask(&self, command: &str, risk: Risk, left_ms: i64) -> ApprovalRequest {
        let now = SystemClock.wall_ms();
        let action = Action {
            kind: ActionKind::Execute,
            tool: "Bash".to_owned(),
            title: command.to_owned(),
            commands: vec![command.to_owned()],
            paths: Vec::new(),
            hosts: Vec::new(),
            input: json!({ "command": command, "description": "tidy up" }),
        };
        let id = ApprovalId::new(&SystemClock, &SystemEntropy);
        let request = ApprovalRequest {
            id,
            warrant: self.warrant,
            digest: action.digest(self.warrant, &id.to_string()),
            action,
            risk,
            because: vec!["it removes files: rm -rf build".to_owned()],
            asked_at: now,
            expires_at: now + left_ms,
        };
        self.write(async |tx, lease| tx.approval_ask(lease, &request).await.unwrap());
        request
    }

    pub(crate) fn state(&self, asked: &ApprovalRequest) -> ApprovalState {
        self.write(async |tx, _| tx.approval_get(asked.id).await.unwrap().unwrap().state)
    }

    pub(crate) fn uses(&self, asked: &ApprovalRequest) -> bool {
        self.write(async |tx, lease| tx.approval_use(lease, asked.id, &asked.digest).await.unwrap())
    }

    fn approvals(&self, arguments: &[&str]) -> Ended {
        self.world.tipstaff(&[&["approvals"], arguments].concat())
    }

    fn refused(&self, arguments: &[&str], exit: i32, code: &str) {
        let answer = self.approvals(&[arguments, &["--json"]].concat()).expect(exit).json();
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
}

pub(crate) async fn begun(world: &World) -> (Store, Principal, Lease, WarrantId) {
    let home = world.home();
    let key = KekSource::File(home.join("ring.key")).load(&SystemEntropy).unwrap();
    let config = StoreConfig::sqlite(home.join("tipstaff.db"));
    let store = Store::open(config, key, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.unwrap();
    let person = LocalPrincipal {
        installation: std::fs::read_to_string(home.join("installation")).unwrap().trim().to_owned(),
        uid: std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()),
        name: "person".to_owned(),
    };
    let me = store.authenticate_local(&person).await.unwrap();
    let mut tx = store.begin(&me.scope).await.unwrap();
    let spec = TaskSpec {
        repository: "local/demo".parse().unwrap(),
        source: "/srv/demo".to_owned(),
        base: None,
        base_commit: "a".repeat(40).parse().unwrap(),
        role: AgentRole::Builder,
        engine: EngineKind::ClaudeCode,
        agent: None,
        argv: Vec::new(),
        prompt: Some("tidy up".to_owned()),
        model: None,
        provider: None,
        instructions: String::new(),
        budget_micro_usd: 1_000_000,
        timeout_ms: 600_000,
        allow_hosts: Vec::new(),
        protect: Vec::new(),
        host_rules: Vec::new(),
        secrets: Vec::new(),
        setup: Default::default(),
        privacy: Default::default(),
        submodules: false,
        lfs: false,
        attended: true,
        policy: Default::default(),
        ask_timeout_ms: None,
        resumes: None,
        under: None,
    };
    let draft = TaskDraft {
        repository: None,
        kind: "run".to_owned(),
        spec,
        dedup_key: None,
        max_attempts: 1,
        run_at: None,
        person: Some(me.member),
    };
    let task = tx.task_add(draft).await.unwrap().id();
    let lease = tx.task_claim(task, "elsewhere:1:played", 3_600_000).await.unwrap().unwrap();
    let run = RunDraft { branch: None, base_commit: None, workspace: None, host: "elsewhere".to_owned() };
    tx.run_add(&lease, &run).await.unwrap();
    let signing = tx.signing_key(KeyPurpose::Warrant).await.unwrap();
    let id = WarrantId::new(&SystemClock, &SystemEntropy);
    let request = IssueRequest {
        ids: (id, lease.token().org, lease.task(), lease.run()),
        subject: me.actor(),
        role: AgentRole::Builder,
        repository: RepositoryGrant {
            name: "local/demo".parse().unwrap(),
            base: "a".repeat(40).parse().unwrap(),
        },
        budget: None,
        wall_ms: None,
        egress: Vec::new(),
        hosts: Vec::new(),
        secrets: Vec::new(),
        models: Vec::new(),
        submodules: false,
        lfs: false,
        now_ms: SystemClock.wall_ms(),
    };
    let signed = SignedWarrant::sign(&Warrant::issue(request).unwrap(), &signing).unwrap();
    tx.warrant_add(&lease, &signed).await.unwrap();
    let running = RunUpdate { state: Some(RunState::Running), ..RunUpdate::default() };
    tx.run_update(&lease, &running).await.unwrap();
    tx.commit().await.unwrap();
    (store, me, lease, id)
}

#[test]
fn a_person_looks_at_a_question_and_allows_it_once() {
    let stage = Stage::new();
    stage.approvals(&["list"]).expect(0);
    let asked = stage.ask("rm -rf build\u{1b}[8m; true", Risk::High, 600_000);
    let (id, digest) = (asked.id.short(), asked.digest.to_string());
    let listed = stage.approvals(&["list"]).expect(0).stdout;
    assert!(listed.contains(&id) && listed.contains("high") && listed.contains(" left"), "{listed}");
    let object =
        stage.approvals(&["list", "--json", "--run", &stage.lease.run().to_string()]).expect(0).json();
    assert_eq!(
        (&object["short"], &object["state"], &object["risk"]),
        (&json!(id), &json!("pending"), &json!("high"))
    );
    assert!(object["left_ms"].as_u64().unwrap() > 500_000);
    assert_eq!(object["action"]["input"]["description"], "tidy up");
    let shown = stage.approvals(&["show", &id]).expect(0).stdout;
    for part in [
        "pending, 9m",
        "high",
        "it removes files",
        "Bash (execute)",
        "rm -rf build\\u{1b}[8m; true",
        &format!("{} (sha256:{digest})", &digest[..12]),
        &asked.id.to_string(),
    ] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown:?}");

    stage.refused(&["allow", &id, "--digest", "00000000"], 3, "approval-digest");
    assert_eq!(stage.state(&asked), ApprovalState::Pending);
    let allowed = stage.approvals(&["allow", &id, "--digest", &digest[..16]]).expect(0).stdout;
    assert!(allowed.contains("is allowed: Bash: rm -rf build"), "{allowed}");
    let again = stage.approvals(&["allow", &id, "--json"]).expect(0).json();
    assert_eq!((&again["already"], &again["state"]), (&json!(true), &json!("allowed")));
    stage.refused(&["deny", &id], 1, "approval-decided");
    assert!(stage.uses(&asked));
    assert!(!stage.uses(&asked));
    assert_eq!(stage.approvals(&["show", &id, "--json"]).expect(0).json()["state"], "used");

    // The log and the story tell of it, and the log still proves itself.
    let log = stage.world.tipstaff(&["audit", "list", "--about", &asked.id.to_string()]).expect(0).stdout;
    for word in ["approval.asked", "approval.answered", "approval.used"] {
        assert!(log.contains(word), "{word}: {log}");
    }
    stage.world.tipstaff(&["audit", "verify"]).expect(0);
    let story =
        stage.world.tipstaff(&["runs", "show", "--transcript", &stage.lease.run().short()]).expect(0).stderr;
    assert!(story.contains(&format!("approval {id} wanted (high risk)")), "{story}");
    assert_eq!(story.matches(&format!("approval {id} allowed by member:")).count(), 1, "{story}");
    assert_eq!(story.matches(&format!("approval {id} used: Bash")).count(), 1, "{story}");
}

#[test]
fn a_no_tells_the_agent_why_and_holds() {
    let stage = Stage::new();
    let asked = stage.ask("terraform apply", Risk::Critical, 600_000);
    let id = asked.id.short();
    let denied =
        stage.approvals(&["deny", &id, "--reason", "use the test cluster", "--json"]).expect(0).json();
    assert_eq!(denied["answer"]["reason"], "use the test cluster");
    assert!(!stage.uses(&asked));
    stage.refused(&["allow", &id, "--reason", "changed my mind"], 1, "approval-decided");
    let told = stage.approvals(&["allow", &id, "--reason", "changed my mind"]).expect(1).stderr;
    assert!(told.contains("was denied by member:") && told.contains("the first answer counts"), "{told}");
    let all = stage.approvals(&["list", "--all"]).expect(0).stdout;
    assert!(all.contains("denied"), "{all}");
    assert!(stage.approvals(&["list"]).expect(0).stdout.is_empty());
}

#[test]
fn too_late_is_a_no() {
    let stage = Stage::new();
    let asked = stage.ask("make install", Risk::Medium, 1);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while SystemClock.wall_ms() <= asked.expires_at && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    // Nobody has noted so yet, and it is not shown as waiting.
    assert!(stage.approvals(&["list"]).expect(0).stdout.is_empty());
    stage.refused(&["allow", &asked.id.short()], 1, "approval-expired");
    assert_eq!(stage.state(&asked), ApprovalState::Expired);
    assert!(!stage.uses(&asked));
    // The run's end takes back what waits.
    let open = stage.ask("make test", Risk::Medium, 600_000);
    let failed = RunUpdate { state: Some(RunState::Failed), ..RunUpdate::default() };
    stage.write(async |tx, lease| tx.run_update(lease, &failed).await.unwrap());
    stage.refused(&["allow", &open.id.short()], 1, "approval-withdrawn");
}

#[test]
fn a_yes_for_the_run_saves_further_questions() {
    let stage = Stage::new();
    let asked = stage.ask("make test", Risk::Medium, 600_000);
    let id = asked.id.short();
    stage.refused(&["allow", &id, "--until", "30m"], 2, "approval-scope");
    stage.refused(&["allow", &id, "--for-run", "--until", "2020-01-01T00:00Z"], 2, "approval-scope");
    let said = stage.approvals(&["allow", &id, "--for-run", "--until", "30m"]).expect(0).stdout;
    assert!(said.contains("for the run until 20"), "{said}");
    assert_eq!(stage.state(&stage.ask("make test", Risk::Medium, 600_000)), ApprovalState::Allowed);
    assert_eq!(stage.state(&stage.ask("make tests", Risk::Medium, 600_000)), ApprovalState::Pending);
    assert_eq!(stage.state(&stage.ask("make test", Risk::High, 600_000)), ApprovalState::Pending);
    let covered = stage.ask("make test", Risk::Low, 600_000);
    assert_eq!(stage.state(&covered), ApprovalState::Allowed);
    let shown = stage.approvals(&["show", &covered.id.short()]).expect(0).stdout;
    assert!(shown.contains(&format!("yes by approval:{}", asked.id)), "{shown}");
    stage.refused(&["end", &covered.id.short()], 2, "approval-scope");
    assert_eq!(stage.approvals(&["end", &id, "--json"]).expect(0).json()["state"], "allowed");
    stage.refused(&["end", &id], 2, "approval-scope");
    assert_eq!(stage.state(&stage.ask("make test", Risk::Low, 600_000)), ApprovalState::Pending);
}

#[test]
fn a_critical_action_needs_a_reason_from_a_person_alone() {
    let stage = Stage::new();
    let asked = stage.ask("npm publish", Risk::Critical, 600_000);
    let id = asked.id.short();
    stage.refused(&["allow", &id], 3, "approval-forbidden");
    stage.refused(&["allow", &id, "--for-run", "--reason", "x"], 2, "approval-critical");
    stage.refused(&["allow", &id, "--reason", "two\nlines"], 2, "approval-reason");
    stage.approvals(&["allow", &id, "--reason", "release 1.2 is due"]).expect(0);
    assert!(stage.uses(&asked));
    let log = stage.world.tipstaff(&["audit", "list", "--about", &asked.id.to_string()]).expect(0).stdout;
    assert!(log.contains("release 1.2 is due"), "{log}");
}

#[test]
fn unknown_and_unclear_questions_are_wrong_usage() {
    let stage = Stage::new();
    for text in ["", "abc", "zzzz", "00000000", "--", "'; drop table approval", &"a".repeat(300)] {
        for verb in ["show", "allow", "deny"] {
            let ended = stage.approvals(&[verb, "--json", "--", text]).expect(2);
            assert!(text == "--" || ended.json()["error"]["code"] == "approval-unknown", "{ended:?}");
        }
    }
    stage.refused(&["list", "--run", "00000000"], 2, "run-unknown");
    for digest in ["", "xyz", "0123"] {
        stage.approvals(&["allow", "00000000", "--digest", digest]).expect(2);
    }
}

#[test]
fn a_run_is_told_something_paused_and_let_go() {
    let stage = Stage::new();
    let run_id = stage.lease.run().short();
    let say = |arguments: &[&str]| stage.world.tipstaff(&[&["runs"], arguments, &["--json"]].concat());
    let said = say(&["say", &run_id, &format!("use {SECRET}, then\nlook at src")]).expect(0).json();
    assert_eq!((&said["kind"], &said["state"]), (&json!("message"), &json!("waiting")));
    for verb in ["pause", "interrupt", "resume"] {
        assert_eq!(say(&[verb, &run_id]).expect(0).json()["kind"], verb);
    }
    let waiting = stage.write(async |tx, lease| tx.steer_waiting(lease.run()).await.unwrap());
    let kinds: Vec<&str> = waiting.iter().map(|steer| steer.kind.as_str()).collect();
    assert_eq!(kinds, ["message", "pause", "interrupt", "resume"]);
    assert!(format!("{:?}", waiting[0].kind).contains(SECRET), "the worker reads it as typed");
    stage.write(async |tx, lease| {
        for steer in &waiting {
            assert!(tx.steer_taken(lease, steer.id, SteerState::Taken, None).await.unwrap());
        }
    });
    for export in ["jsonl", "markdown"] {
        let story = stage.world.tipstaff(&["runs", "export", &run_id, "--format", export]).expect(0).stdout;
        assert!(!story.contains(SECRET) && story.contains("redacted:"), "{story}");
    }
    let log = stage.world.tipstaff(&["audit", "list", "--about", &run_id]).expect(0).stdout;
    assert_eq!(log.matches("run.steered").count(), 8, "{log}");
    assert!(!log.contains(SECRET));

    // From standard input.
    let file = stage.world.path().join("words");
    stage.world.write(&file, "from a file\n");
    let mut command = stage.world.command(stage.world.binary());
    command.args(["runs", "say", &run_id, "-", "--json"]).stdin(std::fs::File::open(&file).unwrap());
    run(command).expect(0);
    let waiting = stage.write(async |tx, lease| tx.steer_waiting(lease.run()).await.unwrap());
    assert_eq!(waiting[0].kind, tipstaff_model::SteerKind::Message { text: "from a file".to_owned() });

    for (text, code) in [("", 2), (" \n", 2), ("\u{1b}[2J", 2), (&"x".repeat(16 * 1024 + 1), 2)] {
        assert_eq!(say(&["say", &run_id, text]).expect(code).json()["error"]["code"], "message-unusable");
    }
    let verifying = RunUpdate { state: Some(RunState::Verifying), ..RunUpdate::default() };
    stage.write(async |tx, lease| tx.run_update(lease, &verifying).await.unwrap());
    assert_eq!(say(&["pause", &run_id]).expect(2).json()["error"]["code"], "run-not-at-work");
    let failed = RunUpdate { state: Some(RunState::Failed), ..RunUpdate::default() };
    stage.write(async |tx, lease| tx.run_update(lease, &failed).await.unwrap());
    assert_eq!(say(&["say", &run_id, "hello"]).expect(2).json()["error"]["code"], "run-ended");
    assert_eq!(say(&["say", "00000000", "hello"]).expect(2).json()["error"]["code"], "run-unknown");
}
