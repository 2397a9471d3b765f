//! What a push brought, looked at as it is held: sizes before anything is inflated, then every object once.
//!
//! Promises: an object is asked for only after its size and its chain of deltas are known to be within bounds; a tree
//! that unfolds into more than a disk holds is found by counting, never by walking.

use super::checks::Checks;
use super::contents;
use super::looks::Arrivals;
use crate::error::BrokerError;
use crate::pack::{self, ObjectId, ObjectKind, PackObject};
use crate::parse::commit::LONGEST_COMMIT;
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use tipstaff_model::{Refusal, Rule};

/// Longest chain of deltas: the longest that git itself makes.
const LONGEST_CHAIN: u32 = 4095;
/// Bytes of one tree: a folder of some 300 000 entries.
const LARGEST_TREE: u64 = 16 * 1024 * 1024;
/// Bytes of all trees of a push.
const ALL_TREES: u64 = 256 * 1024 * 1024;
/// Folders within folders.
const DEEPEST: u64 = 256;
/// Entries that the trees of a push unfold into.
const UNFOLDED: u64 = 2_000_000;

/// The objects of a push, in the order of its pack.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) objects: Vec<PackObject>,
    pub(super) ids: HashSet<ObjectId>,
}

/// What the pack lists; the objects that git added to complete a thin pack lie behind the ones that came.
fn list(folder: &Path, came: usize) -> Result<Inventory, BrokerError> {
    let read = |path: &Path| fs::read(path).map_err(BrokerError::state(path, "read"));
    let mut inventory = Inventory::default();
    for entry in fs::read_dir(folder).map_err(BrokerError::state(folder, "read"))?.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "idx") {
            continue;
        }
        let file = path.with_extension("pack");
        let file = File::open(&file).map_err(BrokerError::state(file, "read"))?;
        let objects = pack::read(&read(&path)?, &file)
            .map_err(|_| BrokerError::GitUnexpected { command: "index-pack" })?;
        inventory.objects.extend(objects.into_iter().take(came));
    }
    inventory.ids = inventory.objects.iter().map(|object| object.id).collect();
    Ok(inventory)
}

impl Checks<'_> {
    /// Lists what came. No object may be larger, once inflated, than a file of the run: a small pack can hold huge ones.
    pub(super) async fn inventory(&self) -> Result<Inventory, Refusal> {
        let came = usize::try_from(self.held.objects).unwrap_or(usize::MAX);
        if came == 0 {
            return Ok(Inventory::default());
        }
        let folder = self.held.path.join("pack");
        let inventory = tokio::task::spawn_blocking(move || list(&folder, came))
            .await
            .map_err(|_| self.failed(&BrokerError::GitUnexpected { command: "index-pack" }))?
            .map_err(|error| self.failed(&error))?;
        let limits = self.shared.warrant.warrant().limits;
        let (mut all, mut trees) = (0_u64, 0_u64);
        for object in &inventory.objects {
            all = all.saturating_add(object.size);
            if object.kind == ObjectKind::Tree {
                trees = trees.saturating_add(object.size);
            }
            if object.size > limits.file_bytes || all > limits.disk_bytes {
                let why = format!(
                    "an object has more than {} bytes, or all of them more than {}",
                    limits.file_bytes, limits.disk_bytes
                );
                return Err(self.refusal(Rule::PushTooLarge, why));
            }
            if object.depth > LONGEST_CHAIN {
                let why = format!("deltas are chained more than {LONGEST_CHAIN} times");
                return Err(self.refusal(Rule::PushObjectCheck, why));
            }
            if object.kind == ObjectKind::Tree && (object.size > LARGEST_TREE || trees > ALL_TREES) {
                let why = format!(
                    "a folder's list has more than {LARGEST_TREE} bytes, or all more than {ALL_TREES}"
                );
                return Err(self.refusal(Rule::PushTooManyFiles, why));
            }
            if matches!(object.kind, ObjectKind::Commit | ObjectKind::Tag) && object.size > LONGEST_COMMIT {
                let why = format!("a commit or tag has more than {LONGEST_COMMIT} bytes");
                return Err(self.refusal(Rule::PushTooLarge, why));
            }
        }
        if all > self.shared.config.bounds.scan_bytes {
            return Err(self.too_much_to_scan());
        }
        Ok(inventory)
    }

    pub(super) fn too_much_to_scan(&self) -> Refusal {
        let most = self.shared.config.bounds.scan_bytes;
        self.refusal(
            Rule::LimitReached,
            format!("the push has more than the {most} bytes that are looked through for secrets"),
        )
    }

    /// Looks at each object that came, once.
    pub(super) async fn arrivals(&self, inventory: &Inventory) -> Result<Arrivals, Refusal> {
        let warrant = self.shared.warrant.warrant();
        let reader = Arrivals::new(
            &inventory.objects,
            warrant.role.git_identity(),
            warrant.run.to_string(),
            &self.shared.config.redactor,
        );
        let requests: Vec<Vec<u8>> =
            inventory.objects.iter().map(|object| object.id.to_string().into_bytes()).collect();
        let time = self.shared.config.bounds.check_time;
        let arrivals = contents::read(self.command("cat-file"), &requests, time, reader)
            .await
            .map_err(|error| self.failed(&error))?;
        if arrivals.broken {
            return Err(self.refusal(Rule::PushObjectCheck, "a tree of the push can't be read"));
        }
        self.shapes(&arrivals)?;
        Ok(arrivals)
    }

    /// Refuses trees that unfold into more than anybody can check out.
    fn shapes(&self, arrivals: &Arrivals) -> Result<(), Refusal> {
        match unfold(&arrivals.shapes) {
            Some((entries, depth)) if entries <= UNFOLDED && depth <= DEEPEST => Ok(()),
            Some((_, depth)) if depth > DEEPEST => Err(self.refusal(
                Rule::PathDangerous,
                format!("folders lie more than {DEEPEST} deep within each other"),
            )),
            _ => Err(self.refusal(
                Rule::PushTooManyFiles,
                format!("the trees of the push unfold into more than {UNFOLDED} entries"),
            )),
        }
    }
}

