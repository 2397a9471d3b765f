//! The sandbox by itself: what an agent would see.

use crate::world::{World, is_root};

#[test]
fn the_exit_code_is_passed_on() {
    let world = World::new();
    for code in [0, 1, 3, 42] {
        world.tipstaff(&["sandbox", "exec", "--", "sh", "-c", &format!("exit {code}")]).expect(code);
    }
    world.tipstaff(&["sandbox", "exec", "--", "sh", "-c", "kill -9 $$"]).expect(137);
    let missing = world.tipstaff(&["sandbox", "exec", "--", "no-such-program-anywhere"]);
    assert!(matches!(missing.code, Some(1 | 127)), "{missing:#?}");
    world.tipstaff(&["sandbox", "exec", "--timeout", "1s", "--", "sleep", "60"]).expect(5);
}

#[test]
fn it_sees_little_and_nothing_secret() {
    let world = World::new();
    let mut command = world.command(world.binary());
    command.env("SECRET_TOKEN", "hunter2").env("ANTHROPIC_API_KEY", "sk-ant-real");
    command.args([
        "sandbox",
        "exec",
        "--",
        "sh",
        "-c",
        "id -u; env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; ls / /home /root /run 2>&1",
    ]);
    let ended = crate::world::run(command);
    assert_eq!(ended.stdout.lines().next(), Some("1000"), "{ended:#?}");
    assert!(!ended.stdout.contains("hunter2") && !ended.stdout.contains("sk-ant-real"), "{ended:#?}");
    assert!(!ended.stdout.contains(world.path().to_str().unwrap()), "host paths leak: {ended:#?}");
}

#[test]
fn a_workspace_is_writable_unless_refining() {
    let world = World::new();
    let folder = world.path().join("work");
    world.write(&folder.join("a.txt"), "a\n");
    let folder_text = folder.to_str().unwrap();
    let exec = |kind: &str, script: &str| {
        world.tipstaff(&[
            "sandbox",
            "exec",
            "--workspace",
            folder_text,
            "--kind",
            kind,
            "--",
            "sh",
            "-c",
            script,
        ])
    };
    exec("build", "cat a.txt && echo b > b.txt").expect(0);
    assert_eq!(std::fs::read_to_string(folder.join("b.txt")).unwrap(), "b\n");
    let refine = exec("refine", "cat a.txt && echo c > c.txt");
    assert_ne!(refine.code, Some(0));
    assert!(refine.stdout.contains('a') && !folder.join("c.txt").exists());
    exec("refine", "cp /bin/true /tmp/t && /tmp/t").code.filter(|code| *code != 0).unwrap();
    let unknown = exec("king", "true").expect(2);
    assert!(unknown.stderr.contains("refine, review, build, ops"), "{}", unknown.stderr);
}

#[test]
fn the_broker_refuses_what_no_warrant_grants() {
    let world = World::new();
    let proxy = "http://127.0.0.1:8080";
    // The cases A30 to A33: each command succeeds exactly when the attack does.
    let attacks = [
        format!("curl -sf -m 5 -x {proxy} http://evil.test/"),
        format!("curl -sf -m 5 -p -x {proxy} http://allowed.test:22/"),
        "printf 'GET http://evil.test/ HTTP/1.1\\r\\nHost: allowed.test\\r\\nConnection: close\\r\\n\\r\\n' \
         | nc -w3 127.0.0.1 8080 | head -1 | grep -q ' 200'"
            .to_owned(),
        format!(
            "for u in /../other/r.git /%2e%2e/other/r.git //other/r.git /./../other/r.git; do \
             git -c http.proxy= ls-remote \"{proxy}$u\" >/dev/null 2>&1 && exit 0; done; exit 1"
        ),
    ];
    for attack in attacks {
        let ended = world.tipstaff(&["sandbox", "exec", "--", "sh", "-c", &attack]);
        assert_ne!(ended.code, Some(0), "{attack}: {ended:#?}");
    }
    let told =
        world.tipstaff(&["sandbox", "exec", "--", "curl", "-s", "-m", "5", "-x", proxy, "http://evil.test/"]);
    assert!(told.stdout.contains("host-not-granted") && told.stdout.contains("evil.test"), "{told:#?}");
}

#[test]
fn the_probe_names_every_layer() {
    let world = World::new();
    let probe = world.tipstaff(&["sandbox", "probe", "--json"]).expect(0).json();
    let layers = probe["layers"].as_array().unwrap();
    assert!(layers.len() >= 8, "{probe}");
    for layer in layers {
        assert!(layer["state"] == "holds" || !layer["remedy"].as_str().unwrap().is_empty(), "{layer}");
    }
    let text = world.tipstaff(&["sandbox", "probe"]).expect(0).stdout;
    assert!(text.contains("seccomp") && text.contains("andlock"), "{text}");
}

#[test]
fn no_bubblewrap_no_run() {
    let world = World::new();
    let repository = world.repository("demo");
    let mut command = world.command(world.binary());
    command.env("TIPSTAFF_BWRAP", "/nowhere/bwrap").current_dir(&repository);
    command.args(["run", "--json", "--", "true"]);
    let ended = crate::world::run(command).expect(3);
    let text = format!("{}{}", ended.stdout, ended.stderr);
    assert!(text.contains("bubblewrap") && text.contains("install"), "{text}");
}

#[test]
fn an_ordinary_user_gets_the_same_walls() {
    if !is_root() {
        return; // The other tests are that case.
    }
    let world = World::ordinary();
    let script = "id -u; ! cat /etc/shadow; ! unshare -Ur true; ! touch /usr/x; ! curl -sf -m 3 http://192.0.2.1/; cat /proc/self/status";
    let ended = world.tipstaff(&["sandbox", "exec", "--", "sh", "-ec", script]).expect(0);
    assert!(ended.stdout.starts_with("1000\n"), "{ended:#?}");
    assert!(ended.stdout.contains("CapEff:\t0000000000000000") && ended.stdout.contains("NoNewPrivs:\t1"));
    world.tipstaff(&["sandbox", "probe"]).expect(0);
}
