//! Whom the broker trusts to be an inspected host: the public authorities, this machine's own and the operator's.
//!
//! The same authorities, and the run's own, make the bundle that programs in the sandbox are pointed to.

use super::InspectionError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Where systems keep their authorities in one file.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The largest bundle that is read, in bytes.
const LARGEST: u64 = 8 * 1024 * 1024;

/// The authorities, shared by all runs of a process.
#[derive(Clone)]
pub struct UpstreamTrust {
    client: Arc<ClientConfig>,
    bundle: Arc<str>,
}

impl std::fmt::Debug for UpstreamTrust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamTrust").finish_non_exhaustive()
    }
}

impl UpstreamTrust {
    /// Mozilla's authorities, those of this machine, and those in `extra`, as PEM; empty for none.
    ///
    /// # Errors
    /// [`InspectionError::ExtraRoots`] when `extra` is not empty and holds no usable certificate or an unusable one,
    /// [`InspectionError::Tls`].
    pub fn new(extra: &str) -> Result<Self, InspectionError> {
        let system = BUNDLES.iter().find_map(|path| read(Path::new(path))).unwrap_or_default();
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        // One odd certificate among a machine's hundreds is left out, as other programs do.
        let found: Vec<_> =
            CertificateDer::pem_slice_iter(system.as_bytes()).filter_map(Result::ok).collect();
        roots.add_parsable_certificates(found);
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(extra.as_bytes()) {
            let certificate = certificate.map_err(|_| InspectionError::ExtraRoots)?;
            roots.add(certificate).map_err(|_| InspectionError::ExtraRoots)?;
        }
        if !extra.trim().is_empty() && roots.len() == before {
            return Err(InspectionError::ExtraRoots);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| InspectionError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut bundle = system;
        if !extra.trim().is_empty() {
            bundle.push('\n');
            bundle.push_str(extra);
        }
        Ok(Self { client: Arc::new(client), bundle: bundle.into() })
    }

    /// This machine's authorities and the operator's in one PEM text; Mozilla's are not repeated here.
    #[must_use]
    pub fn bundle_pem(&self) -> &str {
        &self.bundle
    }

    pub(crate) const fn client(&self) -> &Arc<ClientConfig> {
        &self.client
    }
}

fn read(path: &Path) -> Option<String> {
    let file = std::fs::File::open(path).ok()?;
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).ok()?;
    let fits = u64::try_from(text.len()).is_ok_and(|length| length <= LARGEST);
    (fits && text.contains("BEGIN CERTIFICATE")).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additional_authorities_are_read_or_refused() {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let trust = UpstreamTrust::new(&made.cert.pem()).unwrap();
        assert!(trust.bundle_pem().contains(made.cert.pem().trim()));
        for bad in ["nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(matches!(UpstreamTrust::new(bad), Err(InspectionError::ExtraRoots)), "{bad}");
        }
        UpstreamTrust::new("\n").unwrap();
    }
}
