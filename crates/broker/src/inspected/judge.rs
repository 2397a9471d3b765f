//! Whether a request within TLS may go out, and in which form.

use super::secrets::Place;
use super::{fields, secrets::Secrets};
use crate::parse::head::{Authority, Head, Target, authority};
use crate::parse::rpc_body::{RpcBody, RpcMessage, TOOLS_CALL};
use crate::parse::url_path;
use http::{HeaderMap, Method};
use tipstaff_model::warrant::RequestVerdict;
use tipstaff_model::{Refusal, Rule, Warrant};

/// A request that may go out.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) method: Method,
    /// Path and query, to be sent.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    /// Whether its body is to be read for the tools that it calls.
    pub(super) by_tool: bool,
    /// What it was granted for.
    pub(super) granted: Granted,
}

/// What a request was granted for: asked again when the warrant changes while it goes on.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    method: String,
    /// The paths that a server may read.
    readings: Vec<String>,
    /// The tools that it calls.
    tools: Vec<String>,
    /// The secrets that it carries.
    secrets: Vec<String>,
}

impl Granted {
    /// Whether it would be granted under this warrant.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn still(
        &self,
        warrant: &Warrant,
        Authority { host, port }: &Authority,
    ) -> Result<(), Refusal> {
        for reading in &self.readings {
            warrant.permits_request(host, *port, &self.method, reading)?;
            for tool in &self.tools {
                warrant.permits_tool(host, *port, &self.method, reading, tool)?;
            }
            for secret in &self.secrets {
                warrant.permits_secret(secret, host, *port, reading)?;
            }
        }
        Ok(())
    }
}

/// Judges a request by all but its body.
///
/// # Errors
/// The refusal.
pub(super) fn judge(
    warrant: &Warrant,
    secrets: &Secrets,
    wanted: &Authority,
    head: &Head,
) -> Result<Judged, Refusal> {
    let place = Place { host: &wanted.host, port: wanted.port };
    let ambiguous = |why: String| Refusal::new(Rule::RequestAmbiguous, format!("a request to {wanted}"), why);
    let Target::Origin(target) = &head.target else {
        let why = "only paths of the host itself are served within its TLS";
        return Err(Refusal::new(Rule::RequestNotServed, format!("a request to {wanted}"), why));
    };
    let host = head.fields.iter().find(|(name, _)| name == "host").map(|(_, value)| value.as_str());
    let named = host.and_then(|host| authority(host, Some(443)));
    // Clients leave the port out, or write it.
    if named.as_ref().is_none_or(|named| {
        named.host != wanted.host
            || (named.port != wanted.port && host.is_some_and(|host| host.contains(':')))
    }) {
        let named = host.unwrap_or_default();
        return Err(Refusal::new(
            Rule::TlsNameMismatch,
            format!("{named} within TLS to {wanted}"),
            format!("a request within TLS to {wanted} names another host"),
        ));
    }
    let upgrades = head.fields.iter().any(|(name, value)| {
        name == "upgrade"
            || name == "http2-settings"
            || (name == "connection"
                && value.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")))
    });
    if upgrades || head.method == "CONNECT" || head.method == "TRACE" {
        let why = "upgrades, such as WebSocket, and tunnels within an inspected connection are not served";
        return Err(Refusal::new(Rule::ProtocolNotServed, format!("{wanted} {}", head.method), why));
    }
    if let Some(field) = fields::overriding(&head.fields) {
        return Err(ambiguous(format!("its field {field} says that it means another request")));
    }
    let path = url_path::read(target).map_err(|trick| ambiguous(trick.to_string()))?;
    let mut query = target.split_once('?').map(|(_, query)| query.to_owned());
    let mut by_tool = false;
    for reading in path.readings() {
        let verdict = warrant.permits_request(place.host, place.port, &head.method, reading)?;
        by_tool |= verdict == RequestVerdict::ByTool;
    }
    let readings: Vec<String> = path.readings().map(ToOwned::to_owned).collect();
    let searched = secrets.any_for(warrant, place);
    let method =
        Method::from_bytes(head.method.as_bytes()).map_err(|_| ambiguous("its method".to_owned()))?;
    let mut headers = fields::request(&head.fields, wanted, 443, searched)
        .ok_or_else(|| ambiguous("a field has no form that can be passed on".to_owned()))?;
    if by_tool {
        tool_fields(&method, &head.fields).map_err(|why| {
            Refusal::new(Rule::RequestNotGranted, format!("{method} {wanted}{}", path.as_sent()), why)
        })?;
    }
    let used = secrets.put_in(warrant, place, &path, &mut query, &mut headers)?;
    let target = match query {
        Some(query) => format!("{}?{query}", path.as_sent()),
        None => path.as_sent().to_owned(),
    };
    let granted = Granted { method: head.method.clone(), readings, tools: Vec::new(), secrets: used };
    Ok(Judged { method, target, headers, by_tool, granted })
}

/// What a request needs whose body is read.
fn tool_fields(method: &Method, fields: &[(String, String)]) -> Result<(), &'static str> {
    let all = |wanted: &'static str| {
        fields.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_str())
    };
    match method.as_str() {
        // The stream of the server's messages, and the end of a session.
        "GET" | "DELETE" => return Ok(()),
        "POST" => {}
        _ => return Err("where tools are granted only POST, GET and DELETE are served"),
    }
    if all("content-encoding").any(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err("where tools are granted a body must not be compressed");
    }
    // Of two types one reader takes the first and another one the last.
    let kinds: Vec<&str> = all("content-type").collect();
    let [kind] = kinds.as_slice() else {
        return Err("where tools are granted a body needs one content type");
    };
    let mut parts = kind.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let is_utf8 = parts.all(|part| matches!(part.to_ascii_lowercase().as_str(), "" | "charset=utf-8"));
    if is_json && is_utf8 {
        Ok(())
    } else {
        Err("where tools are granted a body must be application/json in UTF-8")
    }
}

