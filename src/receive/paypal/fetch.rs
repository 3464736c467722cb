//! Fetching a certificate from PayPal: one GET over TLS to one of two hosts, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hookledger_aggregates::signature::CertificateUrl;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::certificates::MAX_PEM;

/// How long a whole fetch may take.
const FETCH_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It does not exist, so another try soon is pointless.
    #[error("PayPal returned {0}")]
    NotThere(StatusCode),
    /// Another try may succeed.
    #[error("{0}")]
    Failed(String),
}

/// Gets the PEM file at a URL. A trait, so that tests need no network.
pub trait Fetch: Send + Sync + 'static {
    fn fetch<'a>(&'a self, url: &'a CertificateUrl) -> BoxFuture<'a, Result<Vec<u8>, FetchError>>;
}

/// Fetches from PayPal. A redirect counts as a failure, like any status but 200.
pub struct FetchFromPaypal {
    tls: TlsConnector,
}

impl FetchFromPaypal {
    pub fn new() -> Result<Self, tokio_rustls::rustls::Error> {
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    async fn get(&self, url: &CertificateUrl) -> Result<Vec<u8>, FetchError> {
        let failed = |error: &dyn std::fmt::Display| FetchError::Failed(error.to_string());
        let uri: http::Uri = url.as_str().parse().map_err(|error: http::uri::InvalidUri| failed(&error))?;
        let host = uri.host().ok_or_else(|| failed(&"the URL has no host"))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let stream = TcpStream::connect((host, 443)).await.map_err(|error| failed(&error))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let driving = tokio::spawn(connection);
        let request = Request::get(uri.path())
            .header(header::HOST, host)
            .header(header::ACCEPT, "application/x-pem-file, */*")
            .header(header::USER_AGENT, "hookledger")
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|error| failed(&error))?;
        let response = sender.send_request(request).await.map_err(|error| failed(&error));
        let answer = match response {
            Ok(response) if response.status() == StatusCode::OK => {
                let limit = usize::try_from(MAX_PEM).unwrap_or(usize::MAX);
                let body = Limited::new(response.into_body(), limit).collect().await;
                body.map(|body| body.to_bytes().to_vec()).map_err(|error| FetchError::Failed(error.to_string()))
            }
            Ok(response)
                if response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS =>
            {
                Err(FetchError::Failed(format!("PayPal returned {}", response.status())))
            }
            Ok(response) => Err(FetchError::NotThere(response.status())),
            Err(error) => Err(error),
        };
        driving.abort();
        answer
    }
}

impl Fetch for FetchFromPaypal {
    fn fetch<'a>(&'a self, url: &'a CertificateUrl) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        Box::pin(async move {
            let limited = tokio::time::timeout(FETCH_LIMIT, self.get(url)).await;
            limited.unwrap_or_else(|_| Err(FetchError::Failed("PayPal did not answer in time".to_owned())))
        })
    }
}
