//! Upstreams over TLS: only those that a trusted authority vouches for, under their own name.

use crate::gateway_support::{Act, Gate, Scripted, quick};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tipstaff_broker::{GatewayClient, PlainHttp, Upstream, UpstreamError, Wire};
use tipstaff_seal::Secret;
use tokio::net::{TcpListener, TcpStream};

/// A TLS front for `name` before a scripted upstream, and the certificate that vouches for it.
async fn front(name: &str, upstream: &Scripted) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, behind) = (listener.local_addr().unwrap(), upstream.address);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut inside) = acceptor.accept(stream).await {
                    let mut plain = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut plain).await;
                }
            });
        }
    });
    (address, made.cert.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_trusted_certificate_of_the_right_name_gets_the_key() {
    let here = || {
        Arc::new(crate::support::TableResolver(
            ["model.test", "other.test"].map(|name| (name, vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])).to_vec(),
        ))
    };
    for (host, trusts, status) in
        [("model.test", true, 200), ("model.test", false, 502), ("other.test", true, 502)]
    {
        let upstream =
            Scripted::start(|_, _| Act::json(r#"{"usage":{"input_tokens":1,"output_tokens":1}}"#)).await;
        let (address, pem) = front("model.test", &upstream).await;
        let pem = if trusts { pem } else { String::new() };
        let client = GatewayClient::with(pem.as_bytes(), here()).unwrap();
        let base = format!("https://{host}:{}", address.port());
        let key = Secret::new("sk-real-0123456789".to_owned());
        let made =
            Upstream::new("anthropic", Wire::Anthropic, &base, Some(key), PlainHttp::LoopbackOnly).unwrap();
        let mut gate = Gate::at(upstream, 1_000_000, quick(), Some((vec![made], client))).await;
        let body = r#"{"model":"good-1","max_tokens":9}"#;
        gate.post("/model/anthropic/v1/messages", body).await.is(status);
        assert_eq!(gate.upstream.seen().len(), usize::from(status == 200), "{host}, trusted: {trusts}");
        gate.stop().await;
    }
    let none = GatewayClient::with(b"-----BEGIN NOTHING-----", here()).unwrap_err();
    assert!(matches!(none, UpstreamError::Certificates));
}
