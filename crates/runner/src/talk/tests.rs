//! An agent of our own making speaks with a control plane of our own making.

use super::attendance::Pausable;
use super::{Attendance, Attended, End, Present};
use crate::announce::{Notice, Observer};
use crate::session::{Listener, Session};
use crate::supervise::{Cancel, Stall, Watch};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tipstaff_engine::{Asked, Conversation, NotPossible, Reply, Step};
use tipstaff_model::run::RunUpdate;
use tipstaff_model::warrant::{IssueRequest, RepositoryGrant};
use tipstaff_model::{
    Action, ActionDigest, ActionKind, AgentRole, Approval, ApprovalAnswer, ApprovalId, ApprovalRequest,
    ApprovalScope, ApprovalState, AuditDraft, BoxFuture, Clock, ControlPlane, ControlPlaneError, Decision,
    EventDraft, EventKind, FixedClock, FixedEntropy, Heartbeat, LiveWarrant, Narrowing, OrgId, Policies,
    Policy, PolicyLayer, PolicyOrigin, Refusal, RunId, RunNews, RunState, Steer, SteerId, SteerKind,
    SteerState, TaskId, Warrant, WarrantId,
};
use tipstaff_sandbox::SandboxError;
use tipstaff_seal::SigningKey;
use tipstaff_seal::redact::Redactor;

const NOW: i64 = 1_700_000_000_000;
const TIMEOUT: Duration = Duration::from_secs(60);

/// `ask ID COMMAND`, `gone ID`, `outside WHAT`, `end`, `break WHY`, `echo TEXT`.
struct Puppet;

impl Conversation for Puppet {
    fn begin(&mut self) -> Vec<Step> {
        vec![Step::Send("hello".to_owned())]
    }

    fn line(&mut self, line: &str) -> Vec<Step> {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match words[..] {
            ["ask", id, command] => {
                let action = Action {
                    kind: ActionKind::Execute,
                    tool: "Bash".to_owned(),
                    title: command.to_owned(),
                    commands: vec![command.to_owned()],
                    paths: Vec::new(),
                    hosts: Vec::new(),
                    input: serde_json::json!({ "command": command }),
                };
                vec![Step::Ask(Asked { id: id.to_owned(), action })]
            }
            ["gone", id] => vec![Step::Withdrawn { id: id.to_owned() }],
            ["outside", what] => {
                vec![Step::Refused { wanted: what.to_owned(), why: "never".to_owned() }]
            }
            ["end"] => vec![Step::TurnEnded],
            ["break", why] => vec![Step::Broken(why.to_owned())],
            ["flood"] => vec![Step::Send("x".repeat(1024 * 1024)); 20],
            ["endless"] => vec![Step::TurnEnded; 20_000],
            ["echo", text] => vec![Step::Send(text.to_owned())],
            _ => Vec::new(),
        }
    }

    fn answer(&mut self, id: &str, reply: &Reply) -> Vec<Step> {
        let said = match reply {
            Reply::Allow => format!("{id} yes"),
            Reply::Deny { why, .. } => format!("{id} no: {why}"),
        };
        vec![Step::Send(said)]
    }

    fn say(&mut self, text: &str) -> Result<Vec<Step>, NotPossible> {
        if text == "impossible" {
            Err(NotPossible("it can't"))
        } else {
            Ok(vec![Step::Send(format!("said {text}"))])
        }
    }

    fn interrupt(&mut self) -> Result<Vec<Step>, NotPossible> {
        Ok(vec![Step::Send("interrupted".to_owned())])
    }
}

#[derive(Default)]
struct Plane {
    approvals: Mutex<BTreeMap<ApprovalId, Approval>>,
    uses: Mutex<u32>,
    refusals: Mutex<Vec<Refusal>>,
    states: Mutex<Vec<RunState>>,
    steering: Mutex<Vec<Steer>>,
    steered: Mutex<Vec<(SteerState, Option<String>)>>,
    /// What the next calls fail with.
    broken: Mutex<Option<&'static str>>,
    heard: Mutex<Vec<Notice>>,
}

