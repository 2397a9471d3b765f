//! The head of an HTTP/1.1 request (RFC 9112), read so strictly that nobody else can read it differently.
//!
//! Accepted is one spelling: CRLF line ends, one space between the words of the request line, no folded lines, exactly
//! one `Host` that agrees with the target, at most one way to tell the body's length. Everything that two readers
//! have ever disagreed about is refused, so no request can be smuggled past us or through us.

/// The largest head, in bytes.
pub const LARGEST: usize = 16 * 1024;

/// The most header fields.
pub const MOST_FIELDS: usize = 64;

/// How HTTP/2 begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// The version in which Python before 3.12, and so its pip, asks for tunnels. Nothing else is read in it.
const OLDER: &str = "HTTP/1.0";

/// What a request is addressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A path of ours: path and query as written.
    Origin(String),
    /// A plain HTTP request to be passed on: host, port, path and query.
    Absolute(Authority, String),
    /// A tunnel to be opened.
    Connect(Authority),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Lower-case, without a final dot; a name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// So many bytes.
    Known(u64),
    /// Chunked.
    Chunked,
}

/// A head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The method: capital letters.
    pub method: String,
    /// What it is addressed to.
    pub target: Target,
    /// The body.
    pub body: BodyLength,
    /// The fields in order, names in lower case.
    pub fields: Vec<(String, String)>,
}

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Larger than [`LARGEST`] or more fields than [`MOST_FIELDS`].
    #[error("the request's head is larger than {LARGEST} bytes or {MOST_FIELDS} fields")]
    TooLarge,
    /// A line feed without carriage return, or the reverse.
    #[error("a line does not end in CRLF")]
    LineEnd,
    /// A control character.
    #[error("the head holds a control character")]
    Control,
    /// The request line.
    #[error("the request line is not METHOD TARGET HTTP/1.1")]
    RequestLine,
    /// The beginning of HTTP/2 or of TLS.
    #[error("the connection begins with HTTP/2 or TLS, and only HTTP/1.1 is served here")]
    OtherProtocol,
    /// The target has no form that is accepted.
    #[error("the request's target is not a path, an http:// address or host:port")]
    Target,
    /// A field.
    #[error("a header field has a malformed or folded line")]
    Field,
    /// `Host` is missing, doubled or malformed.
    #[error("exactly one well-formed Host is needed")]
    Host,
    /// `Host` names something else than the target.
    #[error("Host and target name different places")]
    HostDisagrees,
    /// The length is told twice or in an odd way.
    #[error("the body's length is told twice or in an odd way")]
    Length,
}

/// Where the head ends in `input`: the offset after its empty line. `Ok(None)` when more bytes are needed.
///
/// # Errors
/// As soon as the bytes can't become a head that [`parse`] accepts.
pub fn end(input: &[u8]) -> Result<Option<usize>, HeadError> {
    // Another protocol is called by its name, before its bytes look like a mistake in this one.
    if input.starts_with(PREFACE) || input.starts_with(&[22, 3]) {
        return Err(HeadError::OtherProtocol);
    }
    let mut previous = 0_u8;
    let mut line_length = 0_usize;
    for (at, byte) in input.iter().enumerate() {
        match (previous, *byte) {
            (b'\r', b'\n') => {
                if line_length == 1 {
                    return Ok(Some(at + 1));
                }
                line_length = 0;
            }
            (_, b'\n') | (b'\r', _) => return Err(HeadError::LineEnd),
            (_, byte) if byte != b'\r' && byte != b'\t' && byte.is_ascii_control() => {
                return Err(HeadError::Control);
            }
            _ => line_length += 1,
        }
        previous = *byte;
        if at + 1 >= LARGEST {
            return Err(HeadError::TooLarge);
        }
    }
    Ok(None)
}

/// Reads a whole head, its final empty line included.
///
/// # Errors
/// [`HeadError`].
pub fn parse(head: &[u8]) -> Result<Head, HeadError> {
    if end(head)? != Some(head.len()) {
        return Err(HeadError::LineEnd);
    }
    let text = std::str::from_utf8(head).map_err(|_| HeadError::Field)?;
    let text = text.strip_suffix("\r\n\r\n").ok_or(HeadError::RequestLine)?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let (method, target) = request_line(first)?;
    let (mut host, mut length, mut chunked) = (None, None, false);
    let mut fields = Vec::new();
    for (count, line) in lines.enumerate() {
        if count >= MOST_FIELDS {
            return Err(HeadError::TooLarge);
        }
        let (name, value) = field(line)?;
        match name.as_str() {
            "host" if host.is_some() => return Err(HeadError::Host),
            "host" => host = Some(value),
            "content-length" => {
                let digits = (1..=18).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
                if length.is_some() || !digits {
                    return Err(HeadError::Length);
                }
                length = value.parse::<u64>().ok();
            }
            "transfer-encoding" => {
                if chunked || !value.eq_ignore_ascii_case("chunked") {
                    return Err(HeadError::Length);
                }
                chunked = true;
            }
            _ => {}
        }
        fields.push((name, value.to_owned()));
    }
    let body = match (length, chunked) {
        (Some(_), true) => return Err(HeadError::Length),
        (Some(length), false) => BodyLength::Known(length),
        (None, true) => BodyLength::Chunked,
        (None, false) => BodyLength::Known(0),
    };
    let target = read_target(method, target)?;
    match host {
        Some(host) => agrees(&target, host)?,
        // The older version has no such field, and a tunnel's target says it all.
        None if first.ends_with(OLDER) => {}
        None => return Err(HeadError::Host),
    }
    Ok(Head { method: method.to_owned(), target, body, fields })
}

