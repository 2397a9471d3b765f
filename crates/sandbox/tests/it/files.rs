//! What is visible, and what can be written and executed.

use tipstaff_sandbox::{Access, ExecPolicy, HomeFolder, ReadOnlyMount, ToolchainGrant, Workspace};

use crate::support::{Layered, directory, refine, run, said, sandbox, script};

#[test]
fn the_root_holds_what_the_table_says_and_no_more() {
    let listing = said("ls -A / | grep -vxE 'lib32|libx32|root|opt' | tr '\\n' ' '");
    assert_eq!(listing.trim(), "bin dev etc home lib lib64 proc sbin tmp usr work");
}

#[test]
fn an_overlay_takes_every_change_and_the_checkout_none() {
    let layered = Layered::new();
    let text =
        "echo changed >below.txt; rm -f below.txt; echo again >below.txt; mkdir d; touch d/x; mv d e; ls";
    let output = run(&script(layered.workspace(), text));
    assert!(output.exit.success(), "{output:?}");
    assert_eq!(output.stdout, "below.txt\ne\n");
    assert_eq!(std::fs::read_to_string(layered.lower().join("below.txt")).unwrap(), "below\n");
    assert_eq!(std::fs::read_to_string(layered.upper().join("below.txt")).unwrap(), "again\n");
    assert!(sandbox().supports_overlay());
}

#[test]
fn no_place_of_the_host_is_named_in_the_mount_table_of_an_overlay() {
    let layered = Layered::new();
    let output = run(&script(
        layered.workspace(),
        "cat /proc/self/mountinfo /proc/1/cmdline /proc/*/environ 2>/dev/null",
    ));
    let host = layered.directory.path().display().to_string();
    assert!(!output.stdout.is_empty());
    assert!(!output.stdout.contains(&host), "{}", output.stdout);
    assert!(!output.stdout.contains("tipstaff"), "{}", output.stdout);
}

#[test]
fn read_only_means_every_write_fails() {
    let layered = Layered::new();
    let place = directory();
    for workspace in
        [layered.workspace(), Workspace::Directory { path: place.path().to_owned() }, Workspace::Empty]
    {
        let mut spec = script(workspace.clone(), "touch x || mkdir d || ln -s a b || rm below.txt");
        spec.access = Access::ReadOnly;
        let output = run(&spec);
        assert_ne!(output.exit.code, 0, "{workspace:?}: {output:?}");
    }
    assert!(!layered.upper().exists(), "a read-only run needs no layer");
}

#[test]
fn a_read_only_run_sees_the_layer_that_an_earlier_one_wrote() {
    let layered = Layered::new();
    let spec = script(layered.workspace(), "echo written >new");
    assert!(run(&spec).exit.success());
    let mut look = spec.clone();
    look.argv[2] = "cat new; echo x >new".into();
    let output = run(&refine(look));
    assert_eq!(output.stdout, "written\n");
    assert_ne!(output.exit.code, 0);
}

const EXECUTE_EVERYWHERE: &str = "for d in /tmp /dev/shm $HOME /work; do cp /bin/true $d/t 2>/dev/null; \
     $d/t && echo ran $d; /lib64/ld-linux-x86-64.so.2 $d/t && echo loaded $d; done; true";

#[test]
fn only_installed_programs_run_under_the_strict_policy() {
    let layered = Layered::new();
    let mut spec = script(layered.workspace(), EXECUTE_EVERYWHERE);
    spec.exec = ExecPolicy::InstalledOnly;
    let output = run(&spec);
    assert_eq!(output.stdout, "", "{output:?}");
    spec.exec = ExecPolicy::Any;
    let output = run(&spec);
    for directory in ["/tmp", "/dev/shm", "/home/agent", "/work"] {
        assert!(output.stdout.contains(&format!("ran {directory}\n")), "the test itself works: {output:?}");
    }
}

