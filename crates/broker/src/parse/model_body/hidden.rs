//! What a body hides or may not ask for: kept prompts, other models, input from elsewhere, depth.

use super::BodyProblem;
use super::fields::Fields;
use crate::parse::meter::Api;
use memchr::memmem;
use serde_json::value::RawValue;

/// What a request may not ask for: its cost or its content could not be known here.
pub(super) fn refuse_kept_prompts(api: Api, fields: &Fields<'_>) -> Result<(), BodyProblem> {
    const KEPT: &str = "the whole prompt must be in the request";
    const OTHER: &str = "the request names exactly one model";
    let refused: &[(&'static str, &'static str)] = match api {
        Api::Messages => &[("container", KEPT), ("mcp_servers", "servers are reached through the broker")],
        Api::Responses => &[("previous_response_id", KEPT), ("conversation", KEPT), ("prompt", KEPT)],
        Api::ChatCompletions => &[],
        Api::GenerateContent => &[("cachedContent", KEPT), ("cached_content", KEPT)],
    };
    let everywhere =
        [("models", OTHER), ("fallbacks", OTHER), ("fallback_model", OTHER), ("fallback_models", OTHER)];
    for (name, why) in refused.iter().chain(&everywhere) {
        if fields.get(name).is_some_and(|value| !matches!(value, "[]" | "\"\"" | "false")) {
            return Err(BodyProblem::NotServed(name, why));
        }
    }
    if fields.get("background").is_some_and(|value| value != "false") {
        return Err(BodyProblem::NotServed("background", "an answer is read where it was asked for"));
    }
    Ok(())
}

/// Models that the provider's own tools would ask.
pub(super) fn models_of_tools(fields: &Fields<'_>) -> Result<Vec<String>, BodyProblem> {
    let Some(tools) = fields.get("tools") else { return Ok(Vec::new()) };
    let tools: Vec<&RawValue> = serde_json::from_str(tools).map_err(|_| BodyProblem::Field("tools"))?;
    let mut found = Vec::new();
    for tool in tools {
        let tool = Fields::read(tool.get()).map_err(|_| BodyProblem::Field("tools"))?;
        tool.exactly(&["model"])?;
        if let Some(raw) = tool.get("model") {
            found.push(serde_json::from_str(raw).map_err(|_| BodyProblem::Field("tools"))?);
        }
    }
    Ok(found)
}

/// Whether a JSON text nests at most `deepest` levels. Doesn't check anything else.
pub(in crate::parse) fn depth_within(text: &[u8], deepest: usize) -> bool {
    let (mut depth, mut at) = (0_usize, 0_usize);
    while let Some(byte) = text.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > deepest {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                at += 1;
                while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
                    at += found;
                    if text.get(at) == Some(&b'"') {
                        break;
                    }
                    at += 2;
                }
            }
            _ => {}
        }
        at += 1;
    }
    true
}

/// Whether letters are written as escapes, which could hide a name that is looked for.
pub(super) fn escapes_letters(body: &[u8]) -> bool {
    memmem::find_iter(body, b"\\u00").any(|at| {
        body.get(at + 4..at + 6)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// Whether a request may refer to input outside of it: files, addresses, the provider's own tools.
pub(super) fn hides_input(body: &[u8]) -> bool {
    const WORDS: [&[u8]; 12] = [
        b"file_id",
        b"fileUri",
        b"file_uri",
        b"file_url",
        b"\"url\"",
        b"image_url",
        b"\"web_",
        b"google",
        b"url_context",
        b"urlContext",
        b"\"code_",
        b"\"file_search",
    ];
    WORDS.iter().any(|word| memmem::find(body, word).is_some()) || escapes_letters(body)
}

/// Bytes of long unbroken base64, less what an image may count as.
pub(super) fn blobs(body: &[u8]) -> u64 {
    const LONG: usize = 4096;
    const IMAGE: usize = 16_000;
    let mut sum = 0_usize;
    for text in body.split(|b| *b == b'"' || *b == b',') {
        if text.len() > LONG
            && text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_'))
        {
            sum += text.len().saturating_sub(IMAGE);
        }
    }
    u64::try_from(sum).unwrap_or(u64::MAX)
}