fn request_line(line: &str) -> Result<(&str, &str), HeadError> {
    let mut words = line.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    match (method, target, version, words.next()) {
        (Some(method), Some(target), Some(version), None)
            if (version == "HTTP/1.1" || (version == OLDER && method == "CONNECT"))
                && (1..=16).contains(&method.len())
                && method.bytes().all(|b| b.is_ascii_uppercase())
                && !target.is_empty()
                && target.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            Ok((method, target))
        }
        _ => Err(HeadError::RequestLine),
    }
}

fn field(line: &str) -> Result<(String, &str), HeadError> {
    let (name, value) = line.split_once(':').ok_or(HeadError::Field)?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(HeadError::Field);
    }
    Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])))
}

fn read_target(method: &str, target: &str) -> Result<Target, HeadError> {
    if method == "CONNECT" {
        let authority = authority(target, None).ok_or(HeadError::Target)?;
        return Ok(Target::Connect(authority));
    }
    if target.starts_with('/') {
        return Ok(Target::Origin(target.to_owned()));
    }
    let scheme = target.get(..7).ok_or(HeadError::Target)?;
    if !scheme.eq_ignore_ascii_case("http://") || target.contains('#') {
        return Err(HeadError::Target);
    }
    let rest = target.get(7..).unwrap_or_default();
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (place, path) = rest.split_at(at);
    let authority = authority(place, Some(80)).ok_or(HeadError::Target)?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(Target::Absolute(authority, path))
}

/// Reads `host[:port]`. Without a port the default is taken, if there is one.
pub(crate) fn authority(text: &str, default_port: Option<u16>) -> Option<Authority> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            let address: std::net::Ipv6Addr = inside.parse().ok()?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            let fine = (1..=253).contains(&host.len())
                && host.bytes().all(plain)
                && host.split('.').all(|label| (1..=63).contains(&label.len()));
            (fine.then_some(host)?, port)
        }
    };
    let port = match port {
        Some(digits)
            if (1..=5).contains(&digits.len())
                && digits.bytes().all(|b| b.is_ascii_digit())
                && !digits.starts_with('0') =>
        {
            digits.parse().ok()?
        }
        Some(_) => return None,
        None => default_port?,
    };
    Some(Authority { host, port })
}