impl Plane {
    fn check(&self) -> Result<(), ControlPlaneError> {
        match *self.broken.lock().unwrap() {
            None => Ok(()),
            Some("lost") => Err(ControlPlaneError::LeaseLost),
            Some(why) => Err(ControlPlaneError::Unavailable(why.to_owned())),
        }
    }

    fn put(&self, state: ApprovalState, reason: Option<&str>) {
        for approval in self.approvals.lock().unwrap().values_mut() {
            if approval.state == ApprovalState::Pending {
                approval.state = state;
                approval.answer = Some(ApprovalAnswer {
                    allow: state == ApprovalState::Allowed,
                    scope: ApprovalScope::Once,
                    until: None,
                    reason: reason.map(ToOwned::to_owned),
                });
            }
        }
    }

    fn states_of_approvals(&self) -> Vec<ApprovalState> {
        self.approvals.lock().unwrap().values().map(|approval| approval.state).collect()
    }
}

impl Observer for Plane {
    fn notice(&self, notice: Notice) {
        self.heard.lock().unwrap().push(notice);
    }
}

impl ControlPlane for Plane {
    fn heartbeat(&self) -> BoxFuture<'_, Result<Heartbeat, ControlPlaneError>> {
        Box::pin(async { Ok(Heartbeat::default()) })
    }
    fn record(&self, _: AuditDraft) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn refusal(&self, refusal: Refusal) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.refusals.lock().unwrap().push(refusal);
        Box::pin(async { self.check() })
    }
    fn events(&self, _: Vec<EventDraft>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn run_update(&self, update: RunUpdate) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.states.lock().unwrap().extend(update.state);
        Box::pin(async { self.check() })
    }
    fn approval_ask(&self, request: ApprovalRequest) -> BoxFuture<'_, Result<Approval, ControlPlaneError>> {
        Box::pin(async move {
            self.check()?;
            let approval = Approval {
                run: RunId::from_bytes([7; 16]),
                request,
                state: ApprovalState::Pending,
                answer: None,
                answered_by: None,
                answered_at: None,
            };
            self.approvals.lock().unwrap().insert(approval.request.id, approval.clone());
            Ok(approval)
        })
    }
    fn approval_use(
        &self,
        id: ApprovalId,
        digest: ActionDigest,
    ) -> BoxFuture<'_, Result<bool, ControlPlaneError>> {
        Box::pin(async move {
            self.check()?;
            let mut approvals = self.approvals.lock().unwrap();
            let approval = approvals.get_mut(&id).unwrap();
            let good = approval.state == ApprovalState::Allowed && approval.request.digest == digest;
            if good {
                approval.state = ApprovalState::Used;
                *self.uses.lock().unwrap() += 1;
            }
            Ok(good)
        })
    }
    fn approval_withdraw(&self, id: ApprovalId) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        if let Some(approval) = self.approvals.lock().unwrap().get_mut(&id) {
            approval.state = ApprovalState::Withdrawn;
        }
        Box::pin(async { self.check() })
    }
    fn news(&self, open: Vec<ApprovalId>) -> BoxFuture<'_, Result<RunNews, ControlPlaneError>> {
        Box::pin(async move {
            self.check()?;
            let approvals = self.approvals.lock().unwrap();
            let approvals = open.iter().filter_map(|id| approvals.get(id).cloned()).collect();
            Ok(RunNews { approvals, steering: self.steering.lock().unwrap().clone() })
        })
    }
    fn steer_taken(
        &self,
        id: SteerId,
        state: SteerState,
        note: Option<String>,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async move {
            self.check()?;
            self.steered.lock().unwrap().push((state, note));
            self.steering.lock().unwrap().retain(|steer| steer.id != id);
            Ok(())
        })
    }
}

