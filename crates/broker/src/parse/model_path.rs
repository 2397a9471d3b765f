//! Which model request a path means: `/model/<provider>/…`. There is one spelling of each.

use super::meter::Api;
use crate::gateway::Wire;

/// What every path of the gateway begins with.
pub const PREFIX: &str = "/model/";

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A call that costs money.
    Call {
        /// Its form.
        api: Api,
        /// The model, where the path names it.
        model: Option<String>,
        /// Whether the path says that the answer streams.
        streams: bool,
    },
    /// The count of a prompt's tokens, which costs nothing.
    Count {
        /// The form of the request.
        api: Api,
        /// The model, where the path names it.
        model: Option<String>,
    },
    /// The list of models, or what is known about one.
    Models,
}

/// A request for a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRoute {
    /// What is asked for.
    pub endpoint: Endpoint,
    /// The method that it takes.
    pub method: &'static str,
    /// The path at the provider, without query; begins with `/v1`.
    pub path: String,
    /// What of the query is passed on, written anew; without `?`.
    pub query: String,
}

/// Splits a path of the gateway into the provider's name and the rest, which begins with `/`. The query stays.
/// `None` when it is spelled in a way that some readers take for another path.
#[must_use]
pub fn split(target: &str) -> Option<(&str, &str)> {
    let rest = target.strip_prefix(PREFIX)?;
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':' | b'@');
    if !path.bytes().all(plain)
        || path.contains("//")
        || path.split('/').any(|part| matches!(part, "." | ".."))
    {
        return None;
    }
    let at = rest.find('/')?;
    let (provider, rest) = rest.split_at(at);
    let name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (!provider.is_empty() && provider.bytes().all(name) && !rest.starts_with("/?"))
        .then_some((provider, rest))
}

