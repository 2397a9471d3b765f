//! Secrets by placeholder: the sandbox holds a handle, and the value is put in its place on the way out.
//!
//! Promises: a value goes into a header field (or a parameter of the query, where its owner said so) of a request to its
//! own host and path, and nowhere else; a handle that stands anywhere else stops the request and is reported; what is not
//! a handle of this run is worth nothing.

use crate::gateway::keys::KeySpellings;
use crate::parse::head::Authority;
use crate::parse::url_path::UrlPath;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use tipstaff_model::{Refusal, Rule, Warrant};
use tipstaff_seal::{Handle, Secret};

/// What stands for the value in a template.
const HOLE: &str = "{}";

/// The shortest value, in bytes: a shorter one could not be looked for in answers.
pub const SHORTEST_VALUE: usize = 8;

/// The longest value, in bytes.
pub const LONGEST_VALUE: usize = 8 * 1024;

/// Where in a request a value may stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SecretPlace {
    /// In a header field that carries credentials, alone, after a scheme's word, or as a part of Basic authentication.
    #[default]
    Credential,
    /// In this header field and exactly in this form, `{}` being the value.
    Field {
        /// The field's name, in lower case.
        name: String,
        /// Such as `Bearer {}`.
        template: String,
    },
    /// As the value of this parameter of the query.
    Query(String),
}

impl SecretPlace {
    /// Reads `Authorization: Bearer {}`.
    #[must_use]
    pub fn field(text: &str) -> Option<Self> {
        let (name, template) = text.split_once(':')?;
        let name = name.trim().to_ascii_lowercase();
        let template = template.trim().to_owned();
        let token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let fine = (1..=60).contains(&name.len())
            && name.bytes().all(token)
            && !NEVER.contains(&name.as_str())
            && template.matches(HOLE).count() == 1
            && template.len() <= 200
            && template.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        fine.then_some(Self::Field { name, template })
    }

    /// Reads the name of a parameter of the query.
    #[must_use]
    pub fn query(name: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        ((1..=60).contains(&name.len()) && name.bytes().all(plain)).then(|| Self::Query(name.to_owned()))
    }
}

/// Fields that say how a request travels, or that are not sent on as they are.
const NEVER: [&str; 16] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "accept-encoding",
    "expect",
    "te",
    "trailer",
    "upgrade",
    "range",
    "if-range",
    "proxy-authorization",
    "proxy-connection",
    "keep-alive",
];

/// Whether a field is one that carries credentials.
fn carries_credentials(name: &str) -> bool {
    name == "authorization"
        || ["-key", "-token", "-secret", "apikey", "-auth"].iter().any(|end| name.ends_with(end))
        || name == "token"
}

/// One secret of a run.
#[derive(Clone)]
pub struct HeldSecret {
    name: String,
    handle: Handle,
    value: Secret<String>,
    place: SecretPlace,
}

impl std::fmt::Debug for HeldSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldSecret")
            .field("name", &self.name)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl HeldSecret {
    /// A secret of the warrant's, with the handle that the sandbox is given. `None` when the value has no form that can
    /// stand in a header field and be looked for in answers: [`SHORTEST_VALUE`] to [`LONGEST_VALUE`] visible ASCII
    /// characters.
    #[must_use]
    pub fn new(name: &str, handle: Handle, value: Secret<String>, place: SecretPlace) -> Option<Self> {
        let text = value.expose();
        let fits = (SHORTEST_VALUE..=LONGEST_VALUE).contains(&text.len());
        let fine =
            fits && text.bytes().all(|b| b.is_ascii_graphic()) && Handle::find(text.as_bytes()).is_none();
        fine.then(|| Self { name: name.to_owned(), handle, value, place })
    }

    /// The name of the secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the sandbox holds.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What it stands for.
    #[must_use]
    pub const fn value(&self) -> &Secret<String> {
        &self.value
    }
}

/// The secrets of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Vec<HeldSecret>);

/// Whom a request goes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
}

impl Secrets {
    pub(crate) const fn new(held: Vec<HeldSecret>) -> Self {
        Self(held)
    }

    /// Whether some secret is for this host: its answers are searched then.
    pub(crate) fn any_for(&self, warrant: &Warrant, place: Place<'_>) -> bool {
        self.for_host(warrant, place).next().is_some()
    }

