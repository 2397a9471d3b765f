//! The real Aider under a warrant, against a scripted model server. It is large and slow to install, so that these tests
//! are run by `script/test --aider` only.

use crate::real_agents::installed;
use crate::world::{Ended, World, run, wait};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tipstaff_testkit::{ModelServer, ModelServerConfig, script_prompt};

const KEY: &str = "test-key-61c9e04b8f2d7a35c7e0-nobodys";

struct Scene {
    world: World,
    repository: PathBuf,
    server: ModelServer,
    programs: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let programs = installed("script/agents-aider");
        let world = World::new();
        let repository = world.repository("demo");
        let config = ModelServerConfig { key: Some(KEY.to_owned()), ..Default::default() };
        Self { world, repository, server: ModelServer::start(config).unwrap(), programs }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(self.world.binary());
        command
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.programs.display()))
            .env("TIPSTAFF_OPENAI_UPSTREAM", self.server.url())
            .env("OPENAI_API_KEY", KEY)
            .current_dir(&self.repository)
            .args(args);
        command
    }

    fn tipstaff(&self, args: &[&str]) -> Ended {
        run(self.command(args))
    }

    fn start(&self, steps: Value) -> Command {
        let prompt = script_prompt("Please help.", steps);
        self.command(&["run", "--json", "--agent", "aider-builder", "--timeout", "150s", &prompt])
    }

    fn replayed(&self) -> String {
        let ended = self.tipstaff(&["runs", "replay", "--speed", "0"]).expect(0);
        format!("{}{}", ended.stdout, ended.stderr)
    }
}

/// What its model writes to make a file.
fn edit(path: &str, content: &str) -> Value {
    json!({ "text": format!("I make it.\n\n{path}\n```\n<<<<<<< SEARCH\n=======\n{content}\n>>>>>>> REPLACE\n```\n") })
}

#[test]
fn it_does_the_work_and_never_sees_the_key() {
    let scene = Scene::new();
    let ended = run(scene.start(json!([edit("hello.txt", "hello there")])));
    let summary = ended.json();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!((&summary["state"], &summary["files_changed"]), (&json!("done"), &json!(1)), "{summary}");
    assert!(summary["cost_micro_usd"].as_u64().unwrap() > 0, "the broker metered it: {summary}");
    assert!(scene.tipstaff(&["runs", "diff"]).expect(0).stdout.contains("+hello there"));
    let replayed = scene.replayed();
    assert!(replayed.contains("I make it.") && replayed.contains("changed hello.txt"), "{replayed}");
    assert!(!scene.server.saw_key_elsewhere(), "{:?}", scene.server.key_elsewhere());
    scene.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn it_ends_with_0_and_has_failed_all_the_same() {
    let scene = Scene::new();
    let mut command = scene.start(json!([edit("hello.txt", "never")]));
    command.env("OPENAI_API_KEY", "another-key-that-is-wrong-0123456789");
    let summary = run(command).expect(1).json();
    assert_eq!((&summary["state"], &summary["exit_code"]), (&json!("failed"), &json!(0)), "{summary}");
    assert!(summary["error"].as_str().unwrap().contains("the key for openai was not accepted"), "{summary}");
    assert_eq!(summary["files_changed"], 0, "{summary}");
}

#[test]
fn it_is_cancelled_in_the_middle_of_a_call() {
    let scene = Scene::new();
    let mut command = scene.start(json!([{"stall": "headers"}]));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let asked = |requests: &[tipstaff_testkit::RecordedRequest]| requests.iter().any(|one| one.is_scripted());
    assert!(scene.server.wait_for(Duration::from_secs(100), asked), "its model is not asked");
    scene.tipstaff(&["runs", "cancel"]).expect(0);
    let summary = wait(child, Duration::from_secs(60)).json();
    assert_eq!(summary["exit_reason"], "cancelled_by_person", "{summary}");
    assert!(scene.server.wait_until_idle(Duration::from_secs(20)), "the call was cut");
    assert!(scene.replayed().contains("cancelled"));
}
