//! Sends each new head of a tree to a witness, as specified by C2SP tlog-witness (`add-checkpoint`), so that
//! somebody else knows it.
//!
//! A separate task with a bounded queue: a witness that is slow or gone delays nothing, and gets a later head
//! instead. The operator chooses the URL, so it may point anywhere.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use signed_note::Note;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::LedgerId;
use super::file::CheckpointFile;
use super::ledgers::Ledgers;
use super::lookup::Signed;
use crate::platform::egress::{AllowList, Egress, Outgoing, StartError, Target, TargetError};
use crate::platform::vitals::Vitals;

/// Name of the warning in `/readyz`.
const NAME: &str = "witness";

/// Queued heads; only the newest of each tree is sent.
const QUEUE: usize = 1_024;
/// How long the witness may take for one head.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses before retries.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Trees whose size at the witness is remembered.
const REMEMBERED: usize = 100_000;

#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    #[error("HOOKLEDGER_WITNESS_URL: {0}")]
    Url(#[from] TargetError),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Outcome of sending a head.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    /// The witness accepted it and returned these signatures.
    Taken(String),
    /// It knows a tree of another size.
    Knows(u64),
    /// A retry would not help.
    Refused(String),
    Failed(String),
}

/// Sends queued heads.
pub struct Witness {
    egress: Egress,
    target: Target,
    queue: mpsc::Receiver<Signed>,
    file: Option<CheckpointFile>,
    /// By the name under which the tree is signed.
    known: HashMap<String, u64>,
    /// Trees that are longer at the witness than here.
    longer: HashSet<LedgerId>,
    vitals: Vitals,
}

impl Witness {
    /// The task, and its queue.
    pub fn new(
        url: &str,
        file: Option<CheckpointFile>,
        vitals: Vitals,
    ) -> Result<(mpsc::Sender<Signed>, Self), WitnessError> {
        let everywhere: AllowList = "0.0.0.0/0,::/0".parse().unwrap_or_default();
        let target = Target::parse(url, &everywhere)?;
        let (put, queue) = mpsc::channel(QUEUE);
        let (known, longer) = (HashMap::new(), HashSet::new());
        Ok((put, Self { egress: Egress::new(everywhere)?, target, queue, file, known, longer, vitals }))
    }

    /// Sends until stopped.
    pub async fn run(mut self, ledgers: Ledgers, stop: CancellationToken) {
        while let Some(Some(first)) = stop.run_until_cancelled(self.queue.recv()).await {
            let mut newest = HashMap::from([(first.ledger, first)]);
            while let Ok(signed) = self.queue.try_recv() {
                match newest.entry(signed.ledger) {
                    Entry::Occupied(entry) if entry.get().size > signed.size => {}
                    Entry::Occupied(mut entry) => drop(entry.insert(signed)),
                    Entry::Vacant(entry) => drop(entry.insert(signed)),
                }
            }
            for signed in newest.into_values() {
                if stop.run_until_cancelled(self.tell(&ledgers, &signed)).await.is_none() {
                    return;
                }
            }
        }
    }

    async fn tell(&mut self, ledgers: &Ledgers, signed: &Signed) {
        let mut pauses = PAUSES.iter();
        let mut corrected = false;
        let outcome = loop {
            match self.send(ledgers, signed).await {
                Sent::Taken(signatures) => {
                    self.remember(signed, signed.size);
                    self.note_longer(signed.ledger, false);
                    self.keep(signed, &signatures).await;
                    break "taken";
                }
                Sent::Knows(size) if size >= signed.size => {
                    self.remember(signed, size);
                    self.compare(ledgers, signed.ledger, size).await;
                    break "known";
                }
                // At most once: a witness must not keep this going.
                Sent::Knows(size) if !corrected => {
                    self.remember(signed, size);
                    corrected = true;
                }
                Sent::Knows(_) => break "refused",
                Sent::Refused(reason) => {
                    tracing::error!(ledger = %signed.ledger, size = signed.size, reason, "the witness refused a checkpoint");
                    break "refused";
                }
                Sent::Failed(reason) => {
                    let Some(pause) = pauses.next() else {
                        tracing::warn!(ledger = %signed.ledger, size = signed.size, reason, "could not reach the witness");
                        break "failed";
                    };
                    tokio::time::sleep(*pause).await;
                }
            }
        };
        metrics::counter!("hookledger_witness_total", "outcome" => outcome).increment(1);
    }

