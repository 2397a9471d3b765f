//! Every check finds the thing it looks for, and lets the right thing pass.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;
use xtask::tree::Tree;
use xtask::{claims, tidy};

/// A tree with these files. It is no git repository, so it is walked.
fn tree(files: &[(&str, &str)]) -> (TempDir, Tree) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let tree = Tree::open(folder.path()).unwrap();
    (folder, tree)
}

#[track_caller]
fn found(findings: &[String], words: &str) {
    assert!(findings.iter().any(|finding| finding.contains(words)), "no \"{words}\" in {findings:#?}");
}

#[test]
fn a_walk_skips_what_is_built() {
    let (_folder, tree) = tree(&[("target/a.rs", ""), (".git/config", ""), ("crates/x/src/lib.rs", "")]);
    assert_eq!(tree.files().collect::<Vec<_>>(), ["crates/x/src/lib.rs"]);
    assert!(
        tree.has("crates/x") && tree.has("crates/x/") && !tree.has("crates/y") && !tree.has("crates/x/sr")
    );
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let long = "fn line() {}\n".repeat(801);
    let tested = format!("{}#[cfg(test)]\nmod tests {{\n{long}}}\n", "fn line() {}\n".repeat(401));
    let (_folder, tree) = tree(&[
        ("crates/x/src/long.rs", &long),
        ("crates/x/src/tested.rs", &tested),
        ("crates/x/tests/it/main.rs", &long),
    ]);
    assert_eq!(tidy::file_sizes(&tree).len(), 1);
    found(&tidy::file_sizes(&tree), "long.rs has 801");
    assert_eq!(tidy::long_files(&tree).last().unwrap(), &("crates/x/src/tested.rs".to_owned(), 401));
}

#[test]
fn put_off_work_is_found() {
    let source = [
        concat!("// TO", "DO later\n"),
        concat!("#[ig", "nore]\nfn a() { to", "do!() }\n"),
        concat!("const TEXT: &str = \"#[ig", "nore] in a string is fine\";\n"),
        concat!("// A meTO", "DOlogy is no note.\n"),
    ]
    .concat();
    let (_folder, tree) = tree(&[("crates/x/src/lib.rs", &source), ("notes.md", concat!("TO", "DO"))]);
    let findings = tidy::unfinished_work(&tree);
    assert_eq!(findings.len(), 3, "{findings:#?}");
    found(&findings, "lib.rs:1 says");
    found(&findings, "lib.rs:2 switches a test off");
    found(&findings, "lib.rs:3 has");
}

#[test]
fn unsafe_is_found_outside_the_sandbox_only() {
    let source = concat!("/// un", "safe in words\nfn a() { un", "safe { b() } }\n");
    let (_folder, tree) = tree(&[("crates/x/src/lib.rs", source), ("crates/sandbox/src/lib.rs", source)]);
    assert_eq!(tidy::unsafe_code(&tree), ["crates/x/src/lib.rs:2: only crates/sandbox may be unsafe"]);
}

