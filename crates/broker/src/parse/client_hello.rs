//! The first words of a TLS client (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2): which server it wants.
//!
//! Accepted is a client hello that lies in one TLS record, is whole and exact in every length, and names one server in
//! the open. Everything that another reader could take for another name is refused: a name told twice or not at all,
//! an extension told twice, a hello spread over several records or followed by more in its own, and every form of
//! encrypted client hello. What only looks like an encrypted one (GREASE) is refused with them: nobody but the server
//! can tell the two apart, which is its purpose.

/// The largest record, and so the largest hello, in bytes (RFC 8446 §5.1).
pub const LARGEST: usize = 16 * 1024;

/// The bytes before a record's content.
pub const RECORD_HEAD: usize = 5;

/// The most extensions. Clients in use send about twenty.
pub const MOST_EXTENSIONS: usize = 64;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// A hello that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The server that is wanted, in lower case.
    pub server_name: String,
    /// The bytes of the hello with its record's head; what the input has beyond them is not part of it.
    pub length: usize,
}

/// Why a hello was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The first bytes are no TLS 1.x handshake.
    #[error("the connection does not begin with a TLS client hello")]
    NotTls,
    /// Longer than a record may be.
    #[error("the TLS client hello is larger than {LARGEST} bytes")]
    TooLarge,
    /// In several records, or with more than itself in its record.
    #[error("the TLS client hello does not fill exactly one record")]
    Split,
    /// A length that does not fit, or something told twice.
    #[error("the TLS client hello is malformed")]
    Malformed,
    /// No server name.
    #[error("the TLS client hello names no server")]
    NoName,
    /// More than one server name.
    #[error("the TLS client hello names several servers")]
    SeveralNames,
    /// The true name is hidden, or it can't be told whether it is.
    #[error("the TLS client hello is encrypted (ECH), so its server can't be told")]
    Encrypted,
}

impl HelloError {
    /// Whether the hello itself was readable, and what it says about the server is what is wrong.
    #[must_use]
    pub const fn is_about_the_name(self) -> bool {
        matches!(self, Self::NoName | Self::SeveralNames | Self::Encrypted)
    }
}

/// Reads the hello at the start of `input`. `Ok(None)` when more bytes are needed, which never happens once there are
/// [`RECORD_HEAD`] + [`LARGEST`] of them.
///
/// # Errors
/// [`HelloError`], as soon as the bytes can't become a hello that is accepted.
pub fn read(input: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    // Each byte is judged when it is there: who sends something else learns it at once, not after a wait.
    let Some(kind) = input.first() else { return Ok(None) };
    if *kind != HANDSHAKE || input.get(1).is_some_and(|major| *major != 3) {
        return Err(HelloError::NotTls);
    }
    let Some([_, _, minor, high, low]) = input.first_chunk::<RECORD_HEAD>() else { return Ok(None) };
    if !(1..=3).contains(minor) {
        return Err(HelloError::NotTls);
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > LARGEST {
        return Err(HelloError::TooLarge);
    }
    if length < 4 {
        return Err(HelloError::Split);
    }
    let content = input.get(RECORD_HEAD..).unwrap_or_default();
    if content.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(HelloError::NotTls);
    }
    if let Some([_, a, b, c]) = content.first_chunk::<4>()
        && u32::from_be_bytes([0, *a, *b, *c]) as usize != length - 4
    {
        return Err(HelloError::Split);
    }
    let Some(message) = content.get(4..length) else { return Ok(None) };
    let server_name = server_name(message)?;
    Ok(Some(ClientHello { server_name, length: RECORD_HEAD + length }))
}

/// A reader of length-prefixed fields that never goes beyond its end.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, HelloError> {
        self.take(1)?.first().copied().ok_or(HelloError::Malformed)
    }

    fn short(&mut self) -> Result<u16, HelloError> {
        match self.take(2)? {
            [high, low] => Ok(u16::from_be_bytes([*high, *low])),
            _ => Err(HelloError::Malformed),
        }
    }

    /// A field after its length in one byte.
    fn small(&mut self) -> Result<&'a [u8], HelloError> {
        let length = self.byte()?;
        self.take(usize::from(length))
    }

    /// A field after its length in two bytes.
    fn large(&mut self) -> Result<&'a [u8], HelloError> {
        let length = self.short()?;
        self.take(usize::from(length))
    }

    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn server_name(message: &[u8]) -> Result<String, HelloError> {
    let mut hello = Fields(message);
    let version = hello.short()?;
    if !(0x0301..=0x0303).contains(&version) {
        return Err(HelloError::Malformed);
    }
    let _random = hello.take(32)?;
    if hello.small()?.len() > 32 {
        return Err(HelloError::Malformed);
    }
    let ciphers = hello.large()?;
    if ciphers.is_empty() || ciphers.len() % 2 != 0 {
        return Err(HelloError::Malformed);
    }
    // No compression must be on offer; every TLS since 1.0 asks for it.
    if !hello.small()?.contains(&0) {
        return Err(HelloError::Malformed);
    }
    if hello.is_empty() {
        return Err(HelloError::NoName);
    }
    let mut extensions = Fields(hello.large()?);
    if !hello.is_empty() {
        return Err(HelloError::Malformed);
    }
    let (mut name, mut encrypted) = (None, false);
    let mut seen = Vec::with_capacity(MOST_EXTENSIONS);
    while !extensions.is_empty() {
        let kind = extensions.short()?;
        let content = extensions.large()?;
        if seen.contains(&kind) || seen.len() == MOST_EXTENSIONS {
            return Err(HelloError::Malformed);
        }
        seen.push(kind);
        if kind == SERVER_NAME {
            name = Some(one_name(content)?);
        }
        encrypted |= hides_the_name(kind);
    }
    if encrypted {
        return Err(HelloError::Encrypted);
    }
    name.ok_or(HelloError::NoName)
}