#[derive(Default)]
struct Processes(Vec<&'static str>, bool);

impl Pausable for Processes {
    fn pause(&mut self) -> Result<(), SandboxError> {
        if self.1 {
            return Err(SandboxError::PauseFailed { detail: "they dance".to_owned() });
        }
        self.0.push("pause");
        Ok(())
    }
    fn unpause(&mut self) -> Result<(), SandboxError> {
        self.0.push("go on");
        Ok(())
    }
}

fn warrant() -> Warrant {
    Warrant::issue(IssueRequest {
        ids: (
            WarrantId::from_bytes([1; 16]),
            OrgId::from_bytes([1; 16]),
            TaskId::from_bytes([7; 16]),
            RunId::from_bytes([7; 16]),
        ),
        subject: "member:1".to_owned(),
        role: AgentRole::Builder,
        repository: RepositoryGrant {
            name: "local/house".parse().unwrap(),
            base: "a".repeat(40).parse().unwrap(),
        },
        budget: None,
        wall_ms: Some(600_000),
        egress: Vec::new(),
        hosts: Vec::new(),
        secrets: Vec::new(),
        models: Vec::new(),
        submodules: false,
        lfs: false,
        now_ms: NOW,
    })
    .unwrap()
}

/// Asks about everything but `ls` and `rm`; denies `rm`.
fn policies() -> Policies {
    let text = r#"{"default": "ask", "rules": [
        {"decision": "allow", "commands": ["ls*"]},
        {"decision": "deny", "commands": ["rm*"], "reason": "nothing goes"}
    ]}"#;
    let policy: Policy = serde_json::from_str(text).unwrap();
    assert_eq!(policy.default, Some(Decision::Ask));
    Policies(vec![PolicyLayer { origin: PolicyOrigin::Org, policy }])
}

struct Stage {
    plane: Plane,
    clock: Arc<FixedClock>,
    live: LiveWarrant,
    session: Session,
    attendance: Attendance,
    processes: Processes,
    output: std::io::PipeReader,
    key: tipstaff_seal::VerifyingKey,
}

impl Stage {
    fn new() -> Self {
        let (output, input) = std::io::pipe().unwrap();
        let attended = Attended {
            conversation: Box::new(Puppet),
            policies: policies(),
            ask_timeout: TIMEOUT,
            redactor: Redactor::new(),
            entropy: Arc::new(FixedEntropy::seeded(3)),
        };
        let clock = Arc::new(FixedClock::at(NOW));
        let live = LiveWarrant::new(warrant(), Arc::clone(&clock) as Arc<dyn Clock>);
        Self {
            plane: Plane::default(),
            clock,
            live,
            session: Session::new(&Redactor::new(), None, 1 << 20, [EventKind::Stdout, EventKind::Stderr]),
            attendance: Attendance::new(Some(attended), Some(input.into())).unwrap(),
            processes: Processes::default(),
            output,
            key: SigningKey::generate(&FixedEntropy::seeded(1)).verifying_key(),
        }
    }

    async fn with(
        &mut self,
        act: impl AsyncFnOnce(&mut Attendance, &mut Processes, Present<'_, '_>) -> Result<(), End>,
    ) -> Result<(), End> {
        let cancel = Cancel::default();
        let watch = Watch {
            warrant: &self.live,
            key: &self.key,
            narrowed: &|_| {},
            control: &self.plane,
            observer: &self.plane,
            clock: self.clock.as_ref(),
            cancel: &cancel,
            measured: Vec::new(),
            measured_before: 0,
            wall: TIMEOUT,
            stall: Stall::default(),
            broker: None,
        };
        let listener = Listener { observer: &self.plane, clock: self.clock.as_ref() };
        let present = Present { watch: &watch, session: &mut self.session, listener: &listener };
        act(&mut self.attendance, &mut self.processes, present).await
    }

    async fn hears(&mut self, line: &str) -> Result<(), End> {
        let line = format!("{line}\n");
        self.with(async |attendance, _, at| attendance.hear(line.as_bytes(), at).await).await
    }

    async fn looks(&mut self) -> Result<(), End> {
        self.with(async |attendance, processes, at| attendance.look(processes, at).await).await
    }

    async fn finishes(&mut self) {
        let done = self
            .with(async |attendance, _, at| {
                attendance.finish(at).await;
                Ok(())
            })
            .await;
        assert!(done.is_ok());
    }

