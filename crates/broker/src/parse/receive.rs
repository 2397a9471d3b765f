//! The front of a `git-receive-pack` request (gitprotocol-pack, "Pushing Data To a Server"): shallow lines, the
//! commands with the client's capabilities, and push options. The pack follows and is not looked at here.

use super::pkt_line::{self, Packet, PacketError};

/// Most commands in one push; more are not read.
pub const MOST_COMMANDS: usize = 4096;

/// Most bytes before the pack.
pub const LARGEST_FRONT: usize = 1024 * 1024;

/// What a client asks for one ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The id that the client believes is there; zeros for "none".
    pub old: String,
    /// The id that shall be there; zeros for "delete it".
    pub new: String,
    /// The ref as the client wrote it: any bytes but zero and line feed.
    pub reference: Vec<u8>,
}

impl Command {
    /// Whether the ref shall go away.
    #[must_use]
    pub fn is_delete(&self) -> bool {
        is_zero(&self.new)
    }

    /// Whether the client believes that the ref is new.
    #[must_use]
    pub fn is_create(&self) -> bool {
        is_zero(&self.old)
    }
}

/// The front of a push.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Front {
    /// Whether the client has a cut-off history.
    pub shallow: bool,
    /// The commands, in order. Empty in the probe that git sends before a large push.
    pub commands: Vec<Command>,
    /// The capabilities, in order.
    pub capabilities: Vec<Vec<u8>>,
    /// How many push options were sent.
    pub options: usize,
    /// Bytes that the front takes; the pack begins there.
    pub length: usize,
}

impl Front {
    /// Whether the client announced this capability.
    #[must_use]
    pub fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|found| found == capability.as_bytes())
    }

    /// Whether a pack follows: git sends none when it only deletes.
    #[must_use]
    pub fn expects_pack(&self) -> bool {
        self.commands.iter().any(|command| !command.is_delete())
    }
}

/// Why bytes are no front of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrontError {
    /// More bytes are needed.
    #[error("the request ends before its command list does")]
    Incomplete,
    /// A packet has an impossible length.
    #[error("a packet of the command list has no valid length")]
    Packet,
    /// A line is neither a command nor a shallow line.
    #[error("a line of the command list is not a command")]
    Line,
    /// A signed push.
    #[error("signed pushes (push certificates) are not read")]
    Certificate,
    /// More than [`MOST_COMMANDS`] commands or [`LARGEST_FRONT`] bytes.
    #[error("the command list is longer than {MOST_COMMANDS} commands or {LARGEST_FRONT} bytes")]
    TooLong,
}

/// Reads the front from the start of `input`.
///
/// # Errors
/// [`FrontError::Incomplete`] when more bytes may complete it, or another reason that is final.
pub fn parse(input: &[u8]) -> Result<Front, FrontError> {
    let mut front = Front::default();
    let mut rest = input;
    loop {
        match packet(input, &mut rest)? {
            Packet::Flush => break,
            Packet::Data(payload) => line(&mut front, payload)?,
            Packet::Delimiter | Packet::ResponseEnd => return Err(FrontError::Line),
        }
    }
    if front.has("push-options") && !front.commands.is_empty() {
        loop {
            match packet(input, &mut rest)? {
                Packet::Flush => break,
                Packet::Data(_) => front.options += 1,
                Packet::Delimiter | Packet::ResponseEnd => return Err(FrontError::Line),
            }
        }
    }
    front.length = input.len() - rest.len();
    Ok(front)
}

fn packet<'a>(input: &[u8], rest: &mut &'a [u8]) -> Result<Packet<'a>, FrontError> {
    let (packet, after) = pkt_line::first(rest).map_err(|error| match error {
        PacketError::Incomplete if input.len() >= LARGEST_FRONT => FrontError::TooLong,
        PacketError::Incomplete => FrontError::Incomplete,
        PacketError::Length => FrontError::Packet,
    })?;
    if input.len() - after.len() > LARGEST_FRONT {
        return Err(FrontError::TooLong);
    }
    *rest = after;
    Ok(packet)
}

fn line(front: &mut Front, payload: &[u8]) -> Result<(), FrontError> {
    let text = payload.strip_suffix(b"\n").unwrap_or(payload);
    if let Some(id) = text.strip_prefix(b"shallow ") {
        if !front.commands.is_empty() || id_text(id).is_none() {
            return Err(FrontError::Line);
        }
        front.shallow = true;
        return Ok(());
    }
    if text.starts_with(b"push-cert") {
        return Err(FrontError::Certificate);
    }
    if front.commands.len() >= MOST_COMMANDS {
        return Err(FrontError::TooLong);
    }
    let (command, capabilities) = match text.iter().position(|b| *b == 0) {
        Some(at) if front.commands.is_empty() => {
            let (command, rest) = text.split_at(at);
            (command, rest.get(1..).unwrap_or_default())
        }
        Some(_) => return Err(FrontError::Line),
        None => (text, &[][..]),
    };
    let mut words = command.splitn(3, |b| *b == b' ');
    let old = words.next().and_then(id_text).ok_or(FrontError::Line)?;
    let new = words.next().and_then(id_text).ok_or(FrontError::Line)?;
    let reference = words.next().filter(|name| !name.is_empty() && !name.contains(&b'\n'));
    let reference = reference.ok_or(FrontError::Line)?.to_vec();
    if old.len() != new.len() {
        return Err(FrontError::Line);
    }
    front.commands.push(Command { old, new, reference });
    front
        .capabilities
        .extend(capabilities.split(|b| *b == b' ').filter(|word| !word.is_empty()).map(<[u8]>::to_vec));
    Ok(())
}

