//! Mail: a bounded queue, and retries with an end. What a mail says is its sender's affair.
//!
//! Mails are plain text. Addresses and subjects go through `lettre`'s own types, which neither take
//! nor write a line break within a header.

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

/// Mails that may wait; more are refused.
const QUEUE: usize = 1_024;
/// Mails on their way at once.
const AT_ONCE: usize = 8;
/// How long after each failure it is tried again; after the last one the mail is given up. A link
/// is good for minutes: it would be of no use later.
const RETRIES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(25), Duration::from_secs(60)];
/// How long one try may take.
const TRY_LIMIT: Duration = Duration::from_secs(20);
/// Nobody's absence note answers such a mail (RFC 3834).
const AUTO_SUBMITTED: HeaderName = HeaderName::new_from_ascii_str("Auto-Submitted");
/// How long mails may take that wait when the server stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// One mail.
pub struct Mail {
    pub to: Address,
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// The link in the text, for the server's log where there is no other way to send it.
    pub link: Option<String>,
}

/// The way to send mail. Cheap to clone.
#[derive(Clone)]
pub struct Mailer(mpsc::Sender<Mail>);

#[derive(Debug, thiserror::Error)]
#[error("too many mails wait already")]
pub struct QueueFull;

impl Mailer {
    /// Queues a mail.
    pub fn send(&self, mail: Mail) -> Result<(), QueueFull> {
        self.0.try_send(mail).map_err(|_| QueueFull)
    }
}

/// Sends what is queued.
pub struct MailQueue {
    transport: Arc<Transport>,
    from: Mailbox,
    queue: mpsc::Receiver<Mail>,
}

impl MailQueue {
    /// A queue and the way to it.
    #[must_use]
    pub fn new(transport: Transport, from: Mailbox) -> (Mailer, Self) {
        let (to_queue, queue) = mpsc::channel(QUEUE);
        (Mailer(to_queue), Self { transport: Arc::new(transport), from, queue })
    }

    /// Sends until stopped, and then, within a limit, what still waits.
    pub async fn run(mut self, stop: CancellationToken) {
        let (slots, on_the_way) = (Arc::new(Semaphore::new(AT_ONCE)), TaskTracker::new());
        loop {
            let next = tokio::select! {
                mail = self.queue.recv() => mail,
                () = stop.cancelled() => self.queue.try_recv().ok(),
            };
            // The semaphore is never closed, so there is always a permit.
            let (Some(mail), Ok(slot)) = (next, Arc::clone(&slots).acquire_owned().await) else { break };
            let (transport, from, stop) = (Arc::clone(&self.transport), self.from.clone(), stop.clone());
            on_the_way.spawn(async move {
                deliver(&transport, from, mail, &stop).await;
                drop(slot);
            });
        }
        on_the_way.close();
        if tokio::time::timeout(STOP_LIMIT, on_the_way.wait()).await.is_err() {
            tracing::warn!("mails were still on their way when the server stopped");
        }
    }
}

/// A link is readable in the file of a mail where nothing has to be encoded: lines of up to 998 bytes
/// of ASCII may go as they are (RFC 5322, 2.1.1), while `lettre` encodes from 77 on.
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
        Err(error) => return tracing::error!(%error, "a mail cannot be written"),
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
            return tracing::error!(%error, "a mail could not be sent and is given up");
        };
        tracing::warn!(%error, retry_in_seconds = pause.as_secs(), "a mail could not be sent; trying again");
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return tracing::warn!("a mail that could not be sent is given up, since the server stops");
        }
    }
}
