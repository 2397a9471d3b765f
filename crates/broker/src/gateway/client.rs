//! The one client for all upstreams of a process: TLS settings and kept connections.

use super::upstream::UpstreamError;
use crate::egress::{Resolver, SystemResolver};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::sync::Arc;

/// The client that all brokers of a process share. Cloning shares the connections.
#[derive(Clone)]
pub struct GatewayClient(pub(crate) Arc<ClientInner>);

pub(crate) struct ClientInner {
    pub(crate) tls: Arc<rustls::ClientConfig>,
    pub(crate) resolver: Arc<dyn Resolver>,
}

impl std::fmt::Debug for GatewayClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayClient").finish_non_exhaustive()
    }
}

impl GatewayClient {
    /// A client that trusts Mozilla's certificate authorities.
    ///
    /// # Errors
    /// [`UpstreamError::Tls`].
    pub fn new() -> Result<Self, UpstreamError> {
        Self::with(&[], Arc::new(SystemResolver))
    }

    /// A client that also trusts the authorities in `pem`, and asks `resolver` for addresses.
    ///
    /// # Errors
    /// [`UpstreamError::Certificates`] when `pem` is not empty and holds no usable certificate, [`UpstreamError::Tls`].
    pub fn with(pem: &[u8], resolver: Arc<dyn Resolver>) -> Result<Self, UpstreamError> {
        let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if !pem.is_empty() {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| UpstreamError::Certificates)?;
                roots.add(certificate).map_err(|_| UpstreamError::Certificates)?;
            }
            if roots.len() == before {
                return Err(UpstreamError::Certificates);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| UpstreamError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(ClientInner { tls: Arc::new(tls), resolver })))
    }
}
