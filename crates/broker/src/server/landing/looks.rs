//! The readers of a push's objects: what they look for, and what they find.
//!
//! Promise: what is kept of an object is bounded, and of a secret nothing is kept but its rule, its place and a digest.

use super::contents::Reader;
use crate::pack::{ObjectId, ObjectKind, PackObject};
use crate::parse::{commit, names, tree};
use std::collections::{HashMap, HashSet};
use tipstaff_model::Rule;
use tipstaff_model::warrant::GitIdentity;
use tipstaff_seal::{Finding, RedactStream, Redactor, StreamDigest};

/// Faults of one kind that are kept.
const FAULTS: usize = 1000;
/// The rule of a value that the broker holds.
pub(super) const HELD: &str = "known-value";

/// What looks like a secret in one object.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets {
    pub(super) findings: Vec<Finding>,
    /// More than could be listed.
    pub(super) more: bool,
    /// A value that the broker holds is among them.
    pub(super) held: bool,
}

/// Looks through one object after the other for secrets.
struct Search {
    redactor: Redactor,
    stream: Option<RedactStream>,
    /// What comes out of the stream, and is of no use here.
    out: Vec<u8>,
}

impl Search {
    fn new(redactor: &Redactor) -> Self {
        Self { redactor: redactor.clone(), stream: None, out: Vec::new() }
    }

    fn begin(&mut self) {
        self.stream = Some(self.redactor.stream());
    }

    fn piece(&mut self, bytes: &[u8]) {
        if let Some(stream) = &mut self.stream {
            stream.push(bytes, &mut self.out);
            self.out.clear();
        }
    }

    fn end(&mut self) -> Option<Secrets> {
        let mut stream = self.stream.take()?;
        stream.finish(&mut self.out);
        self.out.clear();
        let counts = stream.counts();
        let all = counts.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        if all == 0 {
            return None;
        }
        let findings = stream.findings().to_vec();
        let more = u64::try_from(findings.len()).is_ok_and(|listed| listed < all);
        Some(Secrets { held: counts.contains_key(HELD), findings, more })
    }
}

/// What a text holds that looks like a secret: the rule.
pub(super) fn secret_in(redactor: &Redactor, text: &[u8]) -> Option<&'static str> {
    let mut search = Search::new(redactor);
    search.begin();
    search.piece(text);
    search.end().and_then(|found| found.findings.first().map(|finding| finding.rule))
}

/// How a rule is told to a person.
pub(super) fn told(rule: &str) -> String {
    match rule {
        HELD => "a value that the broker holds".to_owned(),
        other => format!("what looks like a secret ({other})"),
    }
}

/// Looks at every object that a push brought.
pub(super) struct Arrivals {
    identity: GitIdentity,
    run: String,
    search: Search,
    trees: HashMap<ObjectId, u32>,
    /// The object under way, when it is gathered: commits and trees, whose sizes were checked before.
    gathered: Option<(ObjectId, ObjectKind, Vec<u8>)>,
    blob: Option<ObjectId>,
    /// Commits that are not the run's.
    pub(super) commits: Vec<(ObjectId, Rule, String)>,
    /// Names that are dangerous.
    pub(super) names: Vec<(Vec<u8>, &'static str)>,
    /// A folder in which a link or a folder has the name of another entry, to some file system.
    pub(super) collides: bool,
    /// A tree can't be read.
    pub(super) broken: bool,
    /// Blobs with secrets.
    pub(super) secrets: HashMap<ObjectId, Secrets>,
    /// Of each tree: how many entries are no trees of this push, and which are.
    pub(super) shapes: Vec<(u64, Vec<u32>)>,
}

impl Arrivals {
    pub(super) fn new(
        objects: &[PackObject],
        identity: GitIdentity,
        run: String,
        redactor: &Redactor,
    ) -> Self {
        let trees: HashMap<ObjectId, u32> = objects
            .iter()
            .filter(|object| object.kind == ObjectKind::Tree)
            .zip(0_u32..)
            .map(|(object, number)| (object.id, number))
            .collect();
        let shapes = vec![(0, Vec::new()); trees.len()];
        Self {
            identity,
            run,
            search: Search::new(redactor),
            trees,
            gathered: None,
            blob: None,
            commits: Vec::new(),
            names: Vec::new(),
            collides: false,
            broken: false,
            secrets: HashMap::new(),
            shapes,
        }
    }