    fn steer(&self, kind: SteerKind) {
        let count = self.plane.steered.lock().unwrap().len() + self.plane.steering.lock().unwrap().len();
        let id = SteerId::from_bytes([u8::try_from(count).unwrap(); 16]);
        self.plane.steering.lock().unwrap().push(Steer { id, kind, by: "member:1".to_owned(), at: NOW });
    }

    /// What the agent was told, once its input is closed.
    async fn told(mut self) -> Vec<String> {
        drop(self.attendance);
        // The writer has its own task.
        let reading = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            self.output.read_to_string(&mut text).unwrap();
            text
        });
        reading.await.unwrap().lines().map(ToOwned::to_owned).collect()
    }

    fn rules(&self) -> Vec<&'static str> {
        self.plane.refusals.lock().unwrap().iter().map(|refusal| refusal.rule.id()).collect()
    }
}

#[tokio::test]
async fn policies_answer_at_once_and_people_are_asked_about_the_rest() {
    let mut stage = Stage::new();
    stage.with(async |attendance, _, at| attendance.begin(at).await).await.unwrap();
    stage.hears("ask 1 ls -la").await.unwrap();
    stage.hears("ask 2 rm -rf x").await.unwrap();
    stage.hears("ask 3 make").await.unwrap();
    assert_eq!(stage.plane.states_of_approvals(), [ApprovalState::Pending]);
    assert!(stage.attendance.waits_for_a_person());
    stage.looks().await.unwrap();
    assert_eq!(*stage.plane.states.lock().unwrap(), [RunState::NeedsInput]);
    stage.plane.put(ApprovalState::Allowed, None);
    stage.looks().await.unwrap();
    stage.looks().await.unwrap();
    assert_eq!(*stage.plane.states.lock().unwrap(), [RunState::NeedsInput, RunState::Running]);
    assert!(!stage.attendance.waits_for_a_person());
    assert_eq!((*stage.plane.uses.lock().unwrap(), stage.rules()), (1, vec!["policy-denied"]));
    // The same questions again: answered from the first decision, nobody is asked, nothing is used again.
    for line in ["ask 3 make", "ask 2 rm -rf x"] {
        stage.hears(line).await.unwrap();
    }
    // Another action under a name that was answered with yes.
    stage.hears("ask 3 make evil").await.unwrap();
    assert_eq!((stage.plane.approvals.lock().unwrap().len(), *stage.plane.uses.lock().unwrap()), (1, 1));
    assert_eq!(
        stage.told().await,
        [
            "hello",
            "1 yes",
            "2 no: denied by the policy of the org, rule 2: nothing goes",
            "3 yes",
            "3 yes",
            "2 no: denied by the policy of the org, rule 2: nothing goes",
            "3 no: this is not what was asked under this id before",
        ]
    );
}

#[tokio::test]
async fn a_no_silence_and_a_broken_control_plane_are_all_no() {
    let mut stage = Stage::new();
    stage.hears("ask 1 make").await.unwrap();
    stage.plane.put(ApprovalState::Denied, Some("use ninja"));
    stage.looks().await.unwrap();
    stage.hears("ask 2 make").await.unwrap();
    // The control plane says that it expired; or says nothing, and our own clock does.
    stage.plane.put(ApprovalState::Expired, None);
    stage.looks().await.unwrap();
    stage.hears("ask 3 make it").await.unwrap();
    *stage.plane.broken.lock().unwrap() = Some("no disk");
    stage.looks().await.unwrap();
    stage.clock.advance(60_000);
    stage.looks().await.unwrap();
    stage.hears("ask 4 make").await.unwrap();
    *stage.plane.broken.lock().unwrap() = None;
    // A yes that can't be used is none.
    stage.hears("ask 5 make").await.unwrap();
    stage.plane.put(ApprovalState::Allowed, None);
    for approval in stage.plane.approvals.lock().unwrap().values_mut() {
        approval.request.digest = "0".repeat(64).parse().unwrap();
    }
    stage.looks().await.unwrap();
    assert_eq!(*stage.plane.uses.lock().unwrap(), 0);
    let rules = stage.rules();
    assert_eq!(
        rules,
        ["approval-denied", "approval-expired", "approval-expired", "approval-denied", "approval-denied"]
    );
    let told = stage.told().await;
    assert_eq!(told[0], "1 no: a person said no: use ninja");
    assert!(told[1].starts_with("2 no: nobody answered within 60 s"), "{told:?}");
    assert!(told[2].starts_with("3 no: nobody answered"), "{told:?}");
    assert!(told[3].contains("4 no: nobody could be asked") && told[3].contains("no disk"), "{told:?}");
    assert!(told[4].contains("5 no: the approval can't be used"), "{told:?}");
}