    /// Checks a longer tree at the witness. Another node may have sent a later head; a head that no node has
    /// is a loss.
    async fn compare(&mut self, ledgers: &Ledgers, ledger: LedgerId, known: u64) {
        match ledgers.size(ledger).await {
            Ok(size) => {
                if known > size && !self.longer.contains(&ledger) {
                    tracing::error!(
                        %ledger, size, witness.size = known,
                        "the witness knows a longer tree: the log lost its end, or was changed; run `hookledger audit \
                         declare-loss`"
                    );
                }
                self.note_longer(ledger, known > size);
            }
            Err(error) => tracing::warn!(%ledger, %error, "could not compare the witness's tree with the ledger"),
        }
    }

    fn note_longer(&mut self, ledger: LedgerId, is_longer: bool) {
        let changed = if is_longer { self.longer.insert(ledger) } else { self.longer.remove(&ledger) };
        match self.longer.len() {
            _ if !changed => {}
            0 => self.vitals.unwarn(NAME),
            count => self.vitals.warn(
                NAME,
                format!(
                    "the witness knows more of {count} ledgers than the database has: the log lost its end, or was changed; \
                     run `hookledger audit declare-loss`"
                ),
            ),
        }
    }

    fn remember(&mut self, signed: &Signed, size: u64) {
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(name(signed).to_owned(), size);
    }

    async fn send(&self, ledgers: &Ledgers, signed: &Signed) -> Sent {
        // Nothing can be proved beyond this head, so the witness is asked again.
        let from = self.known.get(name(signed)).copied().filter(|known| *known <= signed.size).unwrap_or_default();
        let proof = match ledgers.prove_consistency(signed, from).await {
            Ok(proof) => proof,
            Err(error) => {
                return Sent::Refused(format!("could not prove that its tree is the beginning of this one: {error}"));
            }
        };
        let lines: Vec<_> = proof.iter().map(|hash| format!("{hash}\n")).collect();
        let body = format!("old {from}\n{}\n{}", lines.concat(), signed.note);
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
            (header::USER_AGENT, HeaderValue::from_static("hookledger")),
        ]);
        let outgoing = Outgoing { headers, body: body.into(), timeout: TIMEOUT };
        match self.egress.send(&self.target, outgoing).await {
            Ok(answer) => understood(answer.status, &String::from_utf8_lossy(&answer.excerpt), &signed.note),
            Err(error) => Sent::Failed(error.to_string()),
        }
    }

    /// Stores the witness's signatures in the file outside the database.
    async fn keep(&self, signed: &Signed, signatures: &str) {
        let Some(file) = self.file.as_ref().filter(|_| !signatures.is_empty()) else { return };
        if let Err(error) = file.append(vec![format!("{}{signatures}", signed.note)]).await {
            tracing::error!(path = %file.path().display(), %error, "could not store a witness's signature");
        }
    }
}

/// The first line of a note.
fn name(signed: &Signed) -> &str {
    signed.note.lines().next().unwrap_or_default()
}

fn understood(status: StatusCode, body: &str, note: &str) -> Sent {
    match status {
        StatusCode::CONFLICT => match body.trim().parse() {
            Ok(size) => Sent::Knows(size),
            Err(_) => Sent::Refused("409, without the size that it knows".to_owned()),
        },
        status if status.is_success() => {
            // A collector that does not sign answers with nothing, or with something that is no signature.
            let cosigned = body.starts_with("— ") && Note::from_bytes(format!("{note}{body}").as_bytes()).is_ok();
            Sent::Taken(if cosigned { body.to_owned() } else { String::new() })
        }
        status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
            Sent::Refused(format!("it answered {status}"))
        }
        status => Sent::Failed(format!("it answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_is_understood() {
        let note = "a\n1\nb\n\n— a AAAAAAAA\n";
        let is = |status: u16, body: &str| understood(StatusCode::from_u16(status).unwrap(), body, note);
        assert_eq!(is(200, "— w BBBBBBBB\n"), Sent::Taken("— w BBBBBBBB\n".to_owned()));
        assert_eq!(is(200, "thanks"), Sent::Taken(String::new()));
        assert_eq!(is(204, ""), Sent::Taken(String::new()));
        assert_eq!(is(409, "17\n"), Sent::Knows(17));
        assert!(matches!(is(409, "no"), Sent::Refused(_)));
        assert!(matches!(is(404, ""), Sent::Refused(_)));
        assert!(matches!(is(429, ""), Sent::Failed(_)));
        assert!(matches!(is(500, ""), Sent::Failed(_)));
    }
}
