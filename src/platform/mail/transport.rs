//! Transports of mail: SMTP, files, or, if neither is configured, the server's log.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use lettre::transport::smtp::Error as SmtpError;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use secrecy::{ExposeSecret as _, SecretString};

use super::Mail;

/// How long connecting, and each command, may take.
const SMTP_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("HOOKLEDGER_SMTP_URL must look like smtps://user:password@host or smtp://…?tls=required")]
    Url,
    #[error("mail server: {0}")]
    Smtp(#[from] SmtpError),
    #[error("the mail server did not answer in time")]
    TooSlow,
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
}

impl TransportError {
    /// Whether the server said that retrying is useless.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::Smtp(error) if error.is_permanent())
    }
}

/// Where mails go.
pub enum Transport {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    /// A file `….eml` per mail in this directory, readable by nobody else.
    Directory(PathBuf),
    /// The link is printed in the server's log.
    Log,
}

impl Transport {
    /// A mail server by its URL: `smtps://`, or `smtp://` with `?tls=required` or `?tls=opportunistic` for
    /// STARTTLS.
    ///
    /// # Errors
    /// [`TransportError::Url`], which does not repeat the URL because it may contain a password.
    pub fn smtp(url: &SecretString) -> Result<Self, TransportError> {
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose_secret());
        let builder = builder.map_err(|_| TransportError::Url)?;
        Ok(Self::Smtp(builder.timeout(Some(SMTP_LIMIT)).build()))
    }

    /// A directory, created if it does not exist.
    pub fn directory(path: PathBuf) -> Result<Self, TransportError> {
        match std::fs::create_dir_all(&path) {
            Ok(()) => Ok(Self::Directory(path)),
            Err(source) => Err(TransportError::File { path, source }),
        }
    }

    pub(super) async fn send(&self, mail: &Mail, message: &Message) -> Result<(), TransportError> {
        match self {
            Self::Smtp(transport) => Ok(transport.send(message.clone()).await.map(drop)?),
            Self::Directory(directory) => {
                let (directory, bytes) = (directory.clone(), message.formatted());
                tokio::task::spawn_blocking(move || write_file(directory, &bytes))
                    .await
                    .map_err(|_| TransportError::TooSlow)?
            }
            Self::Log => {
                tracing::info!(
                    mail.to = %mail.to, mail.subject, link.url = mail.link,
                    "no mail server is configured; this mail would have been sent"
                );
                Ok(())
            }
        }
    }
}

/// Gives the file its name only once it is complete. Names sort in the order of sending.
fn write_file(directory: PathBuf, bytes: &[u8]) -> Result<(), TransportError> {
    let name = uuid::Uuid::now_v7();
    let (partial, path) = (directory.join(format!(".{name}.part")), directory.join(format!("{name}.eml")));
    let write = || {
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(bytes)?;
        std::fs::rename(&partial, &path)
    };
    write().map_err(|source| TransportError::File { path: path.clone(), source })
}
