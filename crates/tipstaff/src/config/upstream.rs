//! `[upstreams.NAME]`, `[models]` and `[routes]` of `config.toml`.

use super::CONFIG_FILE;
use crate::exit::Problem;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use tipstaff_broker::{Hop, PlainHttp, Wire};
use tipstaff_model::allowed::provider_name_is_valid;
use tipstaff_model::warrant::ModelPattern;
use tipstaff_model::{ModelEffect, ModelLayer, OfferPattern};

/// The most upstreams that one route names.
pub(crate) const MOST_HOPS: usize = 4;

/// One upstream.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpstreamConfig {
    /// What it speaks: `anthropic`, `openai` or `gemini`. May be left away for these three names.
    wire: Option<String>,
    /// Its base URL. May be left away for the three names too: the provider's own.
    pub(crate) url: Option<String>,
    /// Whether plain HTTP to another network is accepted, which carries the key in clear.
    #[serde(default)]
    plain_http: bool,
    /// A file with the operator's key, which nobody else may read; relative to the state folder.
    pub(crate) key_file: Option<PathBuf>,
    /// The variable of the environment with the operator's key.
    pub(crate) key_env: Option<String>,
    /// Whose login may be used: `claude` or `codex`, each person's own.
    pub(crate) login: Option<LoginProgram>,
    /// Calls at once, of all runs of a process.
    pub(crate) calls: Option<NonZeroUsize>,
}

/// A program that keeps a person's login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoginProgram {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
}

impl LoginProgram {
    /// What it is called on the command line.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
        }
    }

    /// What its provider speaks.
    pub(crate) const fn wire(self) -> Wire {
        match self {
            Self::Claude => Wire::Anthropic,
            Self::Codex => Wire::OpenAi,
        }
    }

    /// Where its logins count.
    pub(crate) const fn base(self) -> &'static str {
        match self {
            Self::Claude => "https://api.anthropic.com",
            Self::Codex => "https://chatgpt.com/backend-api/codex",
        }
    }
}

impl UpstreamConfig {
    pub(crate) const fn plain(&self) -> PlainHttp {
        if self.plain_http { PlainHttp::Anywhere } else { PlainHttp::LoopbackOnly }
    }

    pub(crate) fn wire(&self, name: &str) -> anyhow::Result<Wire> {
        let word = self.wire.as_deref().unwrap_or(name);
        Wire::named(word).ok_or_else(|| {
            wrong(format!(
                "upstreams.{name} in {CONFIG_FILE} needs wire = \"anthropic\", \"openai\" or \"gemini\": what it speaks"
            ))
        })
    }

    /// What the form alone can't refuse.
    pub(super) fn check(&self, name: &str) -> anyhow::Result<()> {
        let wire = self.wire(name)?;
        if self.url.is_none() && Wire::named(name).is_none() {
            return Err(wrong(format!(
                "upstreams.{name} in {CONFIG_FILE} needs url = \"https://…\": where it is"
            )));
        }
        if self.key_file.is_some() && self.key_env.is_some() {
            return Err(wrong(format!(
                "upstreams.{name} in {CONFIG_FILE} has key_file and key_env: keep one of them"
            )));
        }
        if let Some(login) = self.login.filter(|login| login.wire() != wire) {
            return Err(wrong(format!(
                "upstreams.{name} in {CONFIG_FILE} has login = \"{}\" and speaks {}: a login counts at its own provider only",
                login.as_str(),
                wire.as_str()
            )));
        }
        Ok(())
    }
}

/// The `[models]` table: the ceiling over all orgs of this installation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ModelsConfig {
    allow: Vec<OfferPattern>,
    deny: Vec<OfferPattern>,
}

impl ModelsConfig {
    /// The operator's layer.
    pub(crate) fn layer(&self) -> ModelLayer {
        let allow = self.allow.iter().map(|pattern| (pattern.clone(), ModelEffect::Allow));
        let deny = self.deny.iter().map(|pattern| (pattern.clone(), ModelEffect::Deny));
        ModelLayer { owner: format!("the operator ({CONFIG_FILE})"), rules: allow.chain(deny).collect() }
    }
}

/// One upstream of a route, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "an upstream's name, or { upstream = \"NAME\", model = \"MODEL\" }")]
enum HopConfig {
    Name(String),
    Full(FullHop),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FullHop {
    upstream: String,
    model: Option<String>,
}

/// A route, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "an upstream's name, or { upstream = \"NAME\", model = \"MODEL\", fallback = [\"NAME\"] }"
)]
pub(crate) enum RouteConfig {
    /// One upstream.
    Name(String),
    /// All that can be said.
    Full(FullRoute),
}

/// A route with all that can be said.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FullRoute {
    upstream: String,
    model: Option<String>,
    #[serde(default)]
    fallback: Vec<HopConfig>,
}

impl RouteConfig {
    /// The upstreams, in order.
    pub(crate) fn hops(&self) -> Vec<Hop> {
        let hop = |upstream: &String, model: &Option<String>| Hop {
            upstream: upstream.clone(),
            model: model.clone(),
        };
        match self {
            Self::Name(name) => vec![hop(name, &None)],
            Self::Full(route) => std::iter::once(hop(&route.upstream, &route.model))
                .chain(route.fallback.iter().map(|one| match one {
                    HopConfig::Name(name) => hop(name, &None),
                    HopConfig::Full(full) => hop(&full.upstream, &full.model),
                }))
                .collect(),
        }
    }
}

/// Whether these can be the upstreams of a route.
pub(crate) fn check_hops(hops: &[Hop]) -> Result<(), String> {
    if hops.is_empty() || hops.len() > MOST_HOPS {
        return Err(format!("a route names 1 to {MOST_HOPS} upstreams"));
    }
    for hop in hops {
        if !provider_name_is_valid(&hop.upstream) {
            return Err(format!("'{}' is no upstream's name", hop.upstream.escape_debug()));
        }
        let plain = |name: &String| name.parse::<ModelPattern>().is_ok() && !name.ends_with('*');
        if hop.model.as_ref().is_some_and(|name| !plain(name)) {
            return Err("a model at an upstream is its whole name, without '*'".to_owned());
        }
    }
    Ok(())
}

/// Checks what the three tables say together.
pub(super) fn check(
    upstreams: &BTreeMap<String, UpstreamConfig>,
    routes: &BTreeMap<OfferPattern, RouteConfig>,
) -> anyhow::Result<()> {
    for (name, upstream) in upstreams {
        upstream.check(name)?;
    }
    for (pattern, route) in routes {
        check_hops(&route.hops())
            .map_err(|why| wrong(format!("routes.\"{pattern}\" in {CONFIG_FILE} is wrong: {why}")))?;
    }
    Ok(())
}

fn wrong(text: String) -> anyhow::Error {
    Problem::usage("config-invalid", text)
}