#[tokio::test]
async fn a_question_belongs_to_the_warrant_that_it_was_asked_under() {
    let mut stage = Stage::new();
    stage.hears("ask 1 make").await.unwrap();
    let first = stage.live.warrant();
    let less = first
        .narrow(WarrantId::from_bytes([2; 16]), Narrowing { push: Some(None), ..Narrowing::default() })
        .unwrap();
    stage.live.narrow_to(less).unwrap();
    // Somebody says yes in the very moment: to the old one.
    stage.plane.put(ApprovalState::Allowed, None);
    stage.looks().await.unwrap();
    assert_eq!(*stage.plane.uses.lock().unwrap(), 0);
    let mut states = stage.plane.states_of_approvals();
    states.sort_by_key(|state| state.as_str());
    assert_eq!(states, [ApprovalState::Pending, ApprovalState::Withdrawn]);
    stage.plane.put(ApprovalState::Allowed, None);
    stage.looks().await.unwrap();
    assert_eq!(*stage.plane.uses.lock().unwrap(), 1);
    assert_eq!(stage.told().await, ["1 yes"]);
}

#[tokio::test]
async fn a_question_that_falls_with_its_warrant_waits_for_the_narrower_one() {
    let mut stage = Stage::new();
    stage.hears("ask 1 make").await.unwrap();
    stage.hears("ask 2 make more").await.unwrap();
    // The control plane knows of a narrowing before the worker does.
    stage.plane.put(ApprovalState::Withdrawn, None);
    stage.looks().await.unwrap();
    stage.looks().await.unwrap();
    assert!(stage.rules().is_empty(), "nothing was answered");
    let less = stage
        .live
        .warrant()
        .narrow(WarrantId::from_bytes([2; 16]), Narrowing { push: Some(None), ..Narrowing::default() })
        .unwrap();
    stage.live.narrow_to(less).unwrap();
    stage.looks().await.unwrap();
    stage.plane.put(ApprovalState::Allowed, None);
    stage.looks().await.unwrap();
    // Nothing comes, and then it is a no.
    stage.hears("ask 3 make").await.unwrap();
    stage.plane.put(ApprovalState::Withdrawn, None);
    stage.clock.advance(i64::try_from(TIMEOUT.as_millis()).unwrap());
    stage.looks().await.unwrap();
    let told = stage.told().await;
    assert_eq!(told[..2], ["1 yes", "2 yes"]);
    assert!(told[2].starts_with("3 no: the question was taken back"), "{told:?}");
}

#[tokio::test]
async fn what_the_agent_no_longer_waits_for_is_taken_back() {
    let mut stage = Stage::new();
    stage.hears("ask 1 make").await.unwrap();
    stage.hears("gone 1").await.unwrap();
    stage.hears("gone 1").await.unwrap();
    stage.hears("gone never").await.unwrap();
    assert_eq!(stage.plane.states_of_approvals(), [ApprovalState::Withdrawn]);
    // Another action under the name of a question that waits.
    stage.hears("ask 2 make").await.unwrap();
    stage.hears("ask 2 make evil").await.unwrap();
    stage.hears("ask 3 make").await.unwrap();
    stage.finishes().await;
    assert_eq!(stage.plane.states_of_approvals(), [ApprovalState::Withdrawn; 3]);
    assert_eq!(stage.told().await, ["2 no: this is not what was asked under this id before"]);
}

