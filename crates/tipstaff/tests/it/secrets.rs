//! Keys of models' providers: set without showing them anywhere, listed without their values, found on no disk.

use crate::world::{Ended, World};
use std::io::Write;
use std::process::Stdio;

const KEY: &str = "sk-ant-api03-Zq8vT3nE5hWm7rYkLp2sDf9xJc4bGa6uVt1oXiQe";

/// `tipstaff ARGS…` with something on standard input.
pub(crate) fn fed(world: &World, args: &[&str], input: &[u8]) -> Ended {
    let mut command = world.command(world.binary());
    let mut child = command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments reads nothing.
    let _closed = child.stdin.take().unwrap().write_all(input);
    let ended = child.wait_with_output().unwrap();
    Ended {
        code: ended.status.code(),
        stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

/// Every file below the state folder that holds these bytes.
pub(crate) fn holders(world: &World, needle: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut files = 0;
    let mut folders = vec![world.home()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files += 1;
                let bytes = std::fs::read(entry.path()).unwrap();
                if bytes.windows(needle.len()).any(|window| window == needle) {
                    found.push(entry.path());
                }
            }
        }
    }
    assert!(files > 2, "there are files to look at");
    found
}

#[test]
fn a_key_is_sealed_and_shows_nowhere() {
    let world = World::new();
    let empty = world.tipstaff(&["secrets", "list"]).expect(0);
    assert!(empty.stderr.contains("tipstaff secrets set --provider"), "{empty:#?}");
    let set =
        fed(&world, &["secrets", "set", "--provider", "anthropic"], format!("{KEY}\n").as_bytes()).expect(0);
    let again = fed(&world, &["secrets", "set", "deploy/token", "--json"], KEY.as_bytes()).expect(0);
    assert_eq!(again.json()["name"], "deploy/token");
    let list = world.tipstaff(&["secrets", "list", "--json"]).expect(0);
    let names: Vec<serde_json::Value> =
        list.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&names[0]["name"], &names[1]["name"]), (&"deploy/token".into(), &"model/anthropic".into()));
    let log = world.tipstaff(&["audit", "list", "--json"]).expect(0);
    assert!(log.stdout.contains("secret.set") && log.stdout.contains("model/anthropic"), "{log:#?}");
    for ended in [&set, &again, &list, &log] {
        assert!(!ended.stdout.contains(KEY) && !ended.stderr.contains(KEY), "{ended:#?}");
    }
    for form in [KEY.as_bytes(), &KEY.as_bytes()[..24], b"c2stYW50LWFwaTAz"] {
        assert_eq!(holders(&world, form), Vec::<std::path::PathBuf>::new());
    }
    world.tipstaff(&["keys", "rotate"]).expect(0);
    world.tipstaff(&["secrets", "remove", "--provider", "anthropic"]).expect(0);
    let gone = world.tipstaff(&["secrets", "remove", "--provider", "anthropic", "--json"]).expect(2);
    assert_eq!(gone.json()["error"]["code"], "secret-unknown");
    world.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn bad_input_stores_nothing_and_says_what_to_do() {
    let world = World::new();
    let refused = |args: &[&str], input: &[u8], code: &str| {
        let ended = fed(&world, &[args, &["--json"]].concat(), input).expect(2);
        assert_eq!(ended.json()["error"]["code"], code, "{ended:#?}");
        let said = String::from_utf8_lossy(input);
        assert!(said.trim().len() < 9 || !ended.stdout.contains(said.trim()), "the value is not echoed");
    };
    refused(&["secrets", "set", "--provider", "anthropic"], b"", "secret-empty");
    refused(&["secrets", "set", "--provider", "anthropic"], b"\n", "secret-empty");
    refused(&["secrets", "set", "--provider", "openai"], b"sk-proj-one\nsk-proj-two\n", "secret-invalid");
    refused(&["secrets", "set", "--provider", "openai"], "sk-pröj-abcdefgh".as_bytes(), "secret-invalid");
    refused(&["secrets", "set", "--provider", "nobody"], KEY.as_bytes(), "provider-unknown");
    refused(&["secrets", "set", "a b"], KEY.as_bytes(), "secret-name");
    refused(&["secrets", "set", &"x".repeat(201)], KEY.as_bytes(), "secret-name");
    refused(&["secrets", "set", "big"], &vec![b'x'; 65 << 10], "secret-too-large");
    // A value on the command line is not a way to say it.
    fed(&world, &["secrets", "set", "name", KEY], b"").expect(2);
    fed(&world, &["secrets", "set"], b"").expect(2);
    fed(&world, &["secrets", "set", "name", "--provider", "openai"], b"x").expect(2);
    assert_eq!(world.tipstaff(&["secrets", "list", "--json"]).expect(0).stdout, "");
}

#[test]
fn an_upstream_of_the_configuration_has_a_key_too() {
    let world = World::new();
    world.tipstaff(&["secrets", "list"]).expect(0);
    let config = "[upstreams.local]\nwire = \"openai\"\nurl = \"http://127.0.0.1:11434/v1\"\n";
    world.write(&world.home().join("config.toml"), config);
    fed(&world, &["secrets", "set", "--provider", "local"], b"anything-goes").expect(0);
    assert!(world.tipstaff(&["secrets", "list"]).expect(0).stdout.contains("model/local"));
}
