//! The body of a `git-upload-pack` request, of protocol 0, 1 or 2: which objects it wants.

use super::pkt_line::{self, Packet};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UploadRequest {
    /// The object ids wanted, in order.
    pub wants: Vec<String>,
    /// The command of protocol 2: `fetch` or `ls-refs`. `None` in older protocols.
    pub command: Option<Command>,
}

/// A command of protocol 2 that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Send objects.
    Fetch,
    /// List refs.
    ListRefs,
}

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// Not packet lines.
    #[error("the request is not made of packet lines")]
    Packet,
    /// A want that is no id.
    #[error("a want of the request is no object id")]
    Want,
    /// Another command, or several.
    #[error("the request has a command other than fetch and ls-refs")]
    Command,
}

/// Reads a whole body.
///
/// # Errors
/// [`UploadError`].
pub fn parse(body: &[u8]) -> Result<UploadRequest, UploadError> {
    let mut request = UploadRequest::default();
    let mut rest = body;
    let mut seen_any = false;
    while !rest.is_empty() {
        let (packet, after) = pkt_line::first(rest).map_err(|_| UploadError::Packet)?;
        rest = after;
        let Packet::Data(payload) = packet else { continue };
        let text = payload.strip_suffix(b"\n").unwrap_or(payload);
        if let Some(name) = text.strip_prefix(b"command=") {
            if seen_any {
                return Err(UploadError::Command);
            }
            request.command = Some(match name {
                b"fetch" => Command::Fetch,
                b"ls-refs" => Command::ListRefs,
                _ => return Err(UploadError::Command),
            });
        } else if let Some(want) = text.strip_prefix(b"want ") {
            request.wants.push(want_id(want).ok_or(UploadError::Want)?);
        } else if text.starts_with(b"want") {
            // `want-ref` names a ref instead of an id; we never offer it.
            return Err(UploadError::Want);
        }
        seen_any = true;
    }
    Ok(request)
}

/// The id at the start; protocol 0 appends capabilities to the first want.
fn want_id(text: &[u8]) -> Option<String> {
    let id = text.split(|b| *b == b' ').next()?;
    let fine = matches!(id.len(), 40 | 64) && id.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    fine.then(|| String::from_utf8_lossy(id).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "1111111111111111111111111111111111111111";

    #[test]
    fn wants_of_every_protocol_are_found() {
        let mut two = Vec::new();
        pkt_line::write(&mut two, b"command=fetch\n");
        two.extend_from_slice(b"0001");
        pkt_line::write(&mut two, format!("want {A}\n").as_bytes());
        pkt_line::write(&mut two, b"done\n");
        two.extend_from_slice(b"0000");
        let request = parse(&two).unwrap();
        assert_eq!((request.command, request.wants.len()), (Some(Command::Fetch), 1));
        let mut zero = Vec::new();
        pkt_line::write(&mut zero, format!("want {A} ofs-delta agent=x\n").as_bytes());
        zero.extend_from_slice(b"0000");
        assert_eq!(parse(&zero).unwrap().wants, [A]);
    }

    #[test]
    fn other_commands_and_wants_by_name_are_refused() {
        for (line, error) in [
            (&b"command=object-info"[..], UploadError::Command),
            (b"want-ref refs/heads/x", UploadError::Want),
            (b"want main", UploadError::Want),
        ] {
            let mut body = Vec::new();
            pkt_line::write(&mut body, line);
            assert_eq!(parse(&body), Err(error));
        }
        let mut twice = Vec::new();
        pkt_line::write(&mut twice, b"command=ls-refs");
        pkt_line::write(&mut twice, b"command=fetch");
        assert_eq!(parse(&twice), Err(UploadError::Command));
        assert_eq!(parse(b"hello"), Err(UploadError::Packet));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }
    }
}
