//! The part of the command line about inspected hosts and the secrets that are used there.

use clap::Args;
use std::str::FromStr;
use tipstaff_broker::SecretPlace;
use tipstaff_model::warrant::{HostChoice, HostPattern, HostRules, RequestRule, UrlPattern};

/// The longest method and the longest name of a tool, in bytes.
const LONGEST_WORD: usize = 128;

/// Methods that an endpoint of the Model Context Protocol has.
const MCP_METHODS: [&str; 3] = ["POST", "GET", "DELETE"];

/// What a run may ask of hosts, request by request.
#[derive(Debug, Default, Args)]
pub(crate) struct WaysArgs {
    /// A host that the run may reach and whose requests are read: TLS to it ends in the broker, under an authority that
    /// only this run's sandbox trusts
    #[arg(long, value_name = "HOST", value_parser = HostPattern::from_str)]
    pub(crate) inspect: Vec<HostPattern>,
    /// A request that the run may make; its host is inspected, and nothing else of it is granted:
    /// 'GET https://api.example.com/repos/**', 'GET,POST https://…', '* https://…'
    #[arg(long, value_name = "METHOD URL")]
    pub(crate) allow_request: Vec<RequestGrant>,
    /// A tool that the run may call at an endpoint of the Model Context Protocol:
    /// 'https://mcp.example.com/mcp#search'
    #[arg(long, value_name = "URL#TOOL")]
    pub(crate) allow_tool: Vec<ToolGrant>,
    /// A secret that was set with --host: the run holds a handle in a variable of its name, and the broker puts the value
    /// into requests to its host and path
    #[arg(long, value_name = "NAME")]
    pub(crate) secret: Vec<String>,
}

impl WaysArgs {
    /// The hosts that are granted, with those that the other options imply.
    pub(crate) fn allow_hosts(&self, given: &[HostChoice]) -> Vec<String> {
        let given = given.iter().map(ToString::to_string);
        let implied = self.host_rules().into_iter().map(|rules| rules.host.to_string());
        let mut hosts: Vec<String> = Vec::new();
        for host in given.chain(implied) {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        hosts
    }

    /// One entry for each host.
    pub(crate) fn host_rules(&self) -> Vec<HostRules> {
        let mut all: Vec<HostRules> = Vec::new();
        let inspected = self.inspect.iter().map(|host| (host, true, None));
        let requests =
            self.allow_request.iter().map(|grant| (&grant.host, grant.tls, Some(grant.rule.clone()))).chain(
                self.allow_tool
                    .iter()
                    .map(|ToolGrant(grant)| (&grant.host, grant.tls, Some(grant.rule.clone()))),
            );
        for (host, inspect, rule) in inspected.chain(requests) {
            let at = all.iter().position(|rules| rules.host == *host).unwrap_or_else(|| {
                all.push(HostRules { host: host.clone(), inspect: false, requests: Vec::new() });
                all.len() - 1
            });
            let Some(rules) = all.get_mut(at) else { continue };
            rules.inspect |= inspect;
            let Some(rule) = rule else { continue };
            let same = |one: &&mut RequestRule| {
                !rule.tools.is_empty()
                    && !one.tools.is_empty()
                    && one.path == rule.path
                    && one.methods == rule.methods
            };
            match rules.requests.iter_mut().find(same) {
                Some(one) => one.tools.extend(rule.tools),
                None => rules.requests.push(rule),
            }
        }
        all
    }
}

/// One `--allow-request`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestGrant {
    host: HostPattern,
    tls: bool,
    rule: RequestRule,
}

impl FromStr for RequestGrant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write METHOD URL, such as 'GET https://api.example.com/repos/**'".to_owned();
        let (methods, url) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let (host, tls, path) = place(url.trim())?;
        let methods = if methods == "*" {
            Vec::new()
        } else {
            methods.split(',').map(method).collect::<Option<Vec<_>>>().ok_or_else(wrong)?
        };
        Ok(Self { host, tls, rule: RequestRule { methods, path, tools: Vec::new() } })
    }
}

fn method(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    // A tunnel within a request, and one that shows a server's own view of it, are never served.
    let served = !matches!(upper.as_str(), "CONNECT" | "TRACE");
    let letters = (1..=16).contains(&upper.len()) && upper.bytes().all(|b| b.is_ascii_uppercase());
    (served && letters).then_some(upper)
}

/// One `--allow-tool`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToolGrant(RequestGrant);

