//! Names in a push's trees: dangerous ones, and names that some file system takes for one.

use super::checks::Checks;
use super::looks::Arrivals;
use crate::error::BrokerError;
use crate::parse::changes::MODE_SYMLINK;
use crate::parse::names;
use crate::parse::tree::MODE_TREE;
use std::collections::{HashMap, HashSet};
use tipstaff_model::{Refusal, Rule};

/// Bytes of a whole tree's list.
const LARGEST_LIST: usize = 256 * 1024 * 1024;
/// Commits whose whole trees are compared, where names collide.
const MOST_COMPARED: usize = 200;

/// Mode and object of each path.
type Listed = HashMap<Vec<u8>, (u32, Vec<u8>)>;

impl Checks<'_> {
    /// Refuses names that are dangerous, unless the base has the very same name already.
    pub(super) async fn names(&self, arrivals: &Arrivals) -> Result<(), Refusal> {
        if arrivals.names.is_empty() {
            return Ok(());
        }
        let base = self.listed(self.quarantine.base().as_str()).await?;
        let known: HashSet<&[u8]> =
            base.keys().filter_map(|path| path.rsplit(|byte| *byte == b'/').next()).collect();
        match arrivals.names.iter().find(|(name, _)| !known.contains(name.as_slice())) {
            Some((name, why)) => {
                let name = String::from_utf8_lossy(name);
                Err(Refusal::new(Rule::PathDangerous, &name, format!("the name '{name}' {why}")))
            }
            None => Ok(()),
        }
    }

    /// Refuses a link or a folder that shares its name with something else on a file system that ignores case, normal
    /// forms or the like: what is written below one is then written through the other (CVE-2021-21300).
    pub(super) async fn collisions(&self, arrivals: &Arrivals, commits: &[u8]) -> Result<(), Refusal> {
        if !arrivals.collides {
            return Ok(());
        }
        let time = self.shared.config.bounds.check_time;
        tokio::time::timeout(time, self.compare(commits)).await.unwrap_or_else(|_| {
            Err(self.failed(&BrokerError::GitTimeout { command: "ls-tree", seconds: time.as_secs() }))
        })
    }

    async fn compare(&self, commits: &[u8]) -> Result<(), Refusal> {
        let base = self.listed(self.quarantine.base().as_str()).await?;
        let commits: Vec<&[u8]> =
            commits.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        if commits.len() > MOST_COMPARED {
            let why =
                format!("names collide, and more than {MOST_COMPARED} commits would have to be compared");
            return Err(self.refusal(Rule::PathDangerous, why));
        }
        for commit in commits {
            let listed = self.listed(&String::from_utf8_lossy(commit)).await?;
            if let Some((path, other)) = collision(&listed, &base) {
                let (path, other) = (String::from_utf8_lossy(path), String::from_utf8_lossy(other));
                let why = format!("{path} and {other} are one name to a file system that ignores case");
                return Err(Refusal::new(Rule::PathDangerous, &path, why));
            }
        }
        Ok(())
    }

    /// Every path of a commit, folders too.
    async fn listed(&self, commit: &str) -> Result<Listed, Refusal> {
        let output = self
            .command("ls-tree")
            .args(["-r", "-t", "-z", "--full-tree", commit])
            .output_limit(LARGEST_LIST)
            .run()
            .await
            .map_err(|error| self.failed(&error))?;
        let mut listed = Listed::new();
        for line in output.stdout.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            let tab = memchr::memchr(b'\t', line).unwrap_or(line.len());
            let (front, path) =
                (line.get(..tab).unwrap_or_default(), line.get(tab + 1..).unwrap_or_default());
            let mut words = front.split(|byte| *byte == b' ');
            let mode =
                words.next().and_then(|mode| u32::from_str_radix(std::str::from_utf8(mode).ok()?, 8).ok());
            let (Some(mode), Some(id)) = (mode, words.nth(1)) else {
                return Err(self.failed(&BrokerError::GitUnexpected { command: "ls-tree" }));
            };
            listed.insert(path.to_vec(), (mode, id.to_vec()));
        }
        Ok(listed)
    }
}

/// Two paths that are one to some file system, at least one of them no ordinary file and not all as in the base.
fn collision<'a>(listed: &'a Listed, base: &Listed) -> Option<(&'a [u8], &'a [u8])> {
    let mut folded: HashMap<Vec<u8>, Vec<(&[u8], u32)>> = HashMap::new();
    for (path, (mode, _)) in listed {
        let parts: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').map(names::folded).collect();
        folded.entry(parts.join(&b'/')).or_default().push((path, *mode));
    }
    let unchanged = |path: &[u8]| match (listed.get(path), base.get(path)) {
        (Some((mode, _)), Some((before, _))) if *mode == MODE_TREE => before == mode,
        (now, before) => now == before,
    };
    for group in folded.values().filter(|group| group.len() > 1) {
        let folders = group.iter().filter(|(_, mode)| *mode == MODE_TREE).count();
        let dangerous = folders > 0 || group.iter().any(|(_, mode)| *mode == MODE_SYMLINK);
        if dangerous && !group.iter().all(|(path, _)| unchanged(path)) {
            let mut paths: Vec<&[u8]> = group.iter().map(|(path, _)| *path).collect();
            paths.sort_unstable();
            if let [first, second, ..] = paths.as_slice() {
                return Some((first, second));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, u32)]) -> Listed {
        entries.iter().map(|(path, mode)| (path.as_bytes().to_vec(), (*mode, b"1".to_vec()))).collect()
    }

    #[test]
    fn what_is_one_name_somewhere_is_found_unless_it_was_there() {
        const FILE: u32 = 0o100_644;
        let nothing = tree(&[]);
        let plain = tree(&[("a", FILE), ("A", FILE)]);
        assert_eq!(collision(&plain, &nothing), None, "two files only hide one another");
        for listed in [
            tree(&[("a", MODE_SYMLINK), ("A", MODE_TREE), ("A/hook", FILE)]),
            tree(&[("d", MODE_TREE), ("D", MODE_TREE)]),
            tree(&[("d", MODE_TREE), ("D", MODE_TREE), ("d/x", MODE_SYMLINK), ("D/X", MODE_TREE)]),
            tree(&[("é", MODE_SYMLINK), ("e\u{301}", FILE)]),
            tree(&[("a", MODE_SYMLINK), ("a.", MODE_TREE)]),
        ] {
            assert!(collision(&listed, &nothing).is_some(), "{listed:?}");
            assert_eq!(collision(&listed, &listed), None);
        }
        let before = tree(&[("d", MODE_TREE), ("D", MODE_TREE)]);
        let after = tree(&[("d", MODE_TREE), ("D", MODE_TREE), ("d/x", MODE_SYMLINK), ("D/X", FILE)]);
        assert!(collision(&after, &before).is_some());
        assert_eq!(collision(&tree(&[("d", MODE_TREE), ("D", MODE_TREE), ("d/y", FILE)]), &before), None);
    }
}
