//! `config.toml` in the state folder: what the operator of this machine decides. Absent is fine.

mod setup;
mod upstream;

pub(crate) use setup::SetupConfig;
pub(crate) use upstream::{LoginProgram, ModelsConfig, RouteConfig, UpstreamConfig, check_hops};

use crate::exit::Problem;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tipstaff_model::warrant::HostPattern;
use tipstaff_model::{MicroUsd, OfferPattern};
use tipstaff_runner::{Stall, wrong_line};

/// The name of the file.
pub(crate) const CONFIG_FILE: &str = "config.toml";

/// What the file says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where models are asked, by provider.
    pub(crate) upstreams: BTreeMap<String, UpstreamConfig>,
    /// Which models may be asked at all.
    pub(crate) models: ModelsConfig,
    /// Who serves which models.
    pub(crate) routes: BTreeMap<OfferPattern, RouteConfig>,
    /// How runs are watched.
    pub(crate) run: RunConfig,
    /// How granted hosts are reached.
    pub(crate) network: NetworkConfig,
    /// What may be spent while the store can't be reached.
    pub(crate) money: MoneyConfig,
    /// Whom to tell about budgets.
    pub(crate) notify: NotifyConfig,
    /// What set-ups of repositories may reach, and how much is kept of them.
    pub(crate) setup: SetupConfig,
}

/// The reserve of a run that nobody configured: $0.05.
const USUAL_RESERVE: MicroUsd = MicroUsd::from_micro(50_000);

/// The `[money]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MoneyConfig {
    /// What a run may spend while the store can't be reached, in dollars; `"0"` for nothing.
    reserve: Option<String>,
}

impl MoneyConfig {
    /// The reserve of a run.
    pub(crate) fn reserve(&self) -> anyhow::Result<MicroUsd> {
        match self.reserve.as_deref() {
            None => Ok(USUAL_RESERVE),
            Some("0" | "0.0" | "0.00" | "$0") => Ok(MicroUsd::ZERO),
            Some(text) => text.parse::<MicroUsd>().map_err(|error| {
                Problem::usage(
                    "config-invalid",
                    format!("money.reserve in {CONFIG_FILE}: {error}; \"0\" for none"),
                )
            }),
        }
    }
}

/// The `[notify]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NotifyConfig {
    /// The program that is told when a share of a budget is spent, and its arguments.
    pub(crate) command: Vec<String>,
}

/// The `[network]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NetworkConfig {
    /// Addresses of hosts that no public name server knows, private ones included: `"git.corp.example" = ["10.0.0.5"]`.
    /// A warrant must name the host all the same.
    hosts: BTreeMap<String, Vec<IpAddr>>,
    /// A file with further certificate authorities for inspected hosts, as PEM: a company's own. Beside this file, or an
    /// absolute path.
    extra_roots: Option<PathBuf>,
}

impl NetworkConfig {
    /// The further authorities; empty when there are none.
    pub(crate) fn extra_roots(&self, home: &Path) -> anyhow::Result<String> {
        let Some(path) = &self.extra_roots else { return Ok(String::new()) };
        let path = home.join(path);
        std::fs::read_to_string(&path).map_err(|error| {
            let text =
                format!("network.extra_roots in {CONFIG_FILE}: {} can't be read: {error}", path.display());
            Problem::usage("config-invalid", text)
        })
    }

    /// The addresses by host, names in lower case without a final dot.
    pub(crate) fn host_addresses(&self) -> anyhow::Result<BTreeMap<String, Vec<IpAddr>>> {
        let read = |(name, addresses): (&String, &Vec<IpAddr>)| {
            let host = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            if host.parse::<HostPattern>().is_err() || host.contains(['*', ':']) || addresses.is_empty() {
                let text = format!(
                    "network.hosts in {CONFIG_FILE}: '{}' needs to be a host's name with at least one address, such as \"git.corp.example\" = [\"10.0.0.5\"]",
                    name.escape_debug()
                );
                return Err(Problem::usage("config-invalid", text));
            }
            Ok((host, addresses.clone()))
        };
        self.hosts.iter().map(read).collect()
    }
}

/// The `[run]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RunConfig {
    /// After how long an agent's silence is said; `0s` for never.
    stall_warning: Option<String>,
    /// After how long an agent that does nothing is stopped; `0s` for never.
    stall_stop: Option<String>,
    /// Whether workspaces are layers over a shared checkout, where the kernel can; `false`: each is a clone of its own.
    pub(crate) layers: Option<bool>,
    /// What is kept of sessions where a run does not say.
    pub(crate) privacy: Option<tipstaff_model::PrivacyClass>,
}