/// Judges the messages of a body, and notes what it was granted.
///
/// # Errors
/// The refusal of the first that may not be sent.
pub(super) fn judge_tools(
    warrant: &Warrant,
    wanted: &Authority,
    judged: &mut Judged,
    body: &RpcBody,
) -> Result<(), Refusal> {
    for message in &body.messages {
        if !message.is_served() {
            let method = message.method.as_deref().unwrap_or_default();
            return Err(Refusal::new(
                Rule::ToolNotGranted,
                format!("{wanted}{} {method}", judged.target.split('?').next().unwrap_or_default()),
                format!("the warrant grants named tools there, and {method} is more than a call of one"),
            ));
        }
        judged.granted.tools.extend(message.tool.clone());
    }
    judged.granted.still(warrant, wanted)?;
    mirrored(judged, body)
        .map_err(|why| Refusal::new(Rule::RequestAmbiguous, format!("a request to {wanted}"), why))
}

/// Fields that repeat what the body says, for servers that read only these, must not say something else.
fn mirrored(judged: &Judged, body: &RpcBody) -> Result<(), &'static str> {
    let one: Option<&RpcMessage> = match body.messages.as_slice() {
        [one] => Some(one),
        _ => None,
    };
    let agrees = |name: &str, wanted: Option<&str>| {
        judged.headers.get_all(name).iter().all(|value| value.to_str().ok() == wanted)
    };
    if !agrees("mcp-method", one.and_then(|one| one.method.as_deref())) {
        return Err("its field mcp-method names another method than its body");
    }
    let calls = one.filter(|one| one.method.as_deref() == Some(TOOLS_CALL));
    if calls.is_some() && !agrees("mcp-name", calls.and_then(|one| one.tool.as_deref())) {
        return Err("its field mcp-name names another tool than its body");
    }
    Ok(())
}

/// A refusal as an answer of JSON-RPC: an error for each call.
pub(super) fn rpc_refusal(body: &RpcBody, refusal: &Refusal) -> Option<String> {
    let error = serde_json::json!({
        "code": -32001,
        "message": format!("tipstaff refused {}: {refusal}; next: {}", refusal.wanted, refusal.next_step()),
        "data": { "rule": refusal.rule.id(), "wanted": refusal.wanted },
    });
    let answers: Vec<String> = body
        .messages
        .iter()
        .filter(|message| message.method.is_some())
        .filter_map(|message| message.id.as_ref())
        .map(|id| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
        .collect();
    match (answers.as_slice(), body.batch) {
        ([], _) => None,
        ([one], false) => Some(one.clone()),
        (some, _) => Some(format!("[{}]", some.join(","))),
    }
}
