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
}

/// All anchors, found by the hash of their first three bytes.
pub(crate) struct Index {
    /// In order, so that what begins with some bytes is found by halving.
    anchors: Vec<Anchor>,
    /// 0, or one more than the place of a list in `lists`.
    slots: Box<[u16]>,
    lists: Vec<Vec<u32>>,
    longest: usize,
}

#[inline]
const fn slot(look: u32) -> usize {
    (look.wrapping_mul(0x9e37_79b1) >> (32 - SLOT_BITS)) as usize
}

impl Index {
    pub(crate) fn new(anchors: impl IntoIterator<Item = (Vec<u8>, Kind)>) -> Self {
        let mut anchors: Vec<Anchor> =
            anchors.into_iter().map(|(text, kind)| Anchor { text, kind }).collect();
        anchors.sort_by(|a, b| a.text.cmp(&b.text));
        let mut slots = vec![0_u16; 1 << SLOT_BITS].into_boxed_slice();
        let mut lists: Vec<Vec<u32>> = Vec::new();
        let mut longest = 0;
        for (place, anchor) in (0_u32..).zip(&anchors) {
            longest = longest.max(anchor.text.len());
            let Some([a, b, c]) = anchor.text.first_chunk::<LOOK>() else { continue };
            let look = u32::from(*a) | u32::from(*b) << 8 | u32::from(*c) << 16;
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
        Self { anchors, slots, lists, longest }
    }

    /// Calls `found` for every anchor that begins at `from` or later, in order of place.
    #[inline]
    pub(crate) fn each(&self, bytes: &[u8], from: usize, mut found: impl FnMut(usize, Kind)) {
        let rest = bytes.get(from..).unwrap_or_default();
        let Some([a, b]) = rest.first_chunk::<2>() else { return };
        let mut look = u32::from(*a) << 8 | u32::from(*b) << 16;
        for (place, byte) in rest.iter().skip(2).enumerate() {
            look = look >> 8 | u32::from(*byte) << 16;
            let list = self.slots.get(slot(look)).copied().unwrap_or(0);
            if list != 0 {
                self.check(bytes, from + place, list, &mut found);
            }
        }
    }

    #[inline(never)]
    fn check(&self, bytes: &[u8], place: usize, list: u16, found: &mut impl FnMut(usize, Kind)) {
        let Some(list) = usize::from(list).checked_sub(1).and_then(|index| self.lists.get(index)) else {
            return;
        };
        let rest = bytes.get(place..).unwrap_or_default();
        for anchor in list.iter().filter_map(|index| self.anchors.get(usize::try_from(*index).ok()?)) {
            if rest.starts_with(&anchor.text) {
                found(place, anchor.kind);
            }
        }
    }

    /// Where the bytes before `end` may be the beginning of an anchor that isn't all there yet.
    pub(crate) fn beginning(&self, bytes: &[u8], end: usize) -> Option<usize> {
        (end.saturating_sub(self.longest.saturating_sub(1))..end).find(|start| {
            let tail = bytes.get(*start..end).unwrap_or_default();
            let next = self.anchors.partition_point(|anchor| anchor.text.as_slice() < tail);
            self.anchors
                .get(next..)
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