/// The most entries that a tree unfolds into and the deepest nesting, counted by remembering each tree's own; `None` when
/// a tree is within itself.
fn unfold(shapes: &[(u64, Vec<u32>)]) -> Option<(u64, u64)> {
    #[derive(Clone, Copy)]
    enum Count {
        New,
        Open,
        Done(u64, u64),
    }
    let mut counts = vec![Count::New; shapes.len()];
    let (mut most, mut deepest) = (0, 0);
    for first in 0..shapes.len() {
        let mut stack = vec![(first, 0_usize)];
        while let Some((tree, next)) = stack.pop() {
            let (others, within) = shapes.get(tree)?;
            let count = counts.get_mut(tree)?;
            match (*count, next) {
                (Count::Done(..), 0) => continue,
                (Count::Open, 0) => return None,
                _ => *count = Count::Open,
            }
            if let Some(child) = within.get(next) {
                stack.push((tree, next + 1));
                let child = usize::try_from(*child).ok()?;
                stack.push((child, 0));
                continue;
            }
            let (mut entries, mut depth) = (*others, 0);
            for child in within {
                let Count::Done(more, deep) = *counts.get(usize::try_from(*child).ok()?)? else {
                    return None;
                };
                entries = entries.saturating_add(more).saturating_add(1);
                depth = depth.max(deep);
            }
            most = most.max(entries);
            deepest = deepest.max(depth + 1);
            *counts.get_mut(tree)? = Count::Done(entries, depth + 1);
        }
    }
    Some((most, deepest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bombs_and_depths_are_counted_and_circles_are_found() {
        assert_eq!(unfold(&[]), Some((0, 0)));
        assert_eq!(unfold(&[(3, Vec::new())]), Some((3, 1)));
        // Ten levels of ten times the next.
        let mut bomb: Vec<(u64, Vec<u32>)> = (1..10).map(|next| (0, vec![next; 10])).collect();
        bomb.push((10, Vec::new()));
        let (entries, depth) = unfold(&bomb).unwrap();
        assert!(entries > 10_000_000_000 && depth == 10, "{entries} {depth}");
        let deep: Vec<(u64, Vec<u32>)> =
            (1..50_000).map(|next| (0, vec![next])).chain([(1, Vec::new())]).collect();
        assert_eq!(unfold(&deep), Some((50_000, 50_000)));
        assert_eq!(unfold(&[(0, vec![1]), (0, vec![0])]), None);
        assert_eq!(unfold(&[(1, vec![1, 1]), (2, Vec::new())]), Some((7, 2)));
    }
}