    fn tree(&mut self, id: ObjectId, content: &[u8]) {
        let mut others = 0_u64;
        let mut within = Vec::new();
        let mut folded: Vec<(Vec<u8>, bool)> = Vec::new();
        let mut has_special = false;
        for entry in tree::entries(content) {
            let Some(entry) = entry else {
                self.broken = true;
                return;
            };
            let is_file = entry.mode & 0o170_000 == 0o100_000;
            has_special |= !is_file;
            if let Some(fault) = names::fault(entry.name, entry.mode == crate::parse::changes::MODE_SYMLINK)
                && self.names.len() < FAULTS
            {
                self.names.push((entry.name.to_vec(), fault));
            }
            folded.push((names::folded(entry.name), !is_file));
            match self.trees.get(&entry.id).filter(|_| entry.is_tree()) {
                Some(number) => within.push(*number),
                None => others += 1,
            }
        }
        if has_special {
            folded.sort_unstable();
            self.collides |= folded
                .chunk_by(|(left, _), (right, _)| left == right)
                .any(|group| group.len() > 1 && group.iter().any(|(_, special)| *special));
        }
        if let Some(shape) =
            self.trees.get(&id).and_then(|number| self.shapes.get_mut(usize::try_from(*number).ok()?))
        {
            *shape = (others, within);
        }
    }

    fn commit(&mut self, id: ObjectId, content: &[u8]) {
        if self.commits.len() >= FAULTS {
            return;
        }
        if let Some(why) = commit::fault(content, &self.identity, &self.run) {
            self.commits.push((id, Rule::CommitIdentity, why));
        }
        if let Some(rule) = secret_in(&self.search.redactor, content) {
            let why = format!("its message or author holds {}", told(rule));
            self.commits.push((id, Rule::SecretInDiff, why));
        }
    }
}

impl Reader for Arrivals {
    fn begin(&mut self, object: Option<(ObjectId, ObjectKind, u64)>) {
        match object {
            Some((id, ObjectKind::Blob, _)) => {
                self.search.begin();
                self.blob = Some(id);
            }
            Some((id, kind, _)) => self.gathered = Some((id, kind, Vec::new())),
            None => self.broken = true,
        }
    }

    fn piece(&mut self, bytes: &[u8]) {
        match &mut self.gathered {
            Some((.., content)) => content.extend_from_slice(bytes),
            None => self.search.piece(bytes),
        }
    }

    fn end(&mut self) {
        match self.gathered.take() {
            Some((id, ObjectKind::Tree, content)) => self.tree(id, &content),
            Some((id, ObjectKind::Commit, content)) => self.commit(id, &content),
            Some(_) => {}
            None => {
                if let (Some(id), Some(found)) = (self.blob.take(), self.search.end()) {
                    self.secrets.insert(id, found);
                }
            }
        }
    }

    fn has_enough(&self) -> bool {
        self.broken
    }
}

/// Looks through objects that were there before, and reads the targets of links.
pub(super) struct Others {
    search: Search,
    wanted: HashSet<ObjectId>,
    bytes: u64,
    most: u64,
    under_way: Option<ObjectId>,
    is_link: bool,
    /// More bytes than may be looked through.
    pub(super) too_much: bool,
    /// What each request named.
    pub(super) found: Vec<Option<ObjectId>>,
    /// Targets of links; one that is too long to be a target is empty.
    pub(super) links: HashMap<ObjectId, Vec<u8>>,
    /// Blobs with secrets.
    pub(super) secrets: HashMap<ObjectId, Secrets>,
}

impl Others {
    /// `links` are the objects whose content is kept; `most` bytes are read.
    pub(super) fn new(redactor: &Redactor, links: HashSet<ObjectId>, most: u64) -> Self {
        Self {
            search: Search::new(redactor),
            wanted: links,
            bytes: 0,
            most,
            under_way: None,
            is_link: false,
            too_much: false,
            found: Vec::new(),
            links: HashMap::new(),
            secrets: HashMap::new(),
        }
    }
}

impl Reader for Others {
    fn begin(&mut self, object: Option<(ObjectId, ObjectKind, u64)>) {
        self.under_way = object.map(|(id, ..)| id);
        self.found.push(self.under_way);
        let Some((id, _, size)) = object else { return };
        self.search.begin();
        self.bytes = self.bytes.saturating_add(size);
        self.too_much |= self.bytes > self.most;
        let fits = usize::try_from(size).is_ok_and(|size| size <= crate::parse::link::LONGEST_TARGET);
        let wanted = self.wanted.contains(&id);
        self.is_link = wanted && fits;
        if wanted {
            self.links.insert(id, Vec::new());
        }
    }

