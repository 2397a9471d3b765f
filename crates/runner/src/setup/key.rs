//! The key by which what a set-up made is found again: everything that decides what it makes.

use super::Form;
use super::copied::Copied;
use super::table::SetupPlan;
use tipstaff_model::{OrgId, RepositoryName};
use tipstaff_sandbox::ToolchainGrant;
use tipstaff_seal::StreamDigest;

/// Changes whenever a set-up is carried out in another way.
const VERSION: &str = "tipstaff-setup-1";

/// What a key is made of besides the plan.
pub(crate) struct KeyParts<'a> {
    pub(crate) org: OrgId,
    pub(crate) repository: &'a RepositoryName,
    pub(crate) source: &'a str,
    pub(crate) form: Form,
    pub(crate) grants: &'a [ToolchainGrant],
    /// What the operating system says it is.
    pub(crate) system: &'a str,
}

/// The key: 64 hexadecimal digits.
pub(crate) fn key(plan: &SetupPlan, copied: &Copied, parts: &KeyParts<'_>) -> String {
    let mut digest = StreamDigest::default();
    let mut put = |name: &str, value: &[u8]| {
        // Lengths come first, so that no two lists of values read the same.
        digest.update(format!("{name}:{}:", value.len()).as_bytes());
        digest.update(value);
        digest.update(b"\n");
    };
    put("version", VERSION.as_bytes());
    put("org", parts.org.to_string().as_bytes());
    put("repository", parts.repository.to_string().as_bytes());
    put("source", parts.source.as_bytes());
    put("form", parts.form.as_str().as_bytes());
    put("architecture", std::env::consts::ARCH.as_bytes());
    put("system", parts.system.as_bytes());
    for grant in parts.grants {
        put("toolchain", grant.name.as_bytes());
        for path in grant.directories.iter().chain(&grant.path_entries) {
            put("path", path.as_os_str().as_encoded_bytes());
        }
        for (name, value) in &grant.env {
            put("variable", name.as_bytes());
            put("value", value.as_bytes());
        }
    }
    put("script", plan.script.as_ref().map_or("", |script| &script.id).as_bytes());
    for host in &plan.table.hosts {
        put("host", host.to_string().as_bytes());
    }
    for (path, id) in &plan.inputs {
        put("input", path);
        put("content", id.as_bytes());
    }
    for file in &copied.files {
        put("copied", file.path.as_bytes());
        put("content", file.digest.as_bytes());
        put("executable", if file.executable { b"1" } else { b"0" });
    }
    for path in &copied.missing {
        put("missing", path.as_bytes());
    }
    digest.hex()
}

/// What the operating system of the sandboxes says it is: its own programs are what a script finds.
pub(crate) fn system() -> String {
    std::fs::read_to_string("/usr/lib/os-release").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::copied::CopiedFile;
    use super::super::table::{SetupScript, SetupTable};
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn whatever_decides_the_result_is_part_of_the_key() {
        let repository: RepositoryName = "local/one".parse().unwrap();
        let plan = SetupPlan {
            table: SetupTable::default(),
            script: Some(SetupScript { id: "a".repeat(40) }),
            inputs: vec![(b"a.lock".to_vec(), "1".to_owned())],
        };
        let grants = [ToolchainGrant {
            name: "node".to_owned(),
            directories: vec!["/opt/node".into()],
            path_entries: vec!["/opt/node/bin".into()],
            env: vec![("A".to_owned(), "B".to_owned())],
        }];
        let parts = KeyParts {
            org: OrgId::from_bytes([1; 16]),
            repository: &repository,
            source: "/srv/one",
            form: Form::Layer,
            grants: &grants,
            system: "debian 12",
        };
        let file = |path: &str, digest: &str, executable| CopiedFile {
            path: path.to_owned(),
            content: Vec::new(),
            executable,
            digest: digest.to_owned(),
        };
        let copied = Copied { files: vec![file("x", "1", false)], missing: Vec::new() };
        let first = key(&plan, &copied, &parts);
        assert_eq!(first.len(), 64);
        assert_eq!(key(&plan, &copied, &parts), first);
        let mut all = BTreeSet::from([first]);
        let mut other = |what: &str, plan: &SetupPlan, copied: &Copied, parts: &KeyParts<'_>| {
            assert!(all.insert(key(plan, copied, parts)), "{what} makes no difference");
        };
        let changed = |change: &dyn Fn(&mut SetupPlan)| {
            let mut plan = plan.clone();
            change(&mut plan);
            plan
        };
        other("the script", &changed(&|plan| plan.script = None), &copied, &parts);
        other("an input's content", &changed(&|plan| plan.inputs[0].1 = "2".to_owned()), &copied, &parts);
        other("an input's name", &changed(&|plan| plan.inputs[0].0 = b"b.lock".to_vec()), &copied, &parts);
        other(
            "the hosts",
            &changed(&|plan| plan.table.hosts = vec!["registry:npm".parse().unwrap()]),
            &copied,
            &parts,
        );
        for (what, files, missing) in [
            ("a copied file's content", vec![file("x", "2", false)], vec![]),
            ("a copied file's mode", vec![file("x", "1", true)], vec![]),
            ("a copied file's name", vec![file("y", "1", false)], vec![]),
            ("a missing file", vec![file("x", "1", false)], vec!["z".to_owned()]),
        ] {
            other(what, &plan, &Copied { files, missing }, &parts);
        }
        let two: RepositoryName = "local/two".parse().unwrap();
        other("the org", &plan, &copied, &KeyParts { org: OrgId::from_bytes([2; 16]), ..parts });
        let parts = |form, grants| KeyParts {
            org: OrgId::from_bytes([1; 16]),
            repository: &repository,
            source: "/srv/one",
            form,
            grants,
            system: "debian 12",
        };
        other(
            "the repository",
            &plan,
            &copied,
            &KeyParts { repository: &two, ..parts(Form::Layer, &grants) },
        );
        other("the source", &plan, &copied, &KeyParts { source: "/srv/two", ..parts(Form::Layer, &grants) });
        other("the form", &plan, &copied, &parts(Form::Archive, &grants));
        other("the toolchains", &plan, &copied, &parts(Form::Layer, &[]));
        other("the system", &plan, &copied, &KeyParts { system: "debian 13", ..parts(Form::Layer, &grants) });
        let same = SetupPlan { table: SetupTable { cache: false, ..SetupTable::default() }, ..plan.clone() };
        assert!(
            !all.insert(key(&same, &copied, &parts(Form::Layer, &grants))),
            "the bound of time decides nothing"
        );
    }
}