/// Reads what comes after the provider's name. `None` when nothing is served there.
#[must_use]
pub fn parse(wire: Wire, rest: &str) -> Option<ModelRoute> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let call = |api| Endpoint::Call { api, model: None, streams: false };
    let (endpoint, method, passed): (_, _, &[(&str, &[&str])]) = match (wire, parts.as_slice()) {
        (Wire::Anthropic, ["v1", "messages"]) => (call(Api::Messages), "POST", &[("beta", &["true"])]),
        (Wire::Anthropic, ["v1", "messages", "count_tokens"]) => {
            (Endpoint::Count { api: Api::Messages, model: None }, "POST", &[("beta", &["true"])])
        }
        (Wire::OpenAi, ["v1", "responses"]) => (call(Api::Responses), "POST", &[]),
        (Wire::OpenAi, ["v1", "chat", "completions"]) => (call(Api::ChatCompletions), "POST", &[]),
        (Wire::Anthropic | Wire::OpenAi, ["v1", "models"]) | (Wire::Gemini, ["v1" | "v1beta", "models"]) => {
            (Endpoint::Models, "GET", &[])
        }
        (Wire::Anthropic | Wire::OpenAi, ["v1", "models", model])
        | (Wire::Gemini, ["v1" | "v1beta", "models", model])
            if !model.is_empty() && !model.contains(':') =>
        {
            (Endpoint::Models, "GET", &[])
        }
        (Wire::Gemini, ["v1" | "v1beta", "models", action]) => {
            let (model, action) = action.rsplit_once(':')?;
            if model.is_empty() || model.contains(':') {
                return None;
            }
            let model = Some(model.to_owned());
            let endpoint = match action {
                "generateContent" => Endpoint::Call { api: Api::GenerateContent, model, streams: false },
                "streamGenerateContent" => Endpoint::Call { api: Api::GenerateContent, model, streams: true },
                "countTokens" => Endpoint::Count { api: Api::GenerateContent, model },
                _ => return None,
            };
            (endpoint, "POST", &[("alt", &["sse", "json"])])
        }
        _ => return None,
    };
    let mut kept: Vec<String> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some((name, values)) = passed.iter().find(|(known, _)| *known == name) else {
            // A key of the sandbox's own, paging, a client's version: not passed on.
            continue;
        };
        if !values.contains(&value) || kept.iter().any(|other| other.starts_with(&format!("{name}="))) {
            return None;
        }
        kept.push(format!("{name}={value}"));
    }
    Some(ModelRoute { endpoint, method, path: path.to_owned(), query: kept.join("&") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(wire: Wire, target: &str) -> Option<(String, ModelRoute)> {
        let (provider, rest) = split(target)?;
        Some((provider.to_owned(), parse(wire, rest)?))
    }

    #[test]
    fn there_is_one_spelling_of_each_path() {
        let (provider, route) = of(Wire::Anthropic, "/model/anthropic/v1/messages?beta=true").unwrap();
        assert_eq!(
            (provider.as_str(), route.path.as_str(), route.query.as_str()),
            ("anthropic", "/v1/messages", "beta=true")
        );
        let (_, route) = of(
            Wire::Gemini,
            "/model/g/v1beta/models/gemini-2.5-pro:streamGenerateContent?key=stolen&alt=sse",
        )
        .unwrap();
        assert_eq!(route.query, "alt=sse", "a key is dropped");
        assert!(
            matches!(route.endpoint, Endpoint::Call { model: Some(model), streams: true, .. } if model == "gemini-2.5-pro")
        );
        let (_, route) = of(Wire::OpenAi, "/model/openai/v1/models?client_version=1").unwrap();
        assert_eq!((route.endpoint, route.method, route.query.as_str()), (Endpoint::Models, "GET", ""));
        for none in [
            "/model/",
            "/model/a",
            "/model//v1/messages",
            "/model/../v1/messages",
            "/model/a/../v1/messages",
            "/model/a/v1/./messages",
            "/model/a/v1//messages",
            "/model/a/v1/messages/",
            "/model/a%2f/v1/messages",
            "/model/A/v1/messages",
            "/model/a/v1/%6dessages",
            "/model/a/v1/messages\\x",
            "/model/a/v1/messages/batches",
            "/model/a/v1/files",
            "/model/a/v1/complete",
            "/model/a/v1/organizations/usage",
            "/model/a/v2/messages",
            "/model/a/v1/messages?beta=false",
            "/model/a/v1/messages?beta=true&beta=true",
            "/modelx/a/v1/messages",
            "/model/a/v1/messages;x",
            "/model/a/V1/messages",
        ] {
            assert_eq!(of(Wire::Anthropic, none), None, "{none}");
        }
        for none in [
            "/model/g/v1beta/models/x:batchGenerateContent",
            "/model/g/v1beta/models/:generateContent",
            "/model/g/v1beta/models/a:b:generateContent",
            "/model/g/v1beta/cachedContents",
            "/model/g/upload/v1beta/files",
            "/model/g/v1beta/models/x:generateContent?alt=media",
            "/model/g/v1beta/tunedModels/x:generateContent",
        ] {
            assert_eq!(of(Wire::Gemini, none), None, "{none}");
        }
        for none in [
            "/model/o/v1/files",
            "/model/o/v1/embeddings",
            "/model/o/v1/responses/resp_1",
            "/model/o/v1/assistants",
        ] {
            assert_eq!(of(Wire::OpenAi, none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn what_is_passed_on_has_no_second_meaning(target in "/model/[a-z]{0,3}[/a-zA-Z0-9.%_?=:&\\\\-]{0,60}", wire in 0_usize..3) {
            let wire = [Wire::Anthropic, Wire::OpenAi, Wire::Gemini].into_iter().nth(wire).unwrap();
            if let Some((provider, route)) = of(wire, &target) {
                let wanted = format!("/model/{}{}", provider, route.path);
                prop_assert!(target.starts_with(&wanted));
                prop_assert!(!route.path.contains("..") || route.path.contains("models/"));
                prop_assert!(!route.path.contains(['%', '\\', '?']));
                prop_assert!(["", "beta=true", "alt=sse", "alt=json"].contains(&route.query.as_str()));
            }
        }
    }
}
