//! Mail: a bounded queue with a limited number of retries. The content of a mail is up to its sender.
//!
//! Mails are plain text. Addresses and subjects use `lettre`'s own types, which neither accept nor write a
//! line break within a header.

mod transport;

use std::sync::Arc;
use std::time::Duration;

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Body, Mailbox, header};
use lettre::{Address, Message};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use transport::{Transport, TransportError};

/// Maximum number of queued mails; more are refused.
const QUEUE: usize = 1_024;
/// Mails sent concurrently.
const AT_ONCE: usize = 8;
/// Pauses after each failure; after the last retry the mail is given up. A link is valid for minutes, so a
/// later retry would be useless.
const RETRIES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(25), Duration::from_secs(60)];
/// How long one try may take.
const TRY_LIMIT: Duration = Duration::from_secs(20);
/// Prevents automatic replies (RFC 3834).
const AUTO_SUBMITTED: HeaderName = HeaderName::new_from_ascii_str("Auto-Submitted");
/// How long queued mails may take when the server stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// One mail.
pub struct Mail {
    pub to: Address,
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// The link in the text, for the server's log if there is no mail server.
    pub link: Option<String>,
}

/// The handle for sending mail. Cheap to clone.
#[derive(Clone)]
pub struct Mailer(mpsc::Sender<Mail>);

#[derive(Debug, thiserror::Error)]
#[error("the mail queue is full")]
pub struct QueueFull;

impl Mailer {
    /// Queues a mail.
    pub fn send(&self, mail: Mail) -> Result<(), QueueFull> {
        self.0.try_send(mail).map_err(|_| QueueFull)
    }
}

/// Sends queued mails.
pub struct MailQueue {
    transport: Arc<Transport>,
    from: Mailbox,
    queue: mpsc::Receiver<Mail>,
}

impl MailQueue {
    /// A queue and its handle.
    #[must_use]
    pub fn new(transport: Transport, from: Mailbox) -> (Mailer, Self) {
        let (to_queue, queue) = mpsc::channel(QUEUE);
        (Mailer(to_queue), Self { transport: Arc::new(transport), from, queue })
    }

    /// Sends until stopped, and then the queued mails within a limit.
    pub async fn run(mut self, stop: CancellationToken) {
        let (slots, on_the_way) = (Arc::new(Semaphore::new(AT_ONCE)), TaskTracker::new());
        loop {
            let next = tokio::select! {
                mail = self.queue.recv() => mail,
                () = stop.cancelled() => self.queue.try_recv().ok(),
            };
            // The semaphore is never closed, so a permit is always granted.
            let (Some(mail), Ok(slot)) = (next, Arc::clone(&slots).acquire_owned().await) else { break };
            let (transport, from, stop) = (Arc::clone(&self.transport), self.from.clone(), stop.clone());
            on_the_way.spawn(async move {
                deliver(&transport, from, mail, &stop).await;
                drop(slot);
            });
        }
        on_the_way.close();
        if tokio::time::timeout(STOP_LIMIT, on_the_way.wait()).await.is_err() {
            tracing::warn!("the server stopped before all mails were sent");
        }
    }
}

/// Leaves short lines unencoded, so that the link in a mail file is readable: ASCII lines of up to 998 bytes
/// need no encoding (RFC 5322, 2.1.1), but `lettre` encodes from 77 on.
fn body(text: &str) -> Body {
    if text.is_ascii() && text.lines().all(|line| line.len() <= 998) {
        let text = text.lines().flat_map(|line| [line, "\r\n"]).collect::<String>();
        return Body::dangerous_pre_encoded(text.into_bytes(), header::ContentTransferEncoding::SevenBit);
    }
    Body::new(text.to_owned())
}

async fn deliver(transport: &Transport, from: Mailbox, mail: Mail, stop: &CancellationToken) {
    let id = format!("<{}@{}>", uuid::Uuid::new_v4(), from.email.domain());
    let message = Message::builder()
        .from(from)
        .to(Mailbox::new(None, mail.to.clone()))
        .message_id(Some(id))
        .raw_header(HeaderValue::new(AUTO_SUBMITTED, "auto-generated".to_owned()))
        .subject(&mail.subject)
        .header(header::ContentType::TEXT_PLAIN)
        .body(body(&mail.text));
    let message = match message {
        Ok(message) => message,
        Err(error) => return tracing::error!(%error, "could not write a mail"),
    };
    let mut retries = RETRIES.into_iter();
    loop {
        let sent = tokio::time::timeout(TRY_LIMIT, transport.send(&mail, &message));
        let error = match sent.await.unwrap_or(Err(TransportError::TooSlow)) {
            Ok(()) => return metrics::counter!("hookledger_mails_total", "result" => "sent").increment(1),
            Err(error) => error,
        };
        let pause = retries.next().filter(|_| !error.is_permanent());
        let Some(pause) = pause else {
            metrics::counter!("hookledger_mails_total", "result" => "failed").increment(1);
            return tracing::error!(%error, "could not send a mail; giving up");
        };
        tracing::warn!(%error, retry_in_seconds = pause.as_secs(), "could not send a mail; retrying");
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return tracing::warn!("could not send a mail; giving up because the server stops");
        }
    }
}