#[test]
fn a_crate_without_a_front_is_found() {
    let good = "#![doc = include_str!(\"../README.md\")]\n";
    let (_folder, tree) = tree(&[
        ("crates/bare/Cargo.toml", "description = \"\"\n"),
        ("crates/bare/src/lib.rs", "//! Words\n"),
        ("crates/good/Cargo.toml", "description = \"does one good thing\"\n"),
        ("crates/good/README.md", "# good\n"),
        ("crates/good/src/lib.rs", good),
        ("xtask/Cargo.toml", "description = \"checks of the house\"\n"),
        ("xtask/README.md", "# xtask\n"),
        ("xtask/src/lib.rs", good),
    ]);
    let findings = tidy::crate_fronts(&tree);
    assert_eq!(findings.len(), 3, "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.starts_with("crates/bare")));
}

#[test]
fn a_crate_with_weaker_lints_is_found() {
    let workspace =
        "[workspace.lints.rust]\nunsafe_code = \"forbid\"\n[workspace.lints.clippy]\npanic = \"warn\"\n";
    let (_folder, tree) = tree(&[
        ("Cargo.toml", workspace),
        ("crates/a/Cargo.toml", "[lints]\nworkspace = true\n"),
        ("crates/b/Cargo.toml", "[lints.rust]\nunsafe_code = \"deny\"\n"),
        ("crates/sandbox/Cargo.toml", "[lints.rust]\nunsafe_code = \"deny\"\n"),
        ("xtask/Cargo.toml", "[lints]\nworkspace = true\n"),
    ]);
    let findings = tidy::lints(&tree);
    assert_eq!(findings.len(), 2, "{findings:#?}");
    found(&findings, "crates/b does not take");
    found(&findings, "crates/sandbox differs from the workspace in the lint clippy::panic");
}

#[test]
fn the_path_of_a_checkout_is_found() {
    let (folder, tree) = tree(&[("docs/a.md", "")]);
    let here = folder.path().display();
    fs::write(
        folder.path().join("docs/a.md"),
        format!("run {here}/script/test\nor in {here}\nnot {here}-else\n"),
    )
    .unwrap();
    assert_eq!(tidy::workplace_paths(&tree).len(), 2);
}

#[test]
fn a_script_that_cannot_start_is_found() {
    let (folder, tree) =
        tree(&[("script/a", "echo\n"), ("script/b", "#!/usr/bin/env bash\nset -euo pipefail\n")]);
    fs::set_permissions(folder.path().join("script/b"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder.path().join("script/a"), fs::Permissions::from_mode(0o644)).unwrap();
    let findings = tidy::scripts(&tree);
    assert!(findings.iter().all(|finding| finding.starts_with("script/a")), "{findings:#?}");
    found(&findings, "not executable");
}

#[test]
fn unequal_migrations_are_found() {
    let (_folder, tree) = tree(&[
        ("crates/store/migrations/sqlite/0001_first.sql", ""),
        ("crates/store/migrations/postgres/0001_first.sql", ""),
        ("crates/store/migrations/sqlite/0003_third.sql", ""),
    ]);
    let findings = tidy::migrations(&tree);
    found(&findings, "0003_third.sql exists for one engine only");
    found(&findings, "should carry the number 0002");
}

#[test]
fn a_second_test_binary_is_found() {
    let (_folder, tree) = tree(&[
        ("crates/x/tests/it/main.rs", ""),
        ("crates/x/tests/it/story.rs", ""),
        ("crates/x/tests/other.rs", ""),
        ("crates/x/tests/more/main.rs", ""),
    ]);
    assert_eq!(tidy::integration_binaries(&tree).len(), 2);
}

#[test]
fn an_invariant_without_a_test_is_found() {
    let text = "**Invariant:** one. (test: x::it::real)\n\n**Invariant:** two.\n\n\
                **Invariant:** three. (test: x::imagined)\n\n**Invariant:** four, over\ntwo lines. (test: x::real,\nx::made)\n";
    let (_folder, tree) = tree(&[
        ("ARCHITECTURE.md", text),
        ("crates/x/src/lib.rs", "fn real() {}\n"),
        ("crates/x/tests/it/main.rs", "both_engines!(made);\n"),
    ]);
    let findings = claims::invariants(&tree);
    assert_eq!(findings.len(), 2, "{findings:#?}");
    found(&findings, "names no test: **Invariant:** two.");
    found(&findings, "no test `imagined` in crates/x/");
}

#[test]
fn a_security_claim_without_ground_is_found() {
    let text = "| Claim | Where | Test |\n|---|---|---|\n| holds | `crates/x/src/lib.rs` | `x::real` |\n\
                | floats | `crates/gone` | `x::imagined` |\n| proved | crates/x | doctest crates/x/src/lib.rs |\n";
    let (_folder, tree) = tree(&[
        ("SECURITY.md", text),
        ("crates/x/src/lib.rs", "//! ```compile_fail\n//! ```\nfn real() {}\n"),
    ]);
    let findings = claims::security_claims(&tree);
    assert_eq!(findings.len(), 2, "{findings:#?}");
    found(&findings, "crates/gone, which does not exist");
    found(&findings, "no test `imagined`");
}

#[test]
fn a_document_without_claims_is_found() {
    let (_folder, tree) = tree(&[("ARCHITECTURE.md", "words"), ("SECURITY.md", "words")]);
    assert_eq!(claims::invariants(&tree).len(), 1);
    assert_eq!(claims::security_claims(&tree).len(), 1);
}

#[test]
fn dead_links_are_found() {
    let text = "[a](b.md) [b](../README.md#the-way-in) [c](gone.md) [d](b.md#nothing) [e](../../out.md) \
                [f](https://example.org/x)\n\n```text\n[g](in-code.md)\n```\n";
    let (_folder, tree) =
        tree(&[("docs/a.md", text), ("docs/b.md", "# B\n"), ("README.md", "# T\n## The way in\n")]);
    let findings = claims::links(&tree);
    assert_eq!(findings.len(), 3, "{findings:#?}");
    found(&findings, "gone.md leads nowhere");
    found(&findings, "b.md#nothing names a heading");
    found(&findings, "../../out.md leaves the tree");
}