    fn for_host<'a>(
        &'a self,
        warrant: &'a Warrant,
        place: Place<'a>,
    ) -> impl Iterator<Item = &'a HeldSecret> {
        self.0.iter().filter(move |held| {
            warrant
                .secrets
                .iter()
                .any(|grant| grant.name == held.name && grant.host.matches(place.host, place.port))
        })
    }

    /// The spellings of all values that the host is given.
    pub(crate) fn spellings(&self, warrant: &Warrant, place: Place<'_>) -> KeySpellings {
        KeySpellings::of(self.for_host(warrant, place).map(|held| held.value.expose().as_str()))
    }

    fn find(&self, handle: &Handle) -> Option<&HeldSecret> {
        self.0.iter().find(|held| held.handle == *handle)
    }

    /// A refusal for a handle that was met where it is worth nothing.
    pub(crate) fn misused(&self, handle: &Handle, at: &str, why: &str) -> Refusal {
        match self.find(handle) {
            Some(held) => {
                let why = format!("the handle of the secret {} {why}", held.name);
                Refusal::new(Rule::SecretMisused, format!("{} at {at}", held.name), why)
            }
            None => Refusal::new(
                Rule::SecretMisused,
                format!("a handle at {at}"),
                "the handle is none of this run's: of another run, or made up",
            ),
        }
    }

    /// Puts the values into a request's fields and query. The names of the secrets that went in.
    ///
    /// # Errors
    /// The refusal, when a handle stands where its value may not.
    pub(crate) fn put_in(
        &self,
        warrant: &Warrant,
        place: Place<'_>,
        path: &UrlPath,
        query: &mut Option<String>,
        headers: &mut HeaderMap,
    ) -> Result<Vec<String>, Refusal> {
        let at = format!("{}:{}", place.host, place.port);
        let mut used = self.put_in_query(warrant, place, path, query)?;
        for reading in path.readings() {
            if let Some((_, handle)) = Handle::find(reading.as_bytes()) {
                return Err(self.misused(&handle, &at, "stands in a path"));
            }
        }
        for (name, field) in headers.iter_mut() {
            if let Some((new, secret)) = self.field(warrant, place, path, (name, field))? {
                *field = new;
                used.push(secret);
            }
        }
        Ok(used)
    }

    /// The new content of a field, and the secret in it; `None` when it holds no handle.
    fn field(
        &self,
        warrant: &Warrant,
        place: Place<'_>,
        path: &UrlPath,
        (name, field): (&HeaderName, &HeaderValue),
    ) -> Result<Option<(HeaderValue, String)>, Refusal> {
        let basic = basic(field.as_bytes());
        let text = basic.as_deref().unwrap_or(field.as_bytes());
        let Some((start, handle)) = Handle::find(text) else { return Ok(None) };
        let at = format!("{}:{}", place.host, place.port);
        let held = self.granted(warrant, place, path, &handle)?;
        let (before, after) =
            (text.get(..start), text.get(start + handle.as_str().len()..).unwrap_or_default());
        let before = before.unwrap_or_default();
        let fits = match &held.place {
            SecretPlace::Field { name: wanted, template } => {
                let whole = [before, HOLE.as_bytes(), after].concat();
                name.as_str() == wanted && basic.is_none() && whole == template.as_bytes()
            }
            SecretPlace::Credential if basic.is_some() => {
                // The user's name or the password, whole.
                name.as_str() == "authorization"
                    && ((before.last() == Some(&b':') && after.is_empty())
                        || (before.is_empty() && after.first() == Some(&b':')))
            }
            SecretPlace::Credential => {
                let scheme = before.strip_suffix(b" ").unwrap_or(before);
                carries_credentials(name.as_str())
                    && after.is_empty()
                    && (before.is_empty() || before.ends_with(b" "))
                    && scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            }
            SecretPlace::Query(_) => false,
        };
        if !fits || Handle::find(before).is_some() || Handle::find(after).is_some() {
            let why = format!("stands in the field {name} in a form that its owner did not allow");
            return Err(self.misused(&handle, &at, &why));
        }
        let whole = Secret::new([before, held.value.expose().as_bytes(), after].concat());
        let made = match basic {
            Some(_) => HeaderValue::try_from(format!("Basic {}", base64(whole.expose()))),
            None => HeaderValue::try_from(whole.expose().as_slice()),
        };
        let mut made = made.map_err(|_| self.misused(&handle, &at, "makes no field"))?;
        made.set_sensitive(true);
        Ok(Some((made, held.name.clone())))
    }

    fn put_in_query(
        &self,
        warrant: &Warrant,
        place: Place<'_>,
        path: &UrlPath,
        whole: &mut Option<String>,
    ) -> Result<Vec<String>, Refusal> {
        let mut used = Vec::new();
        let Some(query) = whole.clone().filter(|query| Handle::find(query.as_bytes()).is_some()) else {
            return Ok(used);
        };
        let at = format!("{}:{}", place.host, place.port);
        let mut pairs = Vec::new();
        for pair in query.split('&') {
            let Some((_, handle)) = Handle::find(pair.as_bytes()) else {
                pairs.push(pair.to_owned());
                continue;
            };
            let held = self.granted(warrant, place, path, &handle)?;
            match (&held.place, pair.split_once('=')) {
                (SecretPlace::Query(wanted), Some((name, value)))
                    if name == wanted && value == handle.as_str() =>
                {
                    pairs.push(format!("{name}={}", escaped(held.value.expose())));
                    used.push(held.name.clone());
                }
                _ => {
                    return Err(self.misused(
                        &handle,
                        &at,
                        "stands in the query, where its owner did not allow it",
                    ));
                }
            }
        }
        *whole = Some(pairs.join("&"));
        Ok(used)
    }

    /// The secret of a handle, if the warrant lets this request carry it.
    fn granted(
        &self,
        warrant: &Warrant,
        place: Place<'_>,
        path: &UrlPath,
        handle: &Handle,
    ) -> Result<&HeldSecret, Refusal> {
        let at = format!("{}:{}", place.host, place.port);
        let held = self.find(handle).ok_or_else(|| self.misused(handle, &at, ""))?;
        for reading in path.readings() {
            warrant.permits_secret(&held.name, place.host, place.port, reading).map_err(|refusal| {
                Refusal::new(Rule::SecretMisused, format!("{} at {at}", held.name), refusal.why)
            })?;
        }
        Ok(held)
    }

    /// Refuses a request that nobody puts values into, one over plain HTTP, when it holds a handle.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn refuse_anywhere(
        &self,
        place: &Authority,
        target: &str,
        fields: &[(String, String)],
    ) -> Result<(), Refusal> {
        let found = Handle::find(target.as_bytes()).or_else(|| {
            fields.iter().find_map(|(_, value)| {
                Handle::find(value.as_bytes()).or_else(|| Handle::find(&basic(value.as_bytes())?))
            })
        });
        match found {
            Some((_, handle)) => {
                let why = "stands in a request over plain HTTP, which carries no secret";
                Err(self.misused(&handle, &place.to_string(), why))
            }
            None => Ok(()),
        }
    }

    /// Takes handles out of a model's prompt, where they are of no use, and gives a refusal for each to be noted. The
    /// length stays, and so does what a provider keeps of the prompt.
    pub(crate) fn take_out(&self, body: Bytes, provider: &str) -> (Bytes, Vec<Refusal>) {
        if Handle::find(&body).is_none() {
            return (body, Vec::new());
        }
        let mut text = BytesMut::from(body.as_ref());
        let mut noted = Vec::new();
        while let Some((at, handle)) = Handle::find(&text) {
            let end = at + handle.as_str().len();
            text.get_mut(at..end).into_iter().flatten().for_each(|byte| *byte = b'x');
            let at = format!("a request for {provider}");
            noted.push(self.misused(&handle, &at, "was taken out of a prompt: a model has no use for it"));
        }
        (text.freeze(), noted)
    }
}

