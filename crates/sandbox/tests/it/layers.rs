//! Layers that one run wrote and later ones lie upon.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use tipstaff_sandbox::{
    Access, SettledLayer, TreeEntry, UnreadableFile, Workspace, read_beneath, settle_layer, visit_tree,
    write_out,
};

use crate::support::{Layered, directory, run, script};

const MOST: u64 = 10_000;

/// Lets `text` write a layer over a small checkout, and settles it for the server's user.
fn settled(layered: &Layered, text: &str) -> (PathBuf, SettledLayer) {
    std::fs::create_dir_all(layered.lower().join("src/deep")).unwrap();
    std::fs::write(layered.lower().join("src/a"), "a\n").unwrap();
    std::fs::write(layered.lower().join("src/deep/b"), "b\n").unwrap();
    let output = run(&script(layered.workspace(), text));
    assert!(output.exit.success(), "{output:?}");
    let own = std::fs::metadata(layered.lower()).unwrap();
    let report =
        settle_layer(&layered.upper(), &layered.lower(), Some((own.uid(), own.gid())), MOST).unwrap();
    (layered.upper(), report)
}

fn everything(path: &std::path::Path) -> Vec<TreeEntry> {
    let mut found = Vec::new();
    visit_tree(path, MOST, &mut |entry| found.push(entry.clone())).unwrap();
    found
}

#[test]
fn what_a_setup_made_lies_under_the_next_run_and_stays_as_it_was() {
    let layered = Layered::new();
    let (over, report) = settled(
        &layered,
        "mkdir -p deps/x && echo one >deps/x/one && echo two >src/new && chmod 600 src/new",
    );
    assert_eq!(report.restored, 0, "{report:?}");
    let before = everything(&over);
    assert_eq!(before.len(), 5, "{before:?}");
    // Another run, with another identity where there are several.
    let state = layered.directory.path().join("next");
    let workspace =
        Workspace::Overlay { lower: layered.lower(), over: Some(over.clone()), state: state.clone() };
    let text = "cat below.txt deps/x/one src/new src/deep/b; echo poison >deps/x/one; rm -rf src; echo x >deps/y; \
                chmod -R 777 deps; ls deps; cat deps/x/one";
    let output = run(&script(workspace.clone(), text));
    assert_eq!(output.stdout, "below\none\ntwo\nb\nx\ny\npoison\n", "{output:?}");
    assert_eq!(everything(&over), before, "not one bit of it changed");
    assert_eq!(std::fs::read_to_string(over.join("deps/x/one")).unwrap(), "one\n");
    let mut look = script(workspace, "cat deps/x/one; ls; touch x");
    look.access = Access::ReadOnly;
    assert!(run(&look).stdout.starts_with("poison\n"), "its own layer is on top");
    tipstaff_sandbox::remove_tree(&state).unwrap();
    // Nobody wrote: no layer of its own is needed.
    let workspace = Workspace::Overlay { lower: layered.lower(), over: Some(over), state };
    let mut look = script(workspace, "cat deps/x/one; ls -d src deps; touch deps/z || echo refused");
    look.access = Access::ReadOnly;
    assert_eq!(run(&look).stdout, "one\ndeps\nsrc\nrefused\n");
    write_out(&layered.lower()).unwrap();
}

#[test]
fn a_settled_layer_changes_hides_and_replaces_nothing_of_the_checkout() {
    let layered = Layered::new();
    let text = "echo changed >below.txt; rm src/a; mkdir src/a; touch src/a/under; rm -rf src/deep; mkdir src/deep; \
                echo new >src/deep/c; mkfifo pipe; ln -s /etc/passwd link; mkdir -p .git/hooks shut/in; touch .git/config; \
                echo x >shut/in/x; chmod 000 shut/in/x; chmod 000 shut/in; chmod 000 shut; mv src/deep src/other; true";
    let (over, report) = settled(&layered, text);
    assert!(report.restored >= 2, "{report:?}");
    assert!(report.restored_names.contains(&PathBuf::from("below.txt")), "{report:?}");
    for gone in ["below.txt", "src/a", "pipe", ".git"] {
        assert!(over.join(gone).symlink_metadata().is_err(), "{gone}");
    }
    let state = layered.directory.path().join("next");
    let workspace =
        Workspace::Overlay { lower: layered.lower(), over: Some(over.clone()), state: state.clone() };
    let output = run(&script(
        workspace,
        "cat below.txt src/a src/deep/b; readlink link; ls .git 2>/dev/null; ls -R shut",
    ));
    assert!(output.stdout.starts_with("below\na\nb\n/etc/passwd\n"), "{output:?}");
    tipstaff_sandbox::remove_tree(&state).unwrap();
    let own = std::fs::metadata(layered.lower()).unwrap().uid();
    for entry in everything(&over) {
        let status = over.join(&entry.path).symlink_metadata().unwrap();
        assert_eq!(status.uid(), own, "{entry:?}");
    }
    let mut seen = 0;
    assert!(visit_tree(&over, 1, &mut |_| seen += 1).is_err(), "the bound holds");
    let few = settle_layer(&over, &layered.lower(), None, 1).unwrap_err();
    assert!(few.to_string().contains("more than 1"), "{few}");
}

#[test]
fn a_file_of_a_tree_is_read_without_following_a_link() {
    let place = directory();
    let root = place.path();
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    std::fs::write(root.join("a/b/file"), "text").unwrap();
    std::fs::set_permissions(root.join("a/b/file"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/etc", root.join("out")).unwrap();
    symlink("a/b/file", root.join("inner")).unwrap();
    let read = |path: &str| read_beneath(root, std::path::Path::new(path), 100);
    let found = read("a/b/file").unwrap().unwrap();
    assert_eq!((found.content.as_slice(), found.executable), (&b"text"[..], true));
    assert_eq!(read("a/none").unwrap(), None);
    assert_eq!(read("none/none").unwrap(), None);
    assert!(matches!(read("out/passwd"), Err(UnreadableFile::Link(_))));
    assert!(matches!(read("inner"), Err(UnreadableFile::Link(_))));
    assert!(matches!(read("a/b"), Err(UnreadableFile::NoFile)));
    assert!(matches!(read("a/b/file/x"), Err(UnreadableFile::Io(_))));
    for bad in ["", "/etc/passwd", "../x", "a/../../x", "."] {
        assert!(matches!(read(bad), Err(UnreadableFile::Path)), "{bad:?}: {:?}", read(bad));
    }
    assert!(matches!(
        read_beneath(root, std::path::Path::new("a/b/file"), 3),
        Err(UnreadableFile::TooLarge(3))
    ));
}
