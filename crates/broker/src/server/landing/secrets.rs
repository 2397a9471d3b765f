//! Secrets in a push: what looks like one in a blob, a message or a name, and was not in the base before.
//!
//! Promises: every blob at every path that any new commit changes is looked through, also one that a later commit takes
//! back; a refusal names path, line and kind, never the value; a value that the broker holds passes nowhere.

use super::checks::{Changes, Checks};
use super::contents;
use super::looks::{Arrivals, HELD, Located, Locator, Others, Secrets, secret_in, told};
use crate::pack::ObjectId;
use crate::parse::changes::{Change, MODE_SUBMODULE, MODE_SYMLINK};
use std::collections::{BTreeSet, HashMap, HashSet};
use tipstaff_model::{Refusal, Rule};

/// Files with something in them that are compared with the base; with more, the push is refused without.
const MOST_SUSPECTS: usize = 1000;
/// Links whose targets are read.
const MOST_LINKS: usize = 10_000;

fn is_content(mode: u32) -> bool {
    mode != 0 && mode != MODE_SUBMODULE
}

impl Checks<'_> {
    /// Reads what the changes name and did not come with the push, and the targets of links; judges links.
    pub(super) async fn others(
        &self,
        changes: &Changes,
        came: &HashSet<ObjectId>,
    ) -> Result<Others, Refusal> {
        let mut links = HashSet::new();
        let mut unread = BTreeSet::new();
        for change in changes.all().filter(|change| is_content(change.new_mode)) {
            if change.new_mode == MODE_SYMLINK {
                links.insert(change.new_id);
            }
            if !came.contains(&change.new_id) {
                unread.insert(change.new_id);
            }
        }
        if links.len() > MOST_LINKS {
            let why = format!("more than {MOST_LINKS} symbolic links are new");
            return Err(self.refusal(Rule::PushTooManyFiles, why));
        }
        unread.extend(&links);
        let requests: Vec<Vec<u8>> = unread.iter().map(|id| id.to_string().into_bytes()).collect();
        let others = self.look_through(&requests, links).await?;
        for change in changes.all().filter(|change| change.new_mode == MODE_SYMLINK) {
            let target = others.links.get(&change.new_id).map_or(&b""[..], Vec::as_slice);
            if let Some(why) = crate::parse::link::fault(&change.path, target) {
                let path = String::from_utf8_lossy(&change.path);
                return Err(Refusal::new(Rule::SymlinkEscapes, &path, format!("the link {path} {why}")));
            }
        }
        Ok(others)
    }

    async fn look_through(&self, requests: &[Vec<u8>], links: HashSet<ObjectId>) -> Result<Others, Refusal> {
        let bounds = self.shared.config.bounds;
        let reader = Others::new(&self.shared.config.redactor, links, bounds.scan_bytes);
        let others = contents::read(self.command("cat-file"), requests, bounds.check_time, reader)
            .await
            .map_err(|error| self.failed(&error))?;
        if others.too_much { Err(self.too_much_to_scan()) } else { Ok(others) }
    }

    /// Refuses what holds a new secret.
    pub(super) async fn secrets(
        &self,
        changes: &Changes,
        arrivals: &Arrivals,
        others: &Others,
    ) -> Result<(), Refusal> {
        self.secrets_in_names(changes)?;
        let found = |id: &ObjectId| arrivals.secrets.get(id).or_else(|| others.secrets.get(id));
        let warrant = self.shared.warrant.warrant();
        let paths = &warrant.paths;
        let mut suspects: Vec<(&[u8], ObjectId, &Secrets)> = changes
            .all()
            .filter(|change| is_content(change.new_mode))
            .filter_map(|change| {
                found(&change.new_id).map(|found| (change.path.as_slice(), change.new_id, found))
            })
            .filter(|(path, _, found)| found.held || !paths.is_fixture(path))
            .collect();
        suspects.sort_unstable_by_key(|(path, id, _)| (*path, *id));
        suspects.dedup_by_key(|(path, id, _)| (*path, *id));
        let Some((path, ..)) = suspects.first() else { return Ok(()) };
        if suspects.len() > MOST_SUSPECTS || suspects.iter().any(|(_, _, found)| found.more) {
            let path = String::from_utf8_lossy(path);
            let why = format!("{path} and more hold what looks like secrets, more than are listed");
            return Err(Refusal::new(Rule::SecretInDiff, &path, why));
        }
        let known = self.known(changes, &suspects).await?;
        let mut new: Vec<(&[u8], &Located)> = Vec::new();
        for (path, id, _) in &suspects {
            let base: &HashSet<String> = known.base.get(*path).unwrap_or(&known.nothing);
            let fixture = paths.is_fixture(path);
            let located = known.located.get(id).map_or(&[][..], Vec::as_slice);
            new.extend(
                located
                    .iter()
                    .filter(|one| one.rule == HELD || !fixture)
                    .filter(|one| !base.contains(&one.digest) && !known.removed.contains(&one.digest))
                    .map(|one| (*path, one)),
            );
        }
        let Some((path, first)) = new.first() else { return Ok(()) };
        let gone = !changes.net.iter().any(|change| change.path == *path && is_content(change.new_mode));
        let path = String::from_utf8_lossy(path);
        let mut why = format!("{path}, line {}, holds {}", first.line, told(first.rule));
        if gone {
            why.push_str("; a later commit removes it, the earlier one keeps it");
        }
        if new.len() > 1 {
            why.push_str(&format!("; {} in all", new.len()));
        }
        Err(Refusal::new(Rule::SecretInDiff, &path, why))
    }

    /// Names of new files.
    fn secrets_in_names(&self, changes: &Changes) -> Result<(), Refusal> {
        let redactor = &self.shared.config.redactor;
        let new: BTreeSet<&[u8]> = changes
            .all()
            .filter(|change| change.old_mode == 0)
            .map(|change: &Change| change.path.as_slice())
            .collect();
        for path in new {
            if let Some(rule) = secret_in(redactor, path) {
                let shown = redactor.redact(&String::from_utf8_lossy(path)).into_owned();
                let why = format!("the name {shown} holds {}", told(rule));
                return Err(Refusal::new(Rule::SecretInDiff, &shown, why));
            }
        }
        Ok(())
    }

    /// What the suspects hold, and what the base held before: in the same files, and in those that the push removes.
    async fn known(
        &self,
        changes: &Changes,
        suspects: &[(&[u8], ObjectId, &Secrets)],
    ) -> Result<Known, Refusal> {
        let base = self.quarantine.base();
        let paths: Vec<&[u8]> =
            suspects.iter().map(|(path, ..)| *path).collect::<BTreeSet<_>>().into_iter().collect();
        // A path that the base has and git could not read as one line counts as new.
        let request = |path: &[u8]| match path.contains(&b'\n') {
            true => vec![b'0'; 40],
            false => [format!("{base}:").as_bytes(), path].concat(),
        };
        let mut requests: Vec<Vec<u8>> = paths.iter().map(|path| request(path)).collect();
        let removed = changes.net.iter().filter(|change| change.new_mode == 0 && is_content(change.old_mode));
        requests.extend(removed.map(|change| change.old_id.to_string().into_bytes()));
        let before = self.look_through(&requests, HashSet::new()).await?;
        let mut wanted: HashMap<ObjectId, _> =
            before.secrets.iter().map(|(id, found)| (*id, found.findings.clone())).collect();
        wanted.extend(suspects.iter().map(|(_, id, found)| (*id, found.findings.clone())));
        let locator = Locator::new(wanted);
        let requests = locator.requests();
        let time = self.shared.config.bounds.check_time;
        let located = contents::read(self.command("cat-file"), &requests, time, locator)
            .await
            .map_err(|error| self.failed(&error))?
            .located;
        let digests = |id: &ObjectId| -> HashSet<String> {
            located.get(id).into_iter().flatten().map(|one| one.digest.clone()).collect()
        };
        let base = paths
            .iter()
            .zip(&before.found)
            .filter_map(|(path, id)| Some((path.to_vec(), digests(&(*id)?))))
            .collect();
        let removed = before.found.iter().skip(paths.len()).flatten().flat_map(digests).collect();
        Ok(Known { located, base, removed, nothing: HashSet::new() })
    }
}

struct Known {
    located: HashMap<ObjectId, Vec<Located>>,
    /// By path: digests of what its base version holds.
    base: HashMap<Vec<u8>, HashSet<String>>,
    /// Digests of what the removed files held.
    removed: HashSet<String>,
    nothing: HashSet<String>,
}