/// Whether `Host` names what the target names.
fn agrees(target: &Target, host: &str) -> Result<(), HeadError> {
    let (wanted, default_port) = match target {
        // To us: any name for us will do, since the listener is the identity.
        Target::Origin(_) => return authority(host, Some(80)).map(|_| ()).ok_or(HeadError::Host),
        Target::Absolute(wanted, _) => (wanted, 80),
        // Clients leave the port of a tunnel out or write it.
        Target::Connect(wanted) => (wanted, wanted.port),
    };
    let named = authority(host, Some(default_port)).ok_or(HeadError::Host)?;
    if named == *wanted { Ok(()) } else { Err(HeadError::HostDisagrees) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Result<Head, HeadError> {
        parse(text.as_bytes())
    }

    #[test]
    fn the_three_forms_are_read() {
        let head =
            of("GET /git/a/b.git/info/refs?service=x HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n").unwrap();
        assert!(matches!(head.target, Target::Origin(path) if path.ends_with("?service=x")));
        let head =
            of("POST http://Example.com./p?q HTTP/1.1\r\nhost:example.com\r\nContent-Length: 5\r\n\r\n")
                .unwrap();
        let Target::Absolute(authority, path) = head.target else { panic!() };
        assert_eq!(
            (authority.to_string().as_str(), path.as_str(), head.body),
            ("example.com:80", "/p?q", BodyLength::Known(5))
        );
        let head = of("CONNECT a.test:443 HTTP/1.1\r\nHost: A.test\r\n\r\n").unwrap();
        assert_eq!(head.target, Target::Connect(Authority { host: "a.test".into(), port: 443 }));
        let head = of("CONNECT a.test:443 HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!(head.target, Target::Connect(Authority { host: "a.test".into(), port: 443 }));
        let head = of("CONNECT [::1]:443 HTTP/1.1\r\nHost: [0::1]:443\r\n\r\n").unwrap();
        assert_eq!(head.target, Target::Connect(Authority { host: "::1".into(), port: 443 }));
    }

    #[test]
    fn everything_that_readers_disagree_about_is_refused() {
        let with = |fields: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        for (text, error) in [
            (with("Content-Length: 1\r\nContent-Length: 1\r\n"), HeadError::Length),
            (with("Content-Length: 1, 1\r\n"), HeadError::Length),
            (with("Content-Length: +1\r\n"), HeadError::Length),
            (with("Content-Length: \r\n"), HeadError::Length),
            (with("Content-Length: 0x1\r\n"), HeadError::Length),
            (with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), HeadError::Length),
            (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), HeadError::Length),
            (with("Transfer-Encoding: gzip, chunked\r\n"), HeadError::Length),
            (with("Transfer-Encoding: identity\r\n"), HeadError::Length),
            (with("Transfer-Encoding: xchunked\r\n"), HeadError::Length),
            (with("Content-Length : 1\r\n"), HeadError::Field),
            (with("X: a\r\n folded\r\n"), HeadError::Field),
            (with("no colon\r\n"), HeadError::Field),
            (with(": x\r\n"), HeadError::Field),
            (with("X: a\nY: b\r\n"), HeadError::LineEnd),
            (with("X: a\rb\r\n"), HeadError::LineEnd),
            (with("X: a\0b\r\n"), HeadError::Control),
            (with("Host: a\r\n"), HeadError::Host),
            ("GET /x HTTP/1.1\r\n\r\n".into(), HeadError::Host),
            ("GET /x HTTP/1.1\r\nHost: \r\n\r\n".into(), HeadError::Host),
            ("GET /x HTTP/1.1\r\nHost: a b\r\n\r\n".into(), HeadError::Host),
            ("GET http://evil.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n".into(), HeadError::HostDisagrees),
            ("GET http://a.test:81/ HTTP/1.1\r\nHost: a.test\r\n\r\n".into(), HeadError::HostDisagrees),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n".into(), HeadError::HostDisagrees),
            ("CONNECT a.test HTTP/1.1\r\nHost: a.test\r\n\r\n".into(), HeadError::Target),
            ("CONNECT http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n".into(), HeadError::Target),
            ("GET http://u@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n".into(), HeadError::Target),
            ("GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n".into(), HeadError::Target),
            ("GET http://a.test:0/ HTTP/1.1\r\nHost: a.test\r\n\r\n".into(), HeadError::Target),
            ("GET http://a..test/ HTTP/1.1\r\nHost: a..test\r\n\r\n".into(), HeadError::Target),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into(), HeadError::Target),
            ("GET /x HTTP/1.0\r\nHost: a\r\n\r\n".into(), HeadError::RequestLine),
            ("CONNECT a.test:443 HTTP/1.0\r\nHost: b.test\r\n\r\n".into(), HeadError::HostDisagrees),
            ("CONNECT a.test:443 HTTP/1.1\r\n\r\n".into(), HeadError::Host),
            ("GET  /x HTTP/1.1\r\nHost: a\r\n\r\n".into(), HeadError::RequestLine),
            ("get /x HTTP/1.1\r\nHost: a\r\n\r\n".into(), HeadError::RequestLine),
            ("GET /x\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".into(), HeadError::RequestLine),
            ("PRI * HTTP/2.0\r\n\r\n".into(), HeadError::OtherProtocol),
            ("\x16\x03\x01\x02\0\x01\0\x01".into(), HeadError::OtherProtocol),
            ("\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n".into(), HeadError::RequestLine),
        ] {
            let found = of(&text).unwrap_err();
            // An empty first line ends the head at once, which is another reason for the same answer.
            assert!(
                found == error || (text.starts_with("\r\n") && found == HeadError::LineEnd),
                "{text:?}: {found:?}"
            );
        }
        let many = with(&"X: y\r\n".repeat(MOST_FIELDS));
        assert_eq!(of(&many), Err(HeadError::TooLarge));
        assert_eq!(end(&vec![b'a'; LARGEST]), Err(HeadError::TooLarge));
        assert_eq!(end(b"GET / HTTP/1.1\n"), Err(HeadError::LineEnd));
        assert_eq!(end(b"GET / HTTP/1.1\r\nHost"), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = end(&bytes);
            let _ = parse(&bytes);
        }

        #[test]
        fn an_accepted_head_has_one_length_and_one_host(
            fields in prop::collection::vec(
                prop::sample::select(vec![
                    "Host: a", "Content-Length: 3", "Content-Length: 4", "Transfer-Encoding: chunked", "X: y",
                    "host:b", "content-length:3",
                ]),
                0..6,
            )
        ) {
            let text = format!("POST /x HTTP/1.1\r\n{}\r\n\r\n", fields.join("\r\n"));
            let count = |name: &str| fields.iter().filter(|f| f.to_ascii_lowercase().starts_with(name)).count();
            if of(&text).is_ok() {
                prop_assert_eq!(count("host"), 1);
                prop_assert!(count("content-length") + count("transfer-encoding") <= 1);
            }
        }
    }
}
