//! What a pack holds, read from its index and the headers of its entries (gitformat-pack(5)), without inflating an
//! object.
//!
//! Promises: kind, inflated size and length of the delta chain of every object are known before anything is asked to
//! inflate one; time and memory grow with the number of objects alone.

use flate2::{Decompress, FlushDecompress, Status};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The name of an object: SHA-1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 20]);

impl ObjectId {
    /// The id of these 20 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The id of 40 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0_u8; 20];
        if text.len() != 40 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A commit.
    Commit,
    /// A tree.
    Tree,
    /// The content of a file or the target of a link.
    Blob,
    /// An annotated tag.
    Tag,
}

/// One object of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackObject {
    /// Its name.
    pub id: ObjectId,
    /// Where its entry begins in the pack.
    pub offset: u64,
    /// What it is.
    pub kind: ObjectKind,
    /// Its size once inflated, in bytes.
    pub size: u64,
    /// How many deltas lie between it and a whole object; 0 for a whole one.
    pub depth: u32,
}

/// Why a pack can't be read.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The index or an entry has another form.
    #[error("the pack's index does not fit the pack")]
    Form,
    /// The files can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An entry's header: what the entry says about itself.
enum Entry {
    Whole(ObjectKind, u64),
    /// A delta on the entry of this position, with its result's size.
    Delta(usize, u64),
}

/// Bytes of an entry that are read at first: the longest header and the beginning of its data.
const HEAD: usize = 128;
/// Pieces of compressed data that are read for the sizes which a delta begins with.
const PIECES: usize = 64;

/// The objects of a pack in the order of their entries.
///
/// # Errors
/// [`PackError`].
pub fn read(index: &[u8], pack: &File) -> Result<Vec<PackObject>, PackError> {
    let mut places = entries(index).ok_or(PackError::Form)?;
    places.sort_unstable_by_key(|(offset, _)| *offset);
    let mut by_id: Vec<(ObjectId, usize)> =
        places.iter().enumerate().map(|(position, (_, id))| (*id, position)).collect();
    by_id.sort_unstable();
    let heads = places
        .iter()
        .map(|(offset, _)| entry(pack, *offset, &places, &by_id))
        .collect::<Result<Vec<_>, _>>()?;
    let mut known: Vec<Option<(ObjectKind, u32)>> = vec![None; heads.len()];
    for first in 0..heads.len() {
        resolve(first, &heads, &mut known)?;
    }
    let objects = places.iter().zip(&heads).zip(known);
    objects
        .map(|(((offset, id), head), known)| {
            let (kind, depth) = known.ok_or(PackError::Form)?;
            let (Entry::Whole(_, size) | Entry::Delta(_, size)) = head;
            Ok(PackObject { id: *id, offset: *offset, kind, size: *size, depth })
        })
        .collect()
}

