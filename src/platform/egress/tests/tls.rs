//! TLS: which certificates are trusted.

use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server with a self-signed certificate.
async fn encrypted(key: &CertifiedKey<KeyPair>) -> Server {
    let private = PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Server::start(move |peer| {
        let acceptor = acceptor.clone();
        async move {
            let (socket, over) = peer.split();
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let (_, session) = stream.get_ref();
            assert_eq!(session.server_name(), Some("hooks.example"));
            let mut peer = over(stream);
            while peer.request().await.is_some() {
                peer.write(OK.as_bytes()).await;
            }
        }
    })
    .await
}

fn self_signed(name: &str) -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed([name.to_owned()]).unwrap()
}

fn trusting(keys: &[&CertifiedKey<KeyPair>]) -> Egress {
    let mut roots = RootCertStore::empty();
    for key in keys {
        roots.add(key.cert.der().clone()).unwrap();
    }
    let names = Scripted::new(&[&["127.0.0.1"] as &[&str]; 8]);
    Egress::with("127.0.0.0/8".parse().unwrap(), Box::new(names), roots).unwrap()
}

fn url(server: &Server) -> String {
    format!("https://hooks.example.:{}/", server.address.port())
}

#[tokio::test]
async fn a_trusted_certificate_is_accepted_and_the_connection_kept() {
    let key = self_signed("hooks.example");
    let server = encrypted(&key).await;
    let egress = trusting(&[&key]);
    for _ in 0..5 {
        let answer = send(&egress, &url(&server), PATIENCE).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.excerpt[..]), (200, &b"ok"[..]));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused() {
    let server = encrypted(&self_signed("hooks.example")).await;
    let error = send(&trusting(&[]), &url(&server), PATIENCE).await.unwrap_err();
    assert_eq!((error.kind(), &error), (Kind::NoAnswer, &SendError::Tls(TlsFailure::Untrusted)));
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let key = self_signed("other.example");
    let server = encrypted(&key).await;
    let refused = send(&trusting(&[&key]), &url(&server), PATIENCE).await;
    assert_eq!(refused, Err(SendError::Tls(TlsFailure::OtherHost)));
}

#[tokio::test]
async fn a_server_without_tls_is_said_to_have_none() {
    let server = Server::start(|mut peer| async move {
        peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        peer.gone().await;
    })
    .await;
    let refused = send(&trusting(&[]), &url(&server), PATIENCE).await;
    assert_eq!(refused, Err(SendError::Tls(TlsFailure::Handshake)));
}

#[tokio::test]
async fn a_handshake_that_hangs_times_out() {
    let server = Server::start(|mut peer| async move { peer.gone().await }).await;
    let refused = send(&trusting(&[]), &url(&server), SHORT).await;
    assert_eq!(refused, Err(SendError::ConnectTimedOut(SHORT)));
}

#[test]
fn the_machine_or_mozilla_knows_authorities() {
    assert!(connect::system_roots().len() > 50);
}