impl FromStr for ToolGrant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (url, tool) = text.trim().split_once('#').unwrap_or((text, ""));
        let graphic = tool.bytes().all(|b| b.is_ascii_graphic());
        if tool.is_empty() || tool.len() > LONGEST_WORD || !graphic {
            return Err("write URL#TOOL, such as 'https://mcp.example.com/mcp#search'".to_owned());
        }
        let (host, tls, path) = place(url)?;
        if !tls {
            return Err("tools are granted over https:// only".to_owned());
        }
        let methods = MCP_METHODS.map(ToOwned::to_owned).to_vec();
        Ok(Self(RequestGrant {
            host,
            tls,
            rule: RequestRule { methods, path, tools: vec![tool.to_owned()] },
        }))
    }
}

/// Reads a URL: host with port, whether it is over TLS, path pattern.
fn place(url: &str) -> Result<(HostPattern, bool, UrlPattern), String> {
    let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err("the URL needs to begin with https:// or http://".to_owned()),
    };
    let at = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let usual = if tls { "443" } else { "80" };
    let host = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:{usual}") };
    let host: HostPattern =
        host.parse().map_err(|error: tipstaff_model::warrant::PatternError| error.to_string())?;
    let path = if path.is_empty() { "/" } else { path };
    let path = path.parse().map_err(|error: tipstaff_model::warrant::PatternError| error.to_string())?;
    Ok((host, tls, path))
}

/// What a secret is for.
#[derive(Debug, Default, Args)]
pub(crate) struct BindingArgs {
    /// The one host that the value is for: api.example.com, with :PORT for a port other than 443. Runs get a handle; the
    /// broker puts the value in on the way out
    #[arg(long, value_name = "HOST", value_parser = HostPattern::from_str, conflicts_with_all = ["provider", "git"])]
    pub(crate) host: Option<HostPattern>,
    /// The paths there that it is for [default: /**]
    #[arg(long, value_name = "PATH", value_parser = UrlPattern::from_str, requires = "host")]
    pub(crate) path: Option<UrlPattern>,
    /// The one header field it may stand in, and how: 'Authorization: Bearer {}', {} being the value
    /// [default: any field that carries credentials, also as a part of Basic authentication]
    #[arg(long, value_name = "FIELD", value_parser = parse_field, requires = "host", conflicts_with = "query")]
    pub(crate) header: Option<SecretPlace>,
    /// The parameter of the query that it stands in, for services that take it nowhere else
    #[arg(long, value_name = "PARAMETER", value_parser = parse_query, requires = "host")]
    pub(crate) query: Option<SecretPlace>,
}

fn parse_field(text: &str) -> Result<SecretPlace, String> {
    SecretPlace::field(text).ok_or_else(|| {
        "write a header field with one {} where the value stands, such as 'Authorization: Bearer {}'"
            .to_owned()
    })
}

fn parse_query(text: &str) -> Result<SecretPlace, String> {
    SecretPlace::query(text).ok_or_else(|| "write the name of one parameter, such as 'key'".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_of_one_host_are_one_entry() {
        let ways = WaysArgs {
            inspect: vec!["api.example.com".parse().unwrap()],
            allow_request: ["get,POST https://api.example.com/repos/**", "* http://plain.example.com/"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            allow_tool: ["https://mcp.example.com:8443/mcp#a", "https://mcp.example.com:8443/mcp#b"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            secret: Vec::new(),
        };
        let rules = ways.host_rules();
        let told: Vec<String> =
            rules.iter().map(|rules| format!("{} {}", rules.host, rules.inspect)).collect();
        assert_eq!(
            told,
            ["api.example.com:443 true", "plain.example.com:80 false", "mcp.example.com:8443 true"]
        );
        assert_eq!(rules[0].requests[0].methods, ["GET", "POST"]);
        assert!(rules[1].requests[0].methods.is_empty());
        assert_eq!(rules[2].requests.len(), 1);
        assert_eq!(rules[2].requests[0].tools, ["a", "b"]);
        let hosts =
            ways.allow_hosts(&["api.example.com".parse().unwrap(), "other.example.com".parse().unwrap()]);
        assert_eq!(hosts.len(), 4, "{hosts:?}");
    }

    #[test]
    fn what_is_no_grant_is_refused() {
        for bad in [
            "GET",
            "https://a.b/",
            "G3T https://a.b/",
            "GET ftp://a.b/",
            "GET https://localhost/",
            "GET https://a.b/../c",
            "GET https://u@a.b/",
            "TRACE https://a.b/",
            "GET, https://a.b/",
            "GET https://a.b/?q",
        ] {
            assert!(bad.parse::<RequestGrant>().is_err(), "{bad}");
        }
        for bad in ["https://a.b/mcp", "https://a.b/mcp#", "http://a.b/mcp#t", "#t", "https://a.b/mcp#a b"] {
            assert!(bad.parse::<ToolGrant>().is_err(), "{bad}");
        }
    }
}