    fn piece(&mut self, bytes: &[u8]) {
        self.search.piece(bytes);
        if self.is_link
            && let Some(target) = self.under_way.and_then(|id| self.links.get_mut(&id))
        {
            target.extend_from_slice(bytes);
        }
    }

    fn end(&mut self) {
        if let (Some(id), Some(found)) = (self.under_way.take(), self.search.end()) {
            self.secrets.insert(id, found);
        }
    }

    fn has_enough(&self) -> bool {
        self.too_much
    }
}

/// Where a secret stands, and which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) rule: &'static str,
    /// From 1.
    pub(super) line: u64,
    /// SHA-256 of the value.
    pub(super) digest: String,
}

/// Reads objects again whose secrets are known, and notes lines and digests.
#[derive(Default)]
pub(super) struct Locator {
    wanted: HashMap<ObjectId, Vec<Finding>>,
    under_way: Option<ObjectId>,
    findings: std::vec::IntoIter<Finding>,
    open: Option<(Finding, u64, StreamDigest)>,
    position: u64,
    line: u64,
    pub(super) located: HashMap<ObjectId, Vec<Located>>,
}

impl Locator {
    pub(super) fn new(wanted: HashMap<ObjectId, Vec<Finding>>) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// What is asked for.
    pub(super) fn requests(&self) -> Vec<Vec<u8>> {
        self.wanted.keys().map(|id| id.to_string().into_bytes()).collect()
    }
}

impl Reader for Locator {
    fn begin(&mut self, object: Option<(ObjectId, ObjectKind, u64)>) {
        self.under_way = object.map(|(id, ..)| id);
        let mut findings = self.under_way.and_then(|id| self.wanted.remove(&id)).unwrap_or_default();
        findings.sort_by_key(|finding| finding.offset);
        self.findings = findings.into_iter();
        (self.open, self.position, self.line) = (None, 0, 1);
    }

    fn piece(&mut self, bytes: &[u8]) {
        let begin = self.position;
        let end = begin + u64::try_from(bytes.len()).unwrap_or(0);
        let place = |offset: u64| {
            usize::try_from(offset.saturating_sub(begin)).unwrap_or(usize::MAX).min(bytes.len())
        };
        let mut counted = 0;
        loop {
            let (finding, line, mut digest) = match self.open.take() {
                Some(open) => open,
                None => match self.findings.as_slice().first() {
                    Some(next) if next.offset < end => {
                        let Some(next) = self.findings.next() else { break };
                        let from = place(next.offset).max(counted);
                        self.line += lines(bytes.get(counted..from).unwrap_or_default());
                        counted = from;
                        (next, self.line, StreamDigest::default())
                    }
                    _ => break,
                },
            };
            let stop = finding.offset.saturating_add(finding.length);
            digest.update(bytes.get(place(finding.offset)..place(stop)).unwrap_or_default());
            if stop > end {
                self.open = Some((finding, line, digest));
                break;
            }
            if let Some(id) = self.under_way {
                let located = Located { rule: finding.rule, line, digest: digest.hex() };
                self.located.entry(id).or_default().push(located);
            }
        }
        self.line += lines(bytes.get(counted..).unwrap_or_default());
        self.position = end;
    }

    fn end(&mut self) {}

    fn has_enough(&self) -> bool {
        false
    }
}

fn lines(bytes: &[u8]) -> u64 {
    u64::try_from(memchr::memchr_iter(b'\n', bytes).count()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_secret_is_located_however_its_object_is_cut(
            lead in "[a-z \n]{0,200}", between in "[a-z \n]{1,50}", cut in 1_usize..50,
        ) {
            let token = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
            let text = format!("{lead}\nx = {token}\n{between}\n{token}\n");
            let id = ObjectId::from_bytes(&[1; 20]).unwrap();
            let mut search = Search::new(&Redactor::new());
            search.begin();
            search.piece(text.as_bytes());
            let findings = search.end().unwrap().findings;
            let mut locator = Locator::new(HashMap::from([(id, findings)]));
            locator.begin(Some((id, ObjectKind::Blob, 0)));
            for piece in text.as_bytes().chunks(cut) {
                locator.piece(piece);
            }
            locator.end();
            let found = &locator.located[&id];
            prop_assert_eq!(found.len(), 2);
            let line = |at: usize| u64::try_from(text[..at].matches('\n').count()).unwrap() + 1;
            prop_assert_eq!(found[0].line, line(text.find(token).unwrap()));
            prop_assert_eq!(found[1].line, line(text.rfind(token).unwrap()));
            prop_assert_eq!(&found[0].digest, &found[1].digest);
        }
    }
}