fn id_text(bytes: &[u8]) -> Option<String> {
    let fine = matches!(bytes.len(), 40 | 64) && bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    fine.then(|| String::from_utf8_lossy(bytes).into_owned())
}

fn is_zero(id: &str) -> bool {
    id.bytes().all(|b| b == b'0')
}

/// The start of a pack: version and object count.
///
/// `None` when the twelve bytes are no pack of version 2 or 3.
#[must_use]
pub fn pack_objects(header: &[u8; 12]) -> Option<u32> {
    let [b'P', b'A', b'C', b'K', 0, 0, 0, 2 | 3, a, b, c, d] = *header else { return None };
    Some(u32::from_be_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    fn front(lines: &[&[u8]], tail: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            pkt_line::write(&mut out, line);
        }
        pkt_line::write_flush(&mut out);
        out.extend_from_slice(tail);
        out
    }

    #[test]
    fn a_push_of_one_ref_is_read() {
        let line = format!("{ZERO} {A} refs/heads/x\0 report-status side-band-64k agent=git/2.47");
        let parsed = parse(&front(&[line.as_bytes()], b"PACK")).unwrap();
        assert_eq!(parsed.commands.len(), 1);
        assert!(parsed.commands[0].is_create() && !parsed.commands[0].is_delete());
        assert!(parsed.has("report-status") && !parsed.has("report"));
        assert_eq!(parsed.length, line.len() + 8);
        assert!(parsed.expects_pack());
    }

    #[test]
    fn the_probe_is_an_empty_list() {
        let parsed = parse(b"0000").unwrap();
        assert!(parsed.commands.is_empty() && !parsed.expects_pack());
        assert_eq!(parsed.length, 4);
    }

    #[test]
    fn options_are_counted_and_the_pack_starts_after_them() {
        let line = format!("{ZERO} {A} refs/heads/x\0report-status push-options");
        let mut bytes = front(&[line.as_bytes()], b"");
        assert_eq!(parse(&bytes), Err(FrontError::Incomplete));
        pkt_line::write(&mut bytes, b"ci.skip");
        pkt_line::write_flush(&mut bytes);
        let length = bytes.len();
        bytes.extend_from_slice(b"PACK");
        let parsed = parse(&bytes).unwrap();
        assert_eq!((parsed.options, parsed.length), (1, length));
    }

    #[test]
    fn malformed_lists_are_refused() {
        let ok = format!("{ZERO} {A} refs/heads/x");
        for (bytes, error) in [
            (front(&[b"push-cert\0x"], b""), FrontError::Certificate),
            (front(&[b"hello"], b""), FrontError::Line),
            (front(&[format!("{ZERO} {A} ").as_bytes()], b""), FrontError::Line),
            (front(&[format!("{ZERO} {A}").as_bytes()], b""), FrontError::Line),
            (
                front(&[format!("{ZERO} {} x", A.to_uppercase().replace('1', "A")).as_bytes()], b""),
                FrontError::Line,
            ),
            (front(&[format!("{ZERO} {A}{} x", &A[..24]).as_bytes()], b""), FrontError::Line),
            (front(&[ok.as_bytes(), format!("{ok}\0atomic").as_bytes()], b""), FrontError::Line),
            (front(&[ok.as_bytes(), format!("shallow {A}").as_bytes()], b""), FrontError::Line),
            (front(&[format!("{ok}\nx").as_bytes()], b""), FrontError::Line),
            (b"0001".to_vec(), FrontError::Line),
            (b"00zz".to_vec(), FrontError::Packet),
            (Vec::new(), FrontError::Incomplete),
        ] {
            assert_eq!(parse(&bytes), Err(error), "{:?}", String::from_utf8_lossy(&bytes));
        }
        let many: Vec<&[u8]> = std::iter::repeat_n(ok.as_bytes(), MOST_COMMANDS + 1).collect();
        assert_eq!(parse(&front(&many, b"")), Err(FrontError::TooLong));
    }

    #[test]
    fn only_real_packs_have_a_count() {
        assert_eq!(pack_objects(b"PACK\0\0\0\x02\0\0\x01\0"), Some(256));
        assert_eq!(pack_objects(b"PACK\0\0\0\x04\0\0\x01\0"), None);
        assert_eq!(pack_objects(b"PACC\0\0\0\x02\0\0\x01\0"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(front) = parse(&bytes) {
                prop_assert!(front.length <= bytes.len());
            }
        }

        #[test]
        fn cutting_a_front_anywhere_is_incomplete_and_never_another_push(
            names in prop::collection::vec("[a-z/]{1,20}", 1..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let lines: Vec<Vec<u8>> =
                names.iter().map(|name| format!("{ZERO} {A} refs/heads/{name}").into_bytes()).collect();
            let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            let bytes = front(&lines, b"");
            let whole = parse(&bytes).unwrap();
            prop_assert_eq!(whole.commands.len(), names.len());
            let cut = cut.index(bytes.len());
            prop_assert_eq!(parse(&bytes[..cut]), Err(FrontError::Incomplete));
        }
    }
}
