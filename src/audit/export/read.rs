//! Verifies an export with nothing but the file. The file may be from anybody: only one line is in memory,
//! and no line can stop the reader.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use chrono::{DateTime, Utc};
use hookledger_aggregates::OrganizationId;
use sha2::{Digest as _, Sha256};

use super::format::{EventLine, Header, LONGEST_LINE, Line, RequestLine, Trailer, VERSION, origin_of};
use crate::audit::LedgerId;
use crate::audit::checkpoint::{Checkpoint, Origin, PublicKey, open_note};
use crate::audit::tree::Edge;
use crate::audit::verify::{Digests, EventCheck, Finding, KeySource, Kind, Subject, Verification, has_request};
use crate::log::LogPosition;
use crate::log::stored_event::StoredEvent;

/// Maximum number of signers of a file; one per master key.
const KEYS: usize = 64;

/// Verifies a file. `keys` are trusted keys; without them, the keys that the file names are used. `progress`
/// receives the bytes read and their total.
///
/// # Errors
/// Only if the file cannot be read; problems of its content are findings.
pub fn verify(
    path: &Path,
    keys: &[PublicKey],
    now: DateTime<Utc>,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<Verification> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let subject = Subject::File { path: path.display().to_string(), organization: String::new() };
    let source = if keys.is_empty() { KeySource::File } else { KeySource::Given };
    let mut found = Verification::new(subject, now, keys.to_vec(), source);
    let mut lines = Lines { reader: BufReader::with_capacity(1 << 20, file), line: Vec::new(), number: 0, read: 0 };
    let mut reading: Option<Reading> = None;
    let mut digest = Sha256::new();
    loop {
        let whole = match lines.next()? {
            Next::Line => std::str::from_utf8(&lines.line).ok(),
            Next::End => {
                found
                    .findings
                    .add(wrong(lines.number, "the file ends early: its last line, which signs it, is missing"));
                break;
            }
            Next::TooLong => None,
        };
        let parsed = whole.and_then(|text| parse(text.strip_suffix('\n')?));
        let Some(parsed) = parsed else {
            found.findings.add(wrong(lines.number, "the line was changed, or is not a line of an export"));
            break;
        };
        let done = match (&mut reading, parsed) {
            (None, Line::Export(header)) => match Reading::new(header, keys, &mut found) {
                Ok(begun) => {
                    reading = Some(begun);
                    Ok(())
                }
                Err(text) => Err(text),
            },
            (Some(reading), Line::Event(event)) => reading.event(&event, lines.number, &mut found),
            (Some(reading), Line::Request(request)) => reading.request(&request, &mut found),
            (Some(reading), Line::Checkpoint(note)) => reading.checkpoint(&note, &mut found),
            (Some(reading), Line::Signed(note)) => {
                let signed = reading.signed(&note, &hex::encode(digest.finalize_reset()), &mut found);
                if let Err(text) = signed {
                    found.findings.add(wrong(lines.number, &text));
                } else if !matches!(lines.next()?, Next::End) {
                    found.findings.add(wrong(lines.number, "the file goes on after the line that signs it"));
                }
                break;
            }
            (None, _) | (Some(_), Line::Export(_)) => Err("the line does not belong here".to_owned()),
        };
        if let Err(text) = done {
            found.findings.add(wrong(lines.number, &text));
            break;
        }
        digest.update(&lines.line);
        if lines.number.is_multiple_of(1_000) {
            progress(lines.read.min(size), size);
        }
    }
    progress(size, size);
    found.notes.push(
        "Not checked, since it takes the store: the senders' signatures (their secrets are never exported), other \
         organizations, and events recorded after the export."
            .to_owned(),
    );
    Ok(found)
}

fn wrong(line: u64, text: &str) -> Finding {
    Finding::elsewhere(Kind::File, format!("line {line}: {text}"))
}

/// A line in its only valid form.
fn parse(text: &str) -> Option<Line<'_>> {
    let line: Line<'_> = serde_json::from_str(text).ok()?;
    let mut same = Same(text.as_bytes());
    serde_json::to_writer(&mut same, &line).ok()?;
    same.0.is_empty().then_some(line)
}

/// Accepts writes only as long as they equal the original.
struct Same<'a>(&'a [u8]);

impl io::Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Next {
    /// Including the line break at its end, if any.
    Line,
    TooLong,
    End,
}

/// The lines of a file, one at a time.
struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
    read: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> io::Result<Next> {
        self.line.clear();
        self.number += 1;
        let read = self.reader.by_ref().take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut self.line)?;
        self.read += read as u64;
        Ok(match read {
            0 => Next::End,
            _ if read > LONGEST_LINE => Next::TooLong,
            _ => Next::Line,
        })
    }
}

/// A partly read request.
struct Body {
    headers_sha256: String,
    digest: Sha256,
    size: u64,
}

/// State of reading the file.
struct Reading {
    origin: Origin,
    organization: OrganizationId,
    /// Keys that signed the file.
    signers: Vec<PublicKey>,
    /// Trusted keys.
    keys: Vec<PublicKey>,
    order: EventCheck,
    edge: Edge,
    last: i64,
    covered: u64,
    /// The last event if a request may follow it, and the part of that read so far.
    about: Option<(StoredEvent, Option<Body>)>,
    events: u64,
    requests: u64,
    checkpoints: u64,
    newest: Option<Checkpoint>,
}

