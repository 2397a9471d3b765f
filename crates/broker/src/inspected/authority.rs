//! The certificate authority of one run: what TLS with an inspected host ends under.
//!
//! Promises: its private key is in this process's memory and nowhere else, it goes with the run's broker; it vouches for
//! the run's inspected hosts only, whoever gets hold of a certificate of it, and not beyond the warrant's time.

use super::InspectionError;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use time::OffsetDateTime;
use tipstaff_model::{RunId, Warrant};

/// Certificates that are kept; a host beyond gets a new one in the place of the oldest.
const KEPT: usize = 64;

/// How far the clocks of a program inside and ours may be apart, in milliseconds.
const SKEW_MS: i64 = 60_000;

/// The longest common name that a certificate may have (RFC 5280, ub-common-name).
const LONGEST_COMMON_NAME: usize = 64;

/// The authority.
pub struct RunAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    from: OffsetDateTime,
    until: OffsetDateTime,
    leaves: Mutex<VecDeque<(String, Arc<ServerConfig>)>>,
}

impl std::fmt::Debug for RunAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunAuthority").field("until", &self.until).finish_non_exhaustive()
    }
}

impl RunAuthority {
    /// The authority of a warrant's run; `None` when the warrant inspects no host.
    ///
    /// # Errors
    /// [`InspectionError::Certificate`].
    pub fn of_warrant(warrant: &Warrant) -> Result<Option<Self>, InspectionError> {
        if !warrant.inspects() {
            return Ok(None);
        }
        let named = warrant.hosts.iter().filter(|rules| rules.inspect || !rules.requests.is_empty());
        let mut names: Vec<String> = named
            .map(|rules| rules.host.to_string())
            .chain(warrant.secrets.iter().map(|secret| secret.host.to_string()))
            .map(|host| {
                let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
                // A name in a constraint stands for its subdomains as well (RFC 5280 §4.2.1.10).
                name.strip_prefix("*.").unwrap_or(name).to_owned()
            })
            .collect();
        names.sort();
        names.dedup();
        Self::new(warrant.run, &names, (warrant.issued_at, warrant.expires_at)).map(Some)
    }

    /// An authority for `names` and their subdomains, good from one time to another, in milliseconds since the Unix
    /// epoch.
    ///
    /// # Errors
    /// [`InspectionError::Certificate`].
    pub fn new(run: RunId, names: &[String], (from, until): (i64, i64)) -> Result<Self, InspectionError> {
        let at = |ms: i64| {
            OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).map_err(|_| InspectionError::Certificate)
        };
        let (from, until) = (at(from.saturating_sub(SKEW_MS))?, at(until.saturating_add(999))?);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Tipstaff");
        params.distinguished_name.push(DnType::CommonName, format!("Tipstaff run {}", run.short()));
        (params.not_before, params.not_after) = (from, until);
        // It signs certificates of hosts and no further authority.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: names.iter().cloned().map(GeneralSubtree::DnsName).collect(),
            // A constraint on names says nothing about addresses.
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(IpAddr::from([0, 0, 0, 0]), 0)),
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(IpAddr::from([0_u16; 8]), 0)),
            ],
        });
        let issuer = KeyPair::generate()
            .and_then(|key| CertifiedIssuer::self_signed(params, key))
            .map_err(|_| InspectionError::Certificate)?;
        Ok(Self { issuer, from, until, leaves: Mutex::default() })
    }

    /// The certificate that the sandbox trusts, as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.issuer.pem()
    }

    /// What TLS for `host` is served with.
    pub(crate) fn server_config(&self, host: &str) -> Result<Arc<ServerConfig>, InspectionError> {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = leaves.iter().find(|(name, _)| name == host) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make(host)?);
        if leaves.len() >= KEPT {
            leaves.pop_front();
        }
        leaves.push_back((host.to_owned(), Arc::clone(&config)));
        Ok(config)
    }

    fn make(&self, host: &str) -> Result<ServerConfig, InspectionError> {
        let wrong = |_| InspectionError::Certificate;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if host.len() <= LONGEST_COMMON_NAME {
            params.distinguished_name.push(DnType::CommonName, host);
        }
        params.subject_alt_names = vec![SanType::DnsName(host.to_owned().try_into().map_err(wrong)?)];
        (params.not_before, params.not_after) = (self.from, self.until);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(wrong)?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(wrong)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| InspectionError::Tls)?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .map_err(|_| InspectionError::Tls)?;
        // The one protocol that is read here; whoever insists on another is told so in the handshake.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
    use std::time::Duration;
    use tipstaff_model::{FixedClock, FixedEntropy};

    const FROM: i64 = 1_800_000_000_000;
    const UNTIL: i64 = FROM + 3_600_000;

    fn authority(names: &[&str], seed: u64) -> RunAuthority {
        let run = RunId::new(&FixedClock::at(FROM), &FixedEntropy::seeded(seed));
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        RunAuthority::new(run, &names, (FROM, UNTIL)).unwrap()
    }

    fn accepts(trusted: &RunAuthority, by: &RunAuthority, host: &str, at_ms: i64) -> bool {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (by.from, by.until);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &by.issuer).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let pem = trusted.certificate_pem();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_millis(at_ms.unsigned_abs()));
        let name = ServerName::try_from(host.to_owned()).unwrap();
        verifier.verify_server_cert(leaf.der(), &[], &name, &[], at).is_ok()
    }

    #[test]
    fn it_vouches_for_its_hosts_in_its_time_and_for_nothing_else() {
        let ours = authority(&["api.example.com", "other.test"], 7);
        assert!(accepts(&ours, &ours, "api.example.com", FROM + 1));
        assert!(accepts(&ours, &ours, "sub.other.test", FROM + 1));
        // Even its key makes nothing for another name, an address, or another time.
        for host in ["example.com", "evil.test", "apixexample.com", "127.0.0.1", "::1"] {
            assert!(!accepts(&ours, &ours, host, FROM + 1), "{host}");
        }
        assert!(!accepts(&ours, &ours, "other.test", UNTIL + 5_000));
        assert!(!accepts(&ours, &ours, "other.test", FROM - 2 * SKEW_MS));
        // Another run's is another one, though it has the same names.
        let theirs = authority(&["api.example.com", "other.test"], 7);
        assert!(!accepts(&ours, &theirs, "api.example.com", FROM + 1));
        assert!(!format!("{ours:?}{}", ours.certificate_pem()).contains("PRIVATE"));
    }

    #[test]
    fn certificates_are_kept_up_to_a_bound() {
        let ours = authority(&["example.com"], 7);
        let first = ours.server_config("a.example.com").unwrap();
        assert!(Arc::ptr_eq(&first, &ours.server_config("a.example.com").unwrap()));
        for number in 0..KEPT {
            ours.server_config(&format!("h{number}.example.com")).unwrap();
        }
        assert_eq!(ours.leaves.lock().unwrap().len(), KEPT);
        assert!(!Arc::ptr_eq(&first, &ours.server_config("a.example.com").unwrap()));
        ours.server_config(&format!("{}.example.com", "x".repeat(63))).unwrap();
    }
}
