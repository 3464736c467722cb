//! The harness's own record of every answer and every delivery: what the log is compared with.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use uuid::Uuid;

use crate::organizations::Behaviour;
use crate::sign::Sender;

/// A webhook that was sent, once or again and again.
#[derive(Clone, Debug)]
pub struct Sent {
    pub organization: Behaviour,
    pub sender: Sender,
    /// The sender's id of the event.
    pub event: String,
    pub body_sha256: String,
    /// It has a wrong signature.
    pub forged: bool,
}

/// What a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted {
        webhook: Uuid,
        duplicate: bool,
    },
    /// Another status than 200.
    Refused(u16),
    /// No answer, or one that makes no sense.
    Nothing(String),
}

#[derive(Clone, Debug)]
pub struct Request {
    /// Which of [`Record::webhooks`].
    pub webhook: usize,
    pub node: usize,
    pub sent: Instant,
    pub ended: Instant,
    pub answer: Answer,
}

impl Request {
    #[must_use]
    pub fn accepted(&self) -> Option<(Uuid, bool)> {
        match self.answer {
            Answer::Accepted { webhook, duplicate } => Some((webhook, duplicate)),
            _ => None,
        }
    }
}

/// A delivery as it came to a destination.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub organization: Behaviour,
    pub webhook: Uuid,
    pub attempt: u32,
    pub at: Instant,
    /// The status that was written to the end, if any.
    pub answered: Option<u16>,
    pub body_sha256: String,
}

/// Whether `/readyz` told the truth at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub node: usize,
    /// When `/readyz` answered: a node that stood still answers late, and says what is so then.
    pub at: Instant,
    /// What `/readyz` said; nothing where it did not answer.
    pub ready: Option<bool>,
    /// Whether a webhook that was sent at the same moment was accepted.
    pub accepts: bool,
}

#[derive(Debug, Default)]
pub struct Record {
    webhooks: Mutex<Vec<Sent>>,
    requests: Mutex<Vec<Request>>,
    arrivals: Mutex<Vec<Arrival>>,
    samples: Mutex<Vec<Sample>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    /// Notes a webhook before it is sent; its number.
    pub fn webhook(&self, sent: Sent) -> usize {
        let mut webhooks = locked(&self.webhooks);
        webhooks.push(sent);
        webhooks.len() - 1
    }

    pub fn request(&self, request: Request) {
        locked(&self.requests).push(request);
    }

    /// Notes a delivery; its number, and how many came of that webhook before.
    pub fn arrival(&self, arrival: Arrival) -> (usize, usize) {
        let mut arrivals = locked(&self.arrivals);
        let before = arrivals.iter().filter(|other| other.webhook == arrival.webhook).count();
        arrivals.push(arrival);
        (arrivals.len() - 1, before)
    }

    pub fn answered(&self, arrival: usize, status: u16) {
        if let Some(arrival) = locked(&self.arrivals).get_mut(arrival) {
            arrival.answered = Some(status);
        }
    }

    pub fn sample(&self, sample: Sample) {
        locked(&self.samples).push(sample);
    }

    #[must_use]
    pub fn webhooks(&self) -> Vec<Sent> {
        locked(&self.webhooks).clone()
    }

    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.requests).clone()
    }

    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        locked(&self.arrivals).clone()
    }

    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        locked(&self.samples).clone()
    }

    /// When a node first accepted something after that moment.
    #[must_use]
    pub fn first_accepted(&self, node: usize, after: Instant) -> Option<Instant> {
        let requests = locked(&self.requests);
        let of_node = requests.iter().filter(|request| request.node == node && request.accepted().is_some());
        of_node.map(|request| request.ended).filter(|ended| *ended >= after).min()
    }
}
