//! The harness's own record of every answer and every delivery, which the log is compared with.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use uuid::Uuid;

use crate::organizations::Behaviour;
use crate::sign::Sender;

/// A webhook that was sent, once or repeatedly.
#[derive(Clone, Debug)]
pub struct Sent {
    pub organization: Behaviour,
    pub sender: Sender,
    /// The sender's event ID.
    pub event: String,
    pub body_sha256: String,
    /// Whether it has a wrong signature.
    pub forged: bool,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted {
        webhook: Uuid,
        duplicate: bool,
    },
    /// Any other status than 200.
    Refused(u16),
    /// No answer, or an invalid one.
    Nothing(String),
}

#[derive(Clone, Debug)]
pub struct Request {
    /// Index into [`Record::webhooks`].
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

/// A delivery that arrived at a destination.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub organization: Behaviour,
    pub webhook: Uuid,
    pub attempt: u32,
    pub at: Instant,
    /// The status that was written completely, if any.
    pub answered: Option<u16>,
    pub body_sha256: String,
}

/// A sample of whether `/readyz` was right.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub node: usize,
    /// When `/readyz` answered: a suspended node answers late, with its state at that time.
    pub at: Instant,
    /// The answer of `/readyz`; `None` without one.
    pub ready: Option<bool>,
    /// Whether a webhook sent at the same moment was accepted.
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
    /// Records a webhook before it is sent; returns its number.
    pub fn webhook(&self, sent: Sent) -> usize {
        let mut webhooks = locked(&self.webhooks);
        webhooks.push(sent);
        webhooks.len() - 1
    }

    pub fn request(&self, request: Request) {
        locked(&self.requests).push(request);
    }

    /// Records a delivery; returns its number, and the number of earlier ones of that webhook.
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