impl Reading {
    fn new(header: Header, trusted: &[PublicKey], found: &mut Verification) -> Result<Self, String> {
        if header.version != VERSION {
            return Err(format!(
                "the file has version {}, but this release knows only version {VERSION}",
                header.version
            ));
        }
        let origin = origin_of(&header).ok_or("the file's ledger is not its organization's")?;
        let signers: Option<Vec<PublicKey>> = header.public_keys.iter().map(|key| key.parse().ok()).collect();
        let signers =
            signers.filter(|keys| !keys.is_empty() && keys.len() <= KEYS).ok_or("the file has no public keys")?;
        let keys = if trusted.is_empty() { signers.clone() } else { trusted.to_vec() };
        let organization = OrganizationId::from_slug(&header.organization);
        found.keys.clone_from(&keys);
        found.names.insert(organization.uuid(), header.organization.clone());
        found.notes.push(format!("The file says that it was exported at {}.", header.exported_at));
        if let Subject::File { organization, .. } = &mut found.subject {
            *organization = header.organization;
        }
        found.ledgers = 1;
        Ok(Self {
            origin,
            organization,
            signers,
            keys,
            order: EventCheck::of_ledger(organization.partition()),
            edge: Edge::default(),
            last: 0,
            covered: 0,
            about: None,
            events: 0,
            requests: 0,
            checkpoints: 0,
            newest: None,
        })
    }

    fn event(&mut self, line: &EventLine<'_>, number: u64, found: &mut Verification) -> Result<(), String> {
        self.end_request(found)?;
        let (event, leaf) = line.event(self.organization).ok_or("the line contains no valid event")?;
        let hash = event.leaf_hash();
        if hash != leaf {
            let text =
                format!("the event was changed: it is not the one of the leaf that was exported (line {number})");
            found.findings.add(Finding::at(Kind::Changed, self.place(event.position), self.origin.ledger, text));
        }
        self.order.place(&event, &mut found.findings);
        self.order.stream(&event, &mut found.findings);
        if !has_request(&event.event_type) {
            self.order.request(&event, None, &mut found.tally, &mut found.findings);
        }
        found.tally.count(&event);
        self.edge.push(hash, &mut Vec::new());
        self.last = event.position;
        self.events += 1;
        self.about = has_request(&event.event_type).then_some((event, None));
        Ok(())
    }

    fn request(&mut self, line: &RequestLine<'_>, found: &mut Verification) -> Result<(), String> {
        let Some((event, body)) = &mut self.about else { return Err("the request belongs to no event".to_owned()) };
        let (headers, piece) = line.bytes().ok_or("the line contains no valid request")?;
        let body = match (body.take(), headers) {
            (None, Some(headers)) => {
                Body { headers_sha256: hex::encode(Sha256::digest(&headers)), digest: Sha256::new(), size: 0 }
            }
            (Some(body), None) => body,
            _ => return Err("the pieces of the request do not belong together".to_owned()),
        };
        if line.position != event.position {
            return Err("the request belongs to no event".to_owned());
        }
        let Body { headers_sha256, mut digest, mut size } = body;
        digest.update(&piece);
        size += piece.len() as u64;
        if line.more {
            if let Some((_, body)) = &mut self.about {
                *body = Some(Body { headers_sha256, digest, size });
            }
            return Ok(());
        }
        let digests = Digests { body_sha256: hex::encode(digest.finalize()), body_size: size, headers_sha256 };
        self.order.request(event, Some(&digests), &mut found.tally, &mut found.findings);
        self.requests += 1;
        self.about = None;
        Ok(())
    }

    /// The event before had no request, or a complete one.
    fn end_request(&mut self, found: &mut Verification) -> Result<(), String> {
        match self.about.take() {
            Some((_, Some(_))) => Err("the request before is incomplete".to_owned()),
            Some((event, None)) => {
                self.order.request(&event, None, &mut found.tally, &mut found.findings);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn checkpoint(&mut self, note: &str, found: &mut Verification) -> Result<(), String> {
        self.end_request(found)?;
        self.checkpoints += 1;
        let checkpoint = Checkpoint::open(note, &self.keys).map_err(|error| error.to_string())?;
        let Checkpoint { origin, size, root, last, signed_at } = &checkpoint;
        if origin.ledger != self.origin.ledger {
            return Err("the checkpoint belongs to another ledger".to_owned());
        }
        if (*size, *root, *last) != (self.edge.size(), self.edge.root(), self.last) {
            let when = signed_at.format("%Y-%m-%d %H:%M:%S UTC");
            let text = format!(
                "the events are not those of the checkpoint signed at {when}: some after the {} that an earlier one \
                 covers were changed, taken out or put in",
                self.covered
            );
            return Err(text);
        }
        self.covered = *size;
        found.checkpoints += 1;
        self.newest = Some(checkpoint);
        Ok(())
    }

    fn signed(&mut self, note: &str, sha256: &str, found: &mut Verification) -> Result<(), String> {
        self.end_request(found)?;
        let told = |error: crate::audit::checkpoint::CheckpointError| format!("the line that signs the file: {error}");
        let (text, by) = open_note(note, &self.origin, &self.signers).map_err(told)?;
        if !by.iter().any(|key| self.keys.contains(key)) {
            return Err("the file is not signed with the trusted key".to_owned());
        }
        let trailer = Trailer {
            origin: self.origin.to_string(),
            events: self.events,
            requests: self.requests,
            checkpoints: self.checkpoints,
            sha256: sha256.to_owned(),
        };
        if text != trailer.text() {
            return Err(
                "the file differs from the one that was signed: bytes were changed, removed or inserted".to_owned()
            );
        }
        self.order.removed(&mut found.findings);
        if self.covered != self.events {
            return Err(format!(
                "the last checkpoint covers {} events, and the file has {}",
                self.covered, self.events
            ));
        }
        if let Some(newest) = self.newest.take() {
            found.note_head(newest);
        }
        Ok(())
    }

    fn place(&self, position: i64) -> LogPosition {
        let ledger: LedgerId = self.origin.ledger;
        LogPosition { partition: ledger.partition(), position }
    }
}