#[tokio::test]
async fn floods_are_bounded() {
    let mut stage = Stage::new();
    for count in 0..100 {
        stage.hears(&format!("ask {count} make {count}")).await.unwrap();
        stage.hears(&format!("outside /etc/{count}")).await.unwrap();
        stage.hears("outside /etc/passwd").await.unwrap();
    }
    assert_eq!(stage.plane.approvals.lock().unwrap().len(), 64);
    assert_eq!(stage.rules().iter().filter(|rule| **rule == "approval-denied").count(), 36);
    assert_eq!(stage.rules().iter().filter(|rule| **rule == "outside-sandbox").count(), 101);
    for count in 100..2000 {
        stage.hears(&format!("outside /etc/{count}")).await.unwrap();
        stage.hears(&format!("ask x{count} make {count}")).await.unwrap();
        stage.hears(&format!("gone x{count}")).await.unwrap();
    }
    assert!(stage.rules().len() <= 500, "{}", stage.rules().len());
    assert!(stage.plane.approvals.lock().unwrap().len() <= 1000);
    // A line that is too long is no question, whatever its beginning says.
    let before = stage.plane.approvals.lock().unwrap().len();
    stage.hears(&format!("ask long make {}", "x".repeat(5 * 1024 * 1024))).await.unwrap();
    stage.with(async |attendance, _, at| attendance.hear(b"ask odd \xff\xfe\n", at).await).await.unwrap();
    assert_eq!(stage.plane.approvals.lock().unwrap().len(), before);
    assert!(matches!(stage.hears("endless").await, Err(End::Broken(_))));
    assert!(matches!(stage.hears("flood").await, Err(End::Broken(why)) if why.contains("does not read")));
    assert!(matches!(stage.hears("break bones").await, Err(End::Broken(why)) if why == "bones"));
}

#[tokio::test]
async fn a_lost_lease_ends_everything() {
    let mut stage = Stage::new();
    *stage.plane.broken.lock().unwrap() = Some("lost");
    for line in ["ask 1 make", "ask 2 rm x", "outside x"] {
        let ended = stage.hears(line).await;
        assert!(matches!(ended, Err(End::Control(ControlPlaneError::LeaseLost))), "{line}");
    }
    assert!(matches!(stage.looks().await, Err(End::Control(ControlPlaneError::LeaseLost))));
}

#[tokio::test]
async fn a_person_tells_interrupts_stops_and_lets_go() {
    let mut stage = Stage::new();
    let message = |text: &str| SteerKind::Message { text: text.to_owned() };
    stage.steer(message("be quick"));
    stage.steer(message("impossible"));
    stage.steer(message(&"x".repeat(300 * 1024)));
    stage.steer(SteerKind::Resume);
    stage.steer(SteerKind::Pause);
    stage.steer(SteerKind::Pause);
    stage.looks().await.unwrap();
    assert!(stage.attendance.waits_for_a_person(), "it stands still");
    stage.steer(message("later"));
    stage.steer(SteerKind::Resume);
    stage.looks().await.unwrap();
    assert!(!stage.attendance.waits_for_a_person());
    stage.processes.1 = true;
    stage.steer(SteerKind::Pause);
    stage.looks().await.unwrap();
    assert_eq!(stage.processes.0, ["pause", "go on"]);
    let steered: Vec<String> = stage
        .plane
        .steered
        .lock()
        .unwrap()
        .iter()
        .map(|(state, note)| format!("{state}: {}", note.clone().unwrap_or_default()))
        .collect();
    assert_eq!(
        steered,
        [
            "taken: ",
            "refused: it can't",
            "refused: a message has 256 KiB at most",
            "refused: it does not stand still",
            "taken: ",
            "refused: it stands still already",
            "taken: it stands still, and reads it when it goes on",
            "taken: ",
            "refused: it could not be stopped: the run could not be paused or resumed: they dance; cancel it, or leave it be",
        ]
    );
    // One whose outcome could not be told is not done twice.
    stage.processes.1 = false;
    stage.steer(message("once"));
    let steer = stage.plane.steering.lock().unwrap()[0].clone();
    stage.looks().await.unwrap();
    stage.plane.steering.lock().unwrap().push(steer);
    stage.looks().await.unwrap();
    // What comes after the end is refused.
    stage.steer(message("too late"));
    stage.finishes().await;
    let (state, note) = stage.plane.steered.lock().unwrap().last().cloned().unwrap();
    assert_eq!(state, SteerState::Refused);
    assert!(note.unwrap().contains("the agent's work is over; its change is collected and verified now"));
    assert_eq!(stage.told().await, ["said be quick", "said later", "said once"]);
}