impl Config {
    /// Reads the file in `home`.
    pub(crate) fn read(home: &Path) -> anyhow::Result<Self> {
        let path = home.join(CONFIG_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                let text = format!("{} can't be read: {error}", path.display());
                return Err(Problem::usage("config-invalid", text));
            }
        };
        let config: Self = toml::from_str(&text).map_err(|error| {
            let line = wrong_line(&text, &error);
            let text = format!("{} is wrong in line {line}: {}", path.display(), error.message());
            Problem::usage("config-invalid", text)
        })?;
        upstream::check(&config.upstreams, &config.routes)?;
        Ok(config)
    }

    /// How long an agent may do nothing. The environment wins over the file.
    pub(crate) fn stall(&self, warning: Option<&str>, stop: Option<&str>) -> anyhow::Result<Stall> {
        let usual = Stall::default();
        let one = |given: Option<&str>, name: &str, usual| match given {
            None => Ok(usual),
            Some("0" | "0s") => Ok(None),
            Some(text) => crate::cli::parse_duration_ms(text)
                .map(|ms| Some(Duration::from_millis(ms)))
                .map_err(|error| Problem::usage("config-invalid", format!("{name}: {error}"))),
        };
        Ok(Stall {
            warning: one(warning.or(self.run.stall_warning.as_deref()), "stall_warning", usual.warning)?,
            stop: one(stop.or(self.run.stall_stop.as_deref()), "stall_stop", usual.stop)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let place = tempfile::tempdir().unwrap();
        assert!(Config::read(place.path()).unwrap().upstreams.is_empty());
        let write = |text: &str| std::fs::write(place.path().join(CONFIG_FILE), text).unwrap();
        write("[upstreams.local]\nwire = \"openai\"\nurl = \"http://127.0.0.1:11434/v1\"\n");
        let config = Config::read(place.path()).unwrap();
        assert_eq!(config.upstreams["local"].wire("local").unwrap(), tipstaff_broker::Wire::OpenAi);
        for (text, word) in [
            ("[upstreams.local]\nurl = \"http://127.0.0.1\"\n", "needs wire"),
            ("[upstreams.local]\nwire = \"openai\"\n", "needs url"),
            ("[upstreams.openai]\nkey_file = \"a\"\nkey_env = \"B\"\n", "keep one"),
            ("[upstreams.openai]\nlogin = \"claude\"\n", "own provider"),
            ("[upstreams.openai]\ncalls = 0\n", "line 2"),
            ("[routes]\n\"gpt-*\" = \"Big\"\n", "no upstream's name"),
            ("[routes]\n\"gpt-*\" = { upstream = \"a\", model = \"b*\" }\n", "without '*'"),
            (
                "[routes]\n\"gpt-*\" = { upstream = \"a\", fallback = [\"b\", \"c\", \"d\", \"e\"] }\n",
                "1 to 4",
            ),
            ("[routes]\n\"g*t\" = \"a\"\n", "line 2"),
            ("[models]\nallow = [\"A/b\"]\n", "line 2"),
        ] {
            write(text);
            let error = Config::read(place.path()).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        write(
            "[models]\nallow = [\"anthropic/*\"]\n[routes]\n\"claude-*\" = { upstream = \"a\", model = \"b\", fallback = [\"c\", { upstream = \"d\", model = \"e\" }] }\n",
        );
        let config = Config::read(place.path()).unwrap();
        let hops = config.routes.values().next().unwrap().hops();
        let said: Vec<_> = hops.iter().map(|hop| (hop.upstream.as_str(), hop.model.as_deref())).collect();
        assert_eq!(said, [("a", Some("b")), ("c", None), ("d", Some("e"))]);
        assert_eq!(config.models.layer().rules.len(), 1);
        write("[upstreams.x]\nurl = \"y\"\nkey = \"sk-1\"\n");
        let error = Config::read(place.path()).unwrap_err().to_string();
        assert!(error.contains("line 3") && !error.contains("sk-1"), "{error}");
    }

    #[test]
    fn the_operators_own_hosts_are_read_exactly() {
        let of = |text: &str| toml::from_str::<Config>(text).unwrap().network.host_addresses();
        let read = of("[network.hosts]\n\"Git.Corp.example.\" = [\"10.0.0.5\", \"::1\"]\n").unwrap();
        assert_eq!(read["git.corp.example"].len(), 2);
        for bad in [
            "\"*.corp.example\" = [\"10.0.0.5\"]",
            "\"a.b:1\" = [\"10.0.0.5\"]",
            "\"a.b\" = []",
            "\"\" = [\"::1\"]",
        ] {
            assert!(of(&format!("[network.hosts]\n{bad}\n")).is_err(), "{bad}");
        }
        assert!(toml::from_str::<Config>("[network.hosts]\n\"a.b\" = [\"nowhere\"]\n").is_err());
    }

    #[test]
    fn a_reserve_is_an_amount_or_nothing() {
        let reserve = |text: &str| toml::from_str::<Config>(text).unwrap().money.reserve();
        assert_eq!(reserve("").unwrap().micro(), 50_000);
        assert_eq!(reserve("[money]\nreserve = \"0\"\n").unwrap(), MicroUsd::ZERO);
        assert_eq!(reserve("[money]\nreserve = \"0.2\"\n").unwrap().micro(), 200_000);
        assert!(reserve("[money]\nreserve = \"much\"\n").is_err());
        let config: Config = toml::from_str("[notify]\ncommand = [\"/usr/bin/mail\", \"me\"]\n").unwrap();
        assert_eq!(config.notify.command.len(), 2);
    }

    #[test]
    fn a_stall_is_configurable_and_can_be_switched_off() {
        let config: Config = toml::from_str("[run]\nstall_warning = \"10s\"\nstall_stop = \"0s\"\n").unwrap();
        let stall = config.stall(None, None).unwrap();
        assert_eq!(stall, Stall { warning: Some(Duration::from_secs(10)), stop: None });
        let stall = config.stall(Some("5s"), Some("7s")).unwrap();
        assert_eq!(
            stall,
            Stall { warning: Some(Duration::from_secs(5)), stop: Some(Duration::from_secs(7)) }
        );
        assert!(config.stall(Some("soon"), None).is_err());
        assert_eq!(Config::default().stall(None, None).unwrap(), Stall::default());
    }
}