/// Looks for handles in a body that streams by, and lets no part of one pass.
#[derive(Debug, Default)]
pub(crate) struct HandleScan {
    held: BytesMut,
}

impl HandleScan {
    /// Takes the next bytes; gives what may pass, or the handle that was met.
    pub(crate) fn push(&mut self, mut bytes: Bytes) -> Result<Bytes, Handle> {
        if !self.held.is_empty() {
            self.held.extend_from_slice(&bytes);
            bytes = self.held.split().freeze();
        }
        if let Some((_, handle)) = Handle::find(&bytes) {
            return Err(handle);
        }
        let at = Handle::possible_beginning(&bytes);
        self.held.extend_from_slice(bytes.get(at..).unwrap_or_default());
        bytes.truncate(at);
        Ok(bytes)
    }

    /// What was held back, at the end.
    pub(crate) fn finish(&mut self) -> Bytes {
        self.held.split().freeze()
    }
}

/// What `Basic …` (RFC 7617) stands for.
fn basic(field: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(field).ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let digits = rest.trim().trim_end_matches('=');
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for digit in digits.bytes() {
        let value = BASE64.iter().position(|known| *known == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(out)
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_usize, |word, byte| word << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for step in 0..4 {
            let digit = BASE64.get(word >> (18 - 6 * step) & 63).copied().unwrap_or(b'A');
            out.push(if step <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// A value as it stands in a query.
fn escaped(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    value.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