/// Follows the deltas of an entry to its whole object, by steps instead of by calls: a chain may be long.
fn resolve(first: usize, heads: &[Entry], known: &mut [Option<(ObjectKind, u32)>]) -> Result<(), PackError> {
    let mut chain = Vec::new();
    let mut at = first;
    let (kind, mut depth) = loop {
        if let Some(Some(found)) = known.get(at) {
            break *found;
        }
        match heads.get(at).ok_or(PackError::Form)? {
            Entry::Whole(kind, _) => {
                if let Some(place) = known.get_mut(at) {
                    *place = Some((*kind, 0));
                }
                break (*kind, 0);
            }
            Entry::Delta(base, _) => {
                chain.push(at);
                at = *base;
                if chain.len() > heads.len() {
                    return Err(PackError::Form);
                }
            }
        }
    };
    for position in chain.into_iter().rev() {
        depth += 1;
        if let Some(place) = known.get_mut(position) {
            *place = Some((kind, depth));
        }
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Offsets and ids of an index of version 2.
fn entries(index: &[u8]) -> Option<Vec<(u64, ObjectId)>> {
    const IDS: usize = 8 + 256 * 4;
    if !index.starts_with(b"\xfftOc\0\0\0\x02") {
        return None;
    }
    let count = usize::try_from(number(index, IDS - 4)?).ok()?;
    let offsets = IDS.checked_add(count.checked_mul(24)?)?;
    let large = offsets.checked_add(count.checked_mul(4)?)?;
    if index.len() < large {
        return None;
    }
    (0..count)
        .map(|position| {
            let id = IDS + position * 20;
            let id = ObjectId::from_bytes(index.get(id..id + 20)?)?;
            let offset = number(index, offsets + position * 4)?;
            let offset = if offset & 0x8000_0000 == 0 {
                u64::from(offset)
            } else {
                let place = large + usize::try_from(offset & 0x7fff_ffff).ok()? * 8;
                u64::from_be_bytes(*index.get(place..)?.first_chunk()?)
            };
            Some((offset, id))
        })
        .collect()
}

fn entry(
    pack: &File,
    offset: u64,
    places: &[(u64, ObjectId)],
    by_id: &[(ObjectId, usize)],
) -> Result<Entry, PackError> {
    let mut head = [0_u8; HEAD];
    let length = read_some(pack, &mut head, offset)?;
    let mut bytes = head.get(..length).unwrap_or_default().iter().copied();
    let mut used = 1_u64;
    let first = bytes.next().ok_or(PackError::Form)?;
    let (mut size, mut shift, mut byte) = (u64::from(first & 15), 4, first);
    while byte & 0x80 != 0 {
        byte = bytes.next().filter(|_| shift < 60).ok_or(PackError::Form)?;
        used += 1;
        size |= u64::from(byte & 0x7f) << shift;
        shift += 7;
    }
    let base = match first >> 4 & 7 {
        1 => return Ok(Entry::Whole(ObjectKind::Commit, size)),
        2 => return Ok(Entry::Whole(ObjectKind::Tree, size)),
        3 => return Ok(Entry::Whole(ObjectKind::Blob, size)),
        4 => return Ok(Entry::Whole(ObjectKind::Tag, size)),
        6 => {
            let mut byte = bytes.next().ok_or(PackError::Form)?;
            used += 1;
            let mut back = u64::from(byte & 0x7f);
            while byte & 0x80 != 0 {
                byte = bytes.next().ok_or(PackError::Form)?;
                used += 1;
                back = back.checked_add(1).and_then(|n| n.checked_mul(128)).ok_or(PackError::Form)?;
                back |= u64::from(byte & 0x7f);
            }
            let base = offset.checked_sub(back).ok_or(PackError::Form)?;
            places.binary_search_by_key(&base, |(offset, _)| *offset).map_err(|_| PackError::Form)?
        }
        7 => {
            let id: Vec<u8> = bytes.by_ref().take(20).collect();
            used += 20;
            let id = ObjectId::from_bytes(&id).ok_or(PackError::Form)?;
            let found = by_id.binary_search_by_key(&id, |(id, _)| *id).map_err(|_| PackError::Form)?;
            by_id.get(found).map(|(_, position)| *position).ok_or(PackError::Form)?
        }
        _ => return Err(PackError::Form),
    };
    Ok(Entry::Delta(base, result_size(pack, offset + used)?))
}

/// The size of what a delta makes: the second number of its data.
fn result_size(pack: &File, mut offset: u64) -> Result<u64, PackError> {
    let mut inflate = Decompress::new(true);
    let mut data = [0_u8; 20];
    let mut piece = [0_u8; HEAD];
    for _ in 0..PIECES {
        let length = read_some(pack, &mut piece, offset)?;
        let (read, written) = (inflate.total_in(), inflate.total_out());
        let filled = usize::try_from(written).unwrap_or(data.len());
        let status = inflate
            .decompress(
                piece.get(..length).unwrap_or_default(),
                data.get_mut(filled..).unwrap_or_default(),
                FlushDecompress::None,
            )
            .map_err(|_| PackError::Form)?;
        offset += inflate.total_in() - read;
        let filled = usize::try_from(inflate.total_out()).unwrap_or(data.len());
        if let Some(size) = second_number(data.get(..filled).unwrap_or_default()) {
            return Ok(size);
        }
        let stuck = inflate.total_in() == read && inflate.total_out() == written;
        if status == Status::StreamEnd || filled >= data.len() || stuck {
            break;
        }
    }
    Err(PackError::Form)
}

fn second_number(data: &[u8]) -> Option<u64> {
    let begin = data.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let rest = data.get(begin..)?;
    let end = rest.iter().position(|byte| byte & 0x80 == 0)?;
    let digits = rest.get(..=end)?;
    if digits.len() > 9 {
        return Some(u64::MAX);
    }
    Some(digits.iter().rev().fold(0, |size, byte| size << 7 | u64::from(byte & 0x7f)))
}

fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_forty_lower_case_digits() {
        let text = b"0123456789abcdef0123456789abcdef01234567";
        assert_eq!(ObjectId::from_hex(text).unwrap().to_string().as_bytes(), text);
        for bad in [&text[..39], b"0123456789ABCDEF0123456789abcdef01234567", b""] {
            assert_eq!(ObjectId::from_hex(bad), None);
        }
    }

    #[test]
    fn numbers_of_a_delta_are_read_and_huge_ones_stay_huge() {
        assert_eq!(second_number(&[0x80, 0x01, 0xff, 0x7f]), Some(16_383));
        assert_eq!(second_number(&[0x01, 0x80]), None);
        assert_eq!(second_number(&[0x01, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn any_index_and_pack_are_survived(index in prop::collection::vec(any::<u8>(), 0..300), pack in prop::collection::vec(any::<u8>(), 0..300), offset in 0_u32..300) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("p");
            std::fs::write(&path, &pack).unwrap();
            let file = File::open(&path).unwrap();
            let _ = read(&index, &file);
            // An index of the right form, with two entries anywhere.
            let mut fine = b"\xfftOc\0\0\0\x02".to_vec();
            for _ in 0..256 {
                fine.extend_from_slice(&2_u32.to_be_bytes());
            }
            fine.extend_from_slice(&[1; 20]);
            fine.extend_from_slice(&[2; 20]);
            fine.extend_from_slice(&[0; 8]);
            fine.extend_from_slice(&offset.to_be_bytes());
            fine.extend_from_slice(&12_u32.to_be_bytes());
            let _ = read(&fine, &file);
        }
    }
}
