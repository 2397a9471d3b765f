//! The part of a forge's REST interface that mints tokens of an app: it checks the app's signature, gives what it was
//! told to give, and remembers who asked for what.

use rustls::SignatureScheme;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tipstaff_seal::unbase64url;

/// Where the numbers of an RSA key begin in the information about it, before the count of unused bits.
const BITS: &[u8] = &[0x03, 0x82, 0x01, 0x0f, 0x00];

/// What was asked: `METHOD path`, the claims of the proof or the token that it came with, and the body.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// `POST /app/installations/7/access_tokens`.
    pub what: String,
    /// The claims, where a proof was signed by the app; `null` otherwise.
    pub claims: Value,
    /// What stood in `Authorization` where it was no such proof.
    pub bearer: Option<String>,
    /// The body.
    pub body: Value,
}

#[derive(Debug)]
struct State {
    public_key: Vec<u8>,
    /// Answers of `access_tokens`, changed by tests.
    answer: Mutex<(u16, Value)>,
    asked: Mutex<Vec<Asked>>,
}

/// A running server. It ends with the process of the test.
#[derive(Debug)]
pub struct AppApi {
    address: SocketAddr,
    state: Arc<State>,
}

impl AppApi {
    /// Serves an app with this public RSA key of 2048 bits (PEM, `PUBLIC KEY`), installed as number 7 on `team/…` and
    /// `acme/…`.
    ///
    /// # Errors
    /// When the key is none, or no port can be had.
    pub fn start(public_key: &str) -> io::Result<Self> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(public_key.as_bytes()).map_err(io::Error::other)?;
        let begin = der.windows(BITS.len()).position(|part| part == BITS);
        let begin = begin.ok_or_else(|| io::Error::other("this is no RSA key of 2048 bits"))?;
        let public_key = der.get(begin + BITS.len()..).unwrap_or_default().to_vec();
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let state =
            Arc::new(State { public_key, answer: Mutex::new((201, Value::Null)), asked: Mutex::default() });
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&serving);
                std::thread::spawn(move || {
                    let _ = serve(stream, &state);
                });
            }
        });
        Ok(Self { address, state })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it answers whoever wants a token.
    pub fn answers(&self, status: u16, body: Value) {
        *self.state.answer.lock().unwrap_or_else(PoisonError::into_inner) = (status, body);
    }

    /// All that was asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(stream: TcpStream, state: &State) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let what = line.rsplit_once(' ').map_or("", |(what, _)| what).to_owned();
        let (mut length, mut bearer) = (0_usize, String::new());
        loop {
            let mut field = String::new();
            reader.read_line(&mut field)?;
            let Some((name, value)) = field.trim_end().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap_or(0),
                "authorization" => {
                    value.trim().strip_prefix("Bearer ").unwrap_or_default().clone_into(&mut bearer)
                }
                _ => {}
            }
        }
        let mut body = vec![0; length.min(1 << 20)];
        reader.read_exact(&mut body)?;
        let claims = claims_of(&bearer, &state.public_key);
        let signed = claims.is_some();
        state.asked.lock().unwrap_or_else(PoisonError::into_inner).push(Asked {
            what: what.clone(),
            claims: claims.unwrap_or(Value::Null),
            bearer: (!signed).then_some(bearer),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        });
        let (status, answer) = match what.as_str() {
            "DELETE /installation/token" => (204, Value::Null),
            _ if !signed => (401, json!({ "message": "A JSON web token could not be decoded" })),
            "POST /app/installations/7/access_tokens" => {
                state.answer.lock().unwrap_or_else(PoisonError::into_inner).clone()
            }
            _ if what.ends_with("/installation")
                && ["GET /repos/team/", "GET /repos/acme/"].iter().any(|begin| what.starts_with(begin)) =>
            {
                (200, json!({ "id": 7 }))
            }
            _ => (404, json!({ "message": "Not Found" })),
        };
        let text = if status == 204 { String::new() } else { answer.to_string() };
        let length = text.len();
        let mut stream = reader.get_ref();
        write!(
            stream,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{text}"
        )?;
    }
}

/// The claims of a JSON Web Token that this key signed.
fn claims_of(token: &str, public_key: &[u8]) -> Option<Value> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (head, claims) = signed.split_once('.')?;
    let head: Value = serde_json::from_slice(&unbase64url(head)?).ok()?;
    let signature = unbase64url(signature)?;
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let holds = algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == SignatureScheme::RSA_PKCS1_SHA256)
        .flat_map(|(_, all)| all.iter())
        .any(|one| one.verify_signature(public_key, signed.as_bytes(), &signature).is_ok());
    (holds && head.get("alg") == Some(&json!("RS256")))
        .then(|| serde_json::from_slice(&unbase64url(claims)?).ok())?
}
