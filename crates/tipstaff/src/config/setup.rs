//! The `[setup]` table: what set-ups of repositories may reach, and how much of what they make is kept.

use super::CONFIG_FILE;
use crate::exit::Problem;
use serde::Deserialize;
use tipstaff_model::warrant::{HostChoice, HostClass};
use tipstaff_runner::SetupCacheBounds;

/// The table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SetupConfig {
    /// What any set-up may reach, if its repository asks for it; the classes of package registries when absent.
    hosts: Option<Vec<String>>,
    /// MiB of what set-ups made that are kept for an org.
    cache_mib: Option<u32>,
    /// How many set-ups are kept for an org.
    cache_entries: Option<u16>,
}

impl SetupConfig {
    /// What any set-up may reach.
    pub(crate) fn hosts(&self) -> anyhow::Result<Vec<HostChoice>> {
        match &self.hosts {
            None => Ok(HostClass::ALL.iter().copied().map(HostChoice::Class).collect()),
            Some(texts) => {
                texts.iter().map(|text| text.parse::<HostChoice>()).collect::<Result<_, _>>().map_err(
                    |error| {
                        Problem::usage("config-invalid", format!("setup.hosts in {CONFIG_FILE}: {error}"))
                    },
                )
            }
        }
    }

    /// How much is kept.
    pub(crate) fn bounds(&self) -> SetupCacheBounds {
        let usual = SetupCacheBounds::default();
        SetupCacheBounds {
            bytes: self.cache_mib.map_or(usual.bytes, |mib| u64::from(mib) << 20),
            entries: self.cache_entries.map_or(usual.entries, usize::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_the_usual_hosts() {
        let of = |text: &str| toml::from_str::<SetupConfig>(text).unwrap();
        assert_eq!(of("").hosts().unwrap().len(), HostClass::ALL.len());
        assert!(of("hosts = []").hosts().unwrap().is_empty());
        assert!(of("hosts = [\"*\"]").hosts().is_err());
        assert_eq!(
            of("cache_mib = 1\ncache_entries = 2").bounds(),
            SetupCacheBounds { bytes: 1 << 20, entries: 2 }
        );
    }
}