/// Encrypted client hello (RFC 9849), its drafts and its forerunner, which servers of their time still read.
const fn hides_the_name(extension: u16) -> bool {
    matches!(extension, 0xfe0d | 0xfe08..=0xfe0c | 0xff02 | 0xff03 | 0xffce)
}

/// The one host name of a `server_name` extension (RFC 6066 §3).
fn one_name(content: &[u8]) -> Result<String, HelloError> {
    let mut extension = Fields(content);
    let mut list = Fields(extension.large()?);
    if !extension.is_empty() {
        return Err(HelloError::Malformed);
    }
    if list.is_empty() {
        return Err(HelloError::NoName);
    }
    if list.byte()? != HOST_NAME {
        return Err(HelloError::Malformed);
    }
    let name = list.large()?;
    if !list.is_empty() {
        return Err(HelloError::SeveralNames);
    }
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    // No final dot (RFC 6066): some readers would cut it off and some would not.
    let fine = (1..=253).contains(&name.len())
        && name.iter().all(plain)
        && name.split(|b| *b == b'.').all(|label| (1..=63).contains(&label.len()));
    match std::str::from_utf8(name) {
        Ok(name) if fine => Ok(name.to_ascii_lowercase()),
        _ => Err(HelloError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn sized(length: usize, bytes: &[u8]) -> Vec<u8> {
        let count = bytes.len().to_be_bytes();
        [&count[count.len() - length..], bytes].concat()
    }

    fn name_extension(names: &[&str]) -> Vec<u8> {
        let list: Vec<u8> =
            names.iter().flat_map(|name| [vec![0], sized(2, name.as_bytes())].concat()).collect();
        extension(0, &sized(2, &list))
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &sized(2, content)].concat()
    }

    fn hello_of(extensions: Option<&[u8]>) -> Vec<u8> {
        let mut message = vec![3, 3];
        message.extend([7; 32]);
        message.extend(sized(1, &[1; 32]));
        message.extend(sized(2, &[0x13, 1, 0x13, 2]));
        message.extend(sized(1, &[0]));
        if let Some(extensions) = extensions {
            message.extend(sized(2, extensions));
        }
        [vec![CLIENT_HELLO], sized(3, &message)].concat()
    }

    fn record(content: &[u8]) -> Vec<u8> {
        [&[HANDSHAKE, 3, 1][..], &sized(2, content)].concat()
    }

    fn with(extensions: &[Vec<u8>]) -> Vec<u8> {
        record(&hello_of(Some(&extensions.concat())))
    }

    fn named(name: &str) -> Vec<u8> {
        with(&[extension(0x0a0a, &[]), name_extension(&[name]), extension(43, &[2, 3, 4])])
    }

    /// What a client in use sends.
    fn real(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// What a server in use takes the name for.
    fn as_a_server_reads(bytes: &[u8]) -> Option<String> {
        let mut acceptor = rustls::server::Acceptor::default();
        acceptor.read_tls(&mut &*bytes).ok()?;
        let accepted = acceptor.accept().ok()??;
        accepted.client_hello().server_name().map(str::to_ascii_lowercase)
    }

    #[test]
    fn the_name_is_read_and_nothing_less_than_the_whole_is_accepted() {
        for bytes in [named("Api.Example.com"), real("api.example.com")] {
            let mut more = bytes.clone();
            more.extend(b"early data");
            let hello = read(&more).unwrap().unwrap();
            assert_eq!((hello.server_name.as_str(), hello.length), ("api.example.com", bytes.len()));
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Ok(None), "{end}");
            }
            assert_eq!(as_a_server_reads(&real("api.example.com")).as_deref(), Some("api.example.com"));
        }
    }

    #[test]
    fn everything_that_hides_or_doubles_the_name_is_refused() {
        let good = || name_extension(&["a.test"]);
        let second_hello = [hello_of(Some(&good())), hello_of(Some(&good()))].concat();
        let whole = hello_of(Some(&good()));
        let (front, back) = whole.split_at(20);
        let mut longer = hello_of(Some(&good()));
        longer[3] += 1;
        for (what, bytes, error) in [
            ("plain", b"GET / HTTP/1.1\r\n\r\n".to_vec(), HelloError::NotTls),
            ("ssh", b"SSH-2.0-x\r\n".to_vec(), HelloError::NotTls),
            ("http2", b"PRI * HTTP/2.0".to_vec(), HelloError::NotTls),
            ("sslv2", vec![0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0], HelloError::NotTls),
            ("an alert", vec![21, 3, 3, 0, 2, 1, 0], HelloError::NotTls),
            ("a server's hello", record(&[2, 0, 0, 0]), HelloError::NotTls),
            ("another major", vec![22, 2], HelloError::NotTls),
            ("another minor", vec![22, 3, 9, 0, 50], HelloError::NotTls),
            ("a large record", vec![22, 3, 1, 0x40, 1], HelloError::TooLarge),
            ("an empty record", vec![22, 3, 1, 0, 0], HelloError::Split),
            ("several records", [record(front), record(back)].concat(), HelloError::Split),
            ("two in one record", record(&second_hello), HelloError::Split),
            ("a longer message", record(&longer), HelloError::Split),
            ("no extensions", record(&hello_of(None)), HelloError::NoName),
            ("no name", with(&[extension(43, &[2, 3, 4])]), HelloError::NoName),
            ("an empty list", with(&[extension(0, &[0, 0])]), HelloError::NoName),
            ("two names", with(&[name_extension(&["a.test", "b.test"])]), HelloError::SeveralNames),
            ("two lists", with(&[good(), name_extension(&["b.test"])]), HelloError::Malformed),
            ("twice the same", with(&[good(), extension(9, &[]), extension(9, &[])]), HelloError::Malformed),
            ("an empty name", with(&[name_extension(&[""])]), HelloError::Malformed),
            ("a final dot", with(&[name_extension(&["a.test."])]), HelloError::Malformed),
            ("a nul", with(&[name_extension(&["a.test\0.b"])]), HelloError::Malformed),
            ("not ASCII", with(&[name_extension(&["\u{e4}.test"])]), HelloError::Malformed),
            ("a space", with(&[name_extension(&["a.test "])]), HelloError::Malformed),
            ("another kind of name", with(&[extension(0, &[0, 4, 1, 0, 1, b'a'])]), HelloError::Malformed),
            ("bytes after the name", with(&[extension(0, &[0, 4, 0, 0, 1, b'a', 9])]), HelloError::Malformed),
            ("ECH", with(&[good(), extension(0xfe0d, &[0, 0, 1])]), HelloError::Encrypted),
            ("ECH before", with(&[extension(0xfe0d, &[1]), good()]), HelloError::Encrypted),
            ("ECH without a name", with(&[extension(0xfe0d, &[0])]), HelloError::Encrypted),
            ("a draft of ECH", with(&[good(), extension(0xfe0a, &[0])]), HelloError::Encrypted),
            ("an encrypted name", with(&[good(), extension(0xffce, &[0])]), HelloError::Encrypted),
            (
                "many",
                with(&(0..65).map(|kind| extension(100 + kind, &[])).collect::<Vec<_>>()),
                HelloError::Malformed,
            ),
        ] {
            assert_eq!(read(&bytes), Err(error), "{what}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
            let _ = read(&record(&bytes));
            let _ = read(&with(&[bytes]));
        }

        /// Whatever is changed: a hello that we and a server in use both accept has one name for both.
        #[test]
        fn no_change_makes_two_readers_see_two_names(
            places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
            added in prop::collection::vec(any::<u8>(), 0..8),
            genuine in any::<bool>(),
        ) {
            let mut bytes = if genuine { real("one.example.com") } else { named("one.example.com") };
            for (place, byte) in places {
                let at = place.index(bytes.len());
                bytes[at] = byte;
            }
            let at = cut.index(bytes.len());
            bytes.splice(at..at, added);
            if let (Ok(Some(ours)), Some(theirs)) = (read(&bytes), as_a_server_reads(&bytes)) {
                prop_assert_eq!(ours.server_name, theirs);
            }
        }

        /// Bytes that come one by one lead to the same judgement as all at once, and to none that is taken back.
        #[test]
        fn a_judgement_is_never_taken_back(
            place in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = named("one.example.com");
            let at = place.index(bytes.len());
            bytes[at] = byte;
            let whole = read(&bytes);
            if let Some(early) = (0..bytes.len()).map(|end| read(&bytes[..end])).find(|early| *early != Ok(None)) {
                prop_assert!(early == whole, "{early:?} and then {whole:?}");
            }
        }
    }
}