#[test]
fn granted_directories_are_there_read_only_at_their_own_place() {
    let place = directory();
    let tool = place.path().join("tool");
    std::fs::create_dir_all(tool.join("bin")).unwrap();
    std::fs::write(tool.join("bin/hello"), "#!/bin/sh\necho hello from the tool\n").unwrap();
    std::os::unix::fs::symlink("hello", tool.join("bin/link")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(tool.join("bin/hello"), mode).unwrap();
    let notes = place.path().join("notes.txt");
    std::fs::write(&notes, "notes\n").unwrap();
    let mut spec =
        script(Workspace::Empty, "hello; link; cat /notes/here.txt; touch $(dirname $(which hello))/x");
    spec.grants = vec![ToolchainGrant {
        name: "tool".into(),
        directories: vec![tool.clone()],
        path_entries: vec![tool.join("bin")],
        env: vec![("TIPSTAFF_TOOL".into(), "yes".into())],
    }];
    spec.read_only_mounts = vec![ReadOnlyMount { host: notes, inside: "/notes/here.txt".into() }];
    let tool_place = tool.display().to_string();
    // Under /tmp inside there is only the sized tmpfs, so a tool of a temporary directory cannot be granted there.
    if tool_place.starts_with("/tmp") {
        let error = sandbox().start(&spec).expect_err("a mount over /tmp must be refused");
        assert_eq!(error.code(), "sandbox-spec-invalid");
        spec.grants.clear();
        spec.read_only_mounts.push(ReadOnlyMount { host: tool.clone(), inside: "/tool".into() });
        spec.argv[2] = "/tool/bin/hello; /tool/bin/link; cat /notes/here.txt; touch /tool/bin/x".into();
    }
    for strict in [false, true] {
        let spec = if strict { refine(spec.clone()) } else { spec.clone() };
        let output = run(&spec);
        assert_eq!(output.stdout, "hello from the tool\nhello from the tool\nnotes\n", "{output:?}");
        assert_ne!(output.exit.code, 0, "a grant is read-only");
    }
}

#[test]
fn mounts_cannot_cover_what_the_sandbox_stands_on() {
    let place = directory();
    for inside in
        ["/", "/usr/bin", "/proc", "/etc/passwd", "/work", "/tmp/x", "/home/agent", "/home", "x", "/a/../usr"]
    {
        let mut spec = script(Workspace::Empty, "true");
        spec.read_only_mounts = vec![ReadOnlyMount { host: place.path().to_owned(), inside: inside.into() }];
        let error = sandbox().start(&spec).expect_err(inside);
        assert_eq!(error.code(), "sandbox-spec-invalid", "{inside}");
    }
}

#[test]
fn git_works_inside_a_workspace_of_the_server() {
    let layered = Layered::new();
    let text = "git init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -qm first && git status --short \
                && git log --format=%s && git mv below.txt renamed.txt && git stash -q -u 2>/dev/null; git fsck 2>&1 | head -1";
    let output = run(&script(layered.workspace(), text));
    assert_eq!(output.stdout.lines().next(), Some("first"), "{output:?}");
}

#[test]
fn names_resolve_without_a_network_and_unknown_ones_fail_at_once() {
    let output = run(&script(
        Workspace::Empty,
        "getent hosts localhost >/dev/null && echo yes; getent hosts example.org",
    ));
    assert_eq!(output.stdout, "yes\n");
    assert_ne!(output.exit.code, 0);
}

#[test]
fn a_server_with_many_open_descriptors_starts_sandboxes_as_any_other() {
    let held: Vec<_> = (0..600).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let layered = Layered::new();
    let output = run(&script(layered.workspace(), "cat below.txt; touch x; ls /proc/self/fd | wc -l"));
    assert_eq!(output.stdout, "below\n4\n", "{output:?}");
    drop(held);
}

#[test]
fn a_folder_of_the_home_outlasts_the_sandbox_and_is_as_strict_as_the_rest() {
    let place = directory();
    let host = place.path().join("kept");
    std::fs::create_dir(&host).unwrap();
    let inside = std::path::PathBuf::from("/home/agent/.agent/sessions");
    let text = "umask 077; cd ~/.agent/sessions && echo one >> log && cp /bin/true t && ./t && echo ran; \
                echo x > ~/.agent/beside && cat log; rmdir ~/.agent/sessions || echo stays";
    for (round, strict) in [(1, false), (2, true)] {
        let mut spec = script(Workspace::Empty, text);
        if strict {
            spec = refine(spec);
        }
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&host).unwrap());
        if owner == 0 && spec.identity.uid() != 0 {
            std::os::unix::fs::lchown(&host, Some(spec.identity.uid()), Some(spec.identity.uid())).unwrap();
        }
        spec.home_folders = vec![HomeFolder { host: host.clone(), inside: inside.clone() }];
        let output = run(&spec);
        assert!(output.stdout.ends_with("stays\n"), "{output:?}");
        assert_eq!(output.stdout.contains("ran"), !strict, "{output:?}");
        assert_eq!(output.stdout.matches("one").count(), round, "{output:?}");
    }
    assert_eq!(std::fs::read_to_string(host.join("log")).unwrap(), "one\none\n");
    for wrong in ["/home/agent", "/home/agent/../x", "/home/other", "/work/x", "sessions"] {
        let mut spec = script(Workspace::Empty, "true");
        spec.home_folders = vec![HomeFolder { host: host.clone(), inside: wrong.into() }];
        let error = sandbox().start(&spec).expect_err(wrong);
        assert_eq!(error.code(), "sandbox-spec-invalid", "{wrong}");
    }
    std::os::unix::fs::symlink("/etc", place.path().join("link")).unwrap();
    let mut spec = script(Workspace::Empty, "true");
    spec.home_folders = vec![HomeFolder { host: place.path().join("link"), inside }];
    assert!(sandbox().start(&spec).is_err(), "a link is no folder of the run's own");
}
