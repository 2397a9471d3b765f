//! Finds the places where something may begin: one look per byte, however many beginnings there are.

use super::byte::is_word_start;
use super::rule::Rule;

/// Bytes that a look takes in. No anchor is shorter.
pub(crate) const LOOK: usize = 3;
const SLOT_BITS: u32 = 14;

/// What an anchor begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A token with a known prefix.
    Rule(&'static Rule),
    /// A spelling of a registered value.
    Value(usize),
    /// A private key in armour.
    Armour,
    /// An address that may hold a password.
    Address,
    /// A piece of streamed text.
    Frame,
}

struct Anchor {
    text: Vec<u8>,
    kind: Kind,
    /// Where in the text the three bytes stand that are looked for: those that ordinary text has least.
    offset: usize,
}

/// All anchors, found by the hash of three of their bytes.
pub(crate) struct Index {
    /// In order, so that what begins with some bytes is found by halving.
    anchors: Vec<Anchor>,
    /// Whether a slot has a list: small, so that it stays in the nearest cache.
    taken: Box<[u8; 1 << SLOT_BITS]>,
    /// One more than the place of a list in `lists`.
    slots: Box<[u16]>,
    lists: Vec<Vec<u32>>,
    longest: usize,
    /// Where in `anchors` those begin that have this first byte, and where they end.
    by_first: Box<[(usize, usize); 256]>,
}

#[inline]
const fn slot(look: u32) -> usize {
    // The highest byte is a neighbour's.
    ((look << 8).wrapping_mul(0x9e37_79b1) >> (32 - SLOT_BITS)) as usize
}

impl Index {
    pub(crate) fn new(anchors: impl IntoIterator<Item = (Vec<u8>, Kind)>) -> Self {
        let mut anchors: Vec<Anchor> =
            anchors.into_iter().map(|(text, kind)| Anchor { offset: rarest(&text), text, kind }).collect();
        anchors.sort_by(|a, b| a.text.cmp(&b.text));
        let mut slots = vec![0_u16; 1 << SLOT_BITS].into_boxed_slice();
        let mut taken = Box::new([0_u8; 1 << SLOT_BITS]);
        let mut lists: Vec<Vec<u32>> = Vec::new();
        let mut longest = 0;
        for (place, anchor) in (0_u32..).zip(&anchors) {
            longest = longest.max(anchor.text.len());
            let Some([a, b, c]) = anchor.text.get(anchor.offset..).and_then(<[u8]>::first_chunk::<LOOK>)
            else {
                continue;
            };
            let look = u32::from(*a) | u32::from(*b) << 8 | u32::from(*c) << 16;
            if let Some(flag) = taken.get_mut(slot(look)) {
                *flag = 1;
            }
            let Some(list) = slots.get_mut(slot(look)) else { continue };
            if *list == 0 {
                lists.push(Vec::new());
                // There are fewer slots than this can count.
                *list = u16::try_from(lists.len()).unwrap_or(0);
            }
            if let Some(list) = usize::from(*list).checked_sub(1).and_then(|index| lists.get_mut(index)) {
                list.push(place);
            }
        }
        let mut by_first = Box::new([(0, 0); 256]);
        for (byte, range) in (0..=u8::MAX).zip(by_first.iter_mut()) {
            let begin = anchors.partition_point(|anchor| anchor.text.first() < Some(&byte));
            *range = (begin, anchors.partition_point(|anchor| anchor.text.first() <= Some(&byte)));
        }
        Self { anchors, taken, slots, lists, longest, by_first }
    }

    /// Calls `found` for every anchor that begins at `from` or later, roughly in order of place.
    #[inline]
    pub(crate) fn each(&self, bytes: &[u8], from: usize, mut found: impl FnMut(usize, Kind)) {
        // Six looks at a time, with one branch for all of them.
        const AT_ONCE: usize = 6;
        let is_taken = |look: u32| self.taken.get(slot(look)).copied().unwrap_or(0);
        let mut index = from;
        while let Some(chunk) = bytes.get(index..).and_then(<[u8]>::first_chunk::<8>) {
            let looks = u64::from_le_bytes(*chunk);
            let look = |number: usize| (looks >> (8 * number)) as u32;
            let mut taken = (0..AT_ONCE).fold(0, |all, number| all | is_taken(look(number)) << number);
            while taken != 0 {
                let number = taken.trailing_zeros() as usize;
                self.check(bytes, from, index + number, slot(look(number)), &mut found);
                taken &= taken - 1;
            }
            index += AT_ONCE;
        }
        for (number, window) in bytes.get(index..).unwrap_or_default().windows(LOOK).enumerate() {
            let look = window.iter().rev().fold(0, |look, byte| look << 8 | u32::from(*byte));
            if is_taken(look) != 0 {
                self.check(bytes, from, index + number, slot(look), &mut found);
            }
        }
    }

    #[inline(never)]
    fn check(
        &self,
        bytes: &[u8],
        from: usize,
        look: usize,
        slot: usize,
        found: &mut impl FnMut(usize, Kind),
    ) {
        let list = self.slots.get(slot).and_then(|list| usize::from(*list).checked_sub(1));
        let Some(list) = list.and_then(|index| self.lists.get(index)) else { return };
        for anchor in list.iter().filter_map(|index| self.anchors.get(usize::try_from(*index).ok()?)) {
            let Some(place) = look.checked_sub(anchor.offset).filter(|place| *place >= from) else {
                continue;
            };
            if bytes.get(place..).is_some_and(|rest| rest.starts_with(&anchor.text)) {
                found(place, anchor.kind);
            }
        }
    }

    /// Where the bytes before `end` may be the beginning of an anchor that isn't all there yet.
    pub(crate) fn beginning(&self, bytes: &[u8], end: usize) -> Option<usize> {
        (end.saturating_sub(self.longest.saturating_sub(1))..end).find(|start| {
            let tail = bytes.get(*start..end).unwrap_or_default();
            let range = tail.first().and_then(|first| self.by_first.get(usize::from(*first)));
            // Most bytes begin none.
            let Some(near) = range.and_then(|(begin, end)| self.anchors.get(*begin..*end)) else {
                return false;
            };
            let next = near.partition_point(|anchor| anchor.text.as_slice() < tail);
            near.get(next..)
                .unwrap_or_default()
                .iter()
                .take_while(|anchor| anchor.text.starts_with(tail))
                .any(|anchor| {
                    let may_begin = match anchor.kind {
                        Kind::Rule(rule) => rule.before == 0 || is_word_start(bytes, *start, rule.before),
                        _ => true,
                    };
                    anchor.text.len() > tail.len() && may_begin
                })
        })
    }
}

/// Where the three bytes begin that ordinary text has least: the fewer small letters and digits the better.
fn rarest(text: &[u8]) -> usize {
    let rank = |window: &[u8]| {
        window.iter().filter(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()).count()
    };
    text.windows(LOOK).enumerate().min_by_key(|(_, window)| rank(window)).map_or(0, |(index, _)| index)
}