#[tokio::test(start_paused = true)]
async fn its_input_is_closed_when_its_turn_is_over_and_nothing_waits() {
    let mut stage = Stage::new();
    stage.hears("ask 1 make").await.unwrap();
    stage.hears("end").await.unwrap();
    stage.looks().await.unwrap();
    assert!(stage.attendance.closing().is_none(), "a question waits");
    stage.plane.put(ApprovalState::Denied, None);
    // What a person says in time is heard.
    stage.steer(SteerKind::Message { text: "one more thing".to_owned() });
    stage.looks().await.unwrap();
    assert!(stage.attendance.closing().is_none(), "another turn goes on");
    stage.hears("end").await.unwrap();
    *stage.plane.broken.lock().unwrap() = Some("no news");
    stage.looks().await.unwrap();
    assert!(stage.attendance.closing().is_none(), "it is not known what people said");
    *stage.plane.broken.lock().unwrap() = None;
    stage.looks().await.unwrap();
    assert!(stage.attendance.closing().is_some() && stage.attendance.not_closed().is_none());
    stage.steer(SteerKind::Message { text: "too late".to_owned() });
    stage.looks().await.unwrap();
    assert_eq!(stage.plane.steered.lock().unwrap().last().unwrap().0, SteerState::Refused);
}

#[tokio::test(start_paused = true)]
async fn after_an_interrupt_it_waits_for_what_it_is_told() {
    let mut stage = Stage::new();
    stage.steer(SteerKind::Interrupt);
    stage.looks().await.unwrap();
    stage.hears("end").await.unwrap();
    stage.looks().await.unwrap();
    assert!(stage.attendance.closing().is_none() && stage.attendance.waits_for_a_person());
    stage.looks().await.unwrap();
    assert_eq!(*stage.plane.states.lock().unwrap(), [RunState::NeedsInput]);
    stage.steer(SteerKind::Message { text: "now this".to_owned() });
    stage.looks().await.unwrap();
    assert!(!stage.attendance.waits_for_a_person());
    stage.steer(SteerKind::Interrupt);
    stage.looks().await.unwrap();
    stage.hears("end").await.unwrap();
    stage.looks().await.unwrap();
    tokio::time::advance(TIMEOUT + Duration::from_secs(1)).await;
    stage.looks().await.unwrap();
    assert!(stage.attendance.closing().is_some(), "nobody said anything");
}

#[tokio::test]
async fn nobody_speaks_with_a_run_that_is_not_attended_but_it_can_stand_still() {
    let mut stage = Stage::new();
    stage.attendance = Attendance::new(None, None).unwrap();
    stage.steer(SteerKind::Message { text: "hello".to_owned() });
    stage.steer(SteerKind::Interrupt);
    stage.steer(SteerKind::Pause);
    stage.looks().await.unwrap();
    let steered = stage.plane.steered.lock().unwrap().clone();
    assert!(steered[0].1.as_ref().unwrap().contains("--attended"), "{steered:?}");
    assert_eq!((steered[1].0, steered[2].0), (SteerState::Refused, SteerState::Taken));
    stage.hears("ask 1 make").await.unwrap();
    assert!(stage.plane.approvals.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_agent_that_closed_its_input_and_stays_is_given_up() {
    let mut stage = Stage::new();
    let (other, _unused) = std::io::pipe().unwrap();
    drop(std::mem::replace(&mut stage.output, other));
    stage.hears("echo anyone?").await.unwrap();
    while stage.attendance.closing().is_none() {
        tokio::task::yield_now().await;
        stage.looks().await.unwrap();
    }
    assert!(
        matches!(stage.attendance.not_closed(), Some(End::Broken(why)) if why.contains("closed its input"))
    );
}
