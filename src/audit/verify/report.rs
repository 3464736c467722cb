//! Reports of a verification: as text, and as a page that an auditor can file. The page is self-contained,
//! and text from strangers is never markup in it.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use chrono::{DateTime, Utc};

use super::{Finding, Subject, Verification};

/// For the terminal: the result, the first problem, and what was verified.
#[must_use]
pub fn text(found: &Verification) -> String {
    let mut out = String::new();
    // A file may contain anything, so control characters must not reach the terminal.
    let mut line = |text: String| {
        out.extend(text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }));
        out.push('\n');
    };
    for (what, said) in facts(found) {
        line(format!("{what}: {said}"));
    }
    for loss in &found.losses {
        line(format!("declared loss: {}", loss.told(&found.name_of(loss.origin.ledger))));
    }
    for note in &found.notes {
        line(note.clone());
    }
    line(found.key_source.proves().to_owned());
    match found.findings.first() {
        None => line(format!("OK: {}", verdict(found))),
        Some(first) => {
            line(format!("WRONG: {}", told(found, first)));
            for other in found.findings.iter().skip(1).take(19) {
                line(format!("  also: {}", told(found, other)));
            }
            let count = found.findings.count();
            if count > 20 {
                line(format!("  and {} more", count - 20));
            }
        }
    }
    out
}

fn verdict(found: &Verification) -> String {
    let events = found.tally.events;
    match found.unsigned {
        0 => format!("nothing was altered, removed or reordered in these {events} events."),
        unsigned => format!(
            "nothing was altered, removed or reordered in these {events} events. The last {unsigned} of them have no \
             checkpoint is signed yet."
        ),
    }
}

/// A finding, with the organization that it concerns.
fn told(found: &Verification, finding: &Finding) -> String {
    match finding.ledger {
        Some(ledger) => format!("{finding} ({})", found.name_of(ledger)),
        None => finding.to_string(),
    }
}

fn time(microseconds: Option<i64>) -> String {
    let time = microseconds.and_then(DateTime::<Utc>::from_timestamp_micros);
    time.map_or_else(|| "-".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// The facts at the top of the report, in its order.
fn facts(found: &Verification) -> Vec<(&'static str, String)> {
    let (tally, requests) = (&found.tally, &found.tally.requests);
    let subject = match &found.subject {
        Subject::Store { organization: None } => "all organizations of the store".to_owned(),
        Subject::Store { organization: Some(slug) } => format!("organization {slug}, in the store"),
        Subject::File { path, organization } => format!("organization {organization}, in the file {path}"),
    };
    let skipped: Vec<_> = tally.signatures_skipped.iter().map(|(why, count)| format!("{count}: {why}")).collect();
    let mut facts = vec![
        ("verified", subject),
        (
            "events",
            format!(
                "{} in {} ledgers, from {} to {}",
                tally.events,
                found.ledgers,
                time(tally.first),
                time(tally.last)
            ),
        ),
        ("checkpoints", format!("{} signed heads agree with the events", found.checkpoints)),
        (
            "requests",
            format!(
                "{} bodies ({} bytes) and {} headers have the SHA-256 of their event; {} bodies are no longer stored",
                requests.bodies, requests.bytes, requests.headers, requests.gone
            ),
        ),
    ];
    if requests.headers_unattested > 0 {
        let text = format!("{}, of events from releases that recorded no digest", requests.headers_unattested);
        facts.push(("headers without a digest", text));
    }
    if matches!(found.subject, Subject::Store { .. }) {
        facts.push(("senders' signatures", format!("{} verified again", tally.signatures_verified)));
    }
    if !skipped.is_empty() {
        facts.push(("signatures that could not be verified again", skipped.join("; ")));
    }
    facts
}

/// The page.
#[must_use]
pub fn html(found: &Verification) -> String {
    let mut page = String::with_capacity(32 << 10);
    let (class, result) = if found.is_intact() { ("ok", "Intact") } else { ("wrong", "Not intact") };
    page.push_str(HEAD);
    let _ = write!(page, "<h1>Audit report</h1><p class=\"result {class}\"><strong>{result}.</strong> ");
    match found.findings.first() {
        None => page.push_str(&escape(&verdict(found))),
        Some(first) => page.push_str(&escape(&told(found, first))),
    }
    page.push_str("</p>");
    let mut checked = facts(found);
    checked.insert(0, ("verified at", found.checked_at.format("%Y-%m-%d %H:%M:%S UTC").to_string()));
    checked.push(("verified with", format!("hookledger {}", env!("CARGO_PKG_VERSION"))));
    table(&mut page, "Scope", ["", ""], checked.iter().map(|(what, said)| [escape(what), escape(said)]));
    if !found.is_intact() {
        let rows = found.findings.iter().map(|finding| {
            let place =
                finding.place.map(|place| format!("{}:{}", place.partition, place.position)).unwrap_or_default();
            let ledger = finding.ledger.map(|ledger| found.name_of(ledger)).unwrap_or_default();
            [escape(&place), escape(&ledger), escape(&finding.text)]
        });
        table(&mut page, &format!("Findings ({})", found.findings.count()), ["position", "ledger", "finding"], rows);
    }
    if !found.losses.is_empty() {
        let rows = found.losses.iter().map(|loss| [escape(&loss.told(&found.name_of(loss.origin.ledger)))]);
        table(&mut page, "Declared losses", ["missing from the log"], rows);
    }
    page.push_str("<h2>Keys</h2><ul>");
    for key in &found.keys {
        let _ = write!(page, "<li><code>{}</code></li>", escape(&key.to_string()));
    }
    let _ = write!(page, "</ul><p>{}</p>", escape(found.key_source.proves()));
    let heads = found.heads.iter().map(|head| {
        let when = head.signed_at.format("%Y-%m-%d %H:%M:%S UTC").to_string();
        let name = found.name_of(head.origin.ledger);
        [
            escape(&name),
            head.size.to_string(),
            format!("<code>{}</code>", escape(&head.root.to_string())),
            escape(&when),
        ]
    });
    table(&mut page, "Last checkpoints", ["ledger", "events", "root", "signed at"], heads);
    counts(&mut page, "Events by kind", "kind", &found.tally.by_kind);
    counts(&mut page, "Events by month", "month", &found.tally.by_month);
    counts(&mut page, "Events by actor", "actor", &found.tally.by_actor);
    page.push_str("<h2>What this report proves</h2><ul>");
    for note in &found.notes {
        let _ = write!(page, "<li>{}</li>", escape(note));
    }
    page.push_str(
        "<li>Each event was hashed exactly as stored, and the Merkle tree over them (RFC 6962) was compared with every \
         signed checkpoint. Positions, times and the order within each stream were checked.</li>\
         <li>A body that is no longer stored cannot be compared; its event still proves its SHA-256 and size.</li>\
         <li>Not verified: whether the recorded facts are true, and read models, which are derived from the log.</li>\
         </ul></body></html>\n",
    );
    page
}

fn counts(page: &mut String, title: &str, what: &'static str, counts: &BTreeMap<String, u64>) {
    table(page, title, [what, "events"], counts.iter().map(|(name, count)| [escape(name), count.to_string()]));
}

/// Cells are markup already.
fn table<const N: usize>(
    page: &mut String,
    title: &str,
    head: [&'static str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    let _ = write!(page, "<h2>{}</h2><table>", escape(title));
    if head.iter().any(|name| !name.is_empty()) {
        row(page, "th", &head);
    }
    rows.for_each(|cells| row(page, "td", &cells));
    page.push_str("</table>");
}

fn row(page: &mut String, cell: &str, cells: &[impl Display]) {
    page.push_str("<tr>");
    for content in cells {
        let _ = write!(page, "<{cell}>{content}</{cell}>");
    }
    page.push_str("</tr>");
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            c => escaped.push(c),
        }
    }
    escaped
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
<meta name=\"viewport\" content=\"width=device-width\"><title>Audit report</title><style>\
body{font:15px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.6rem;margin:0 0 1rem}h2{font-size:1.05rem;margin:1.8rem 0 .4rem}\
.result{border-left:.4rem solid;padding:.7rem 1rem;background:#f6f6f6;font-size:1.05rem}\
.ok{border-color:#1a7f37}.wrong{border-color:#b42318}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.25rem .8rem .25rem 0;\
border-bottom:1px solid #ddd;overflow-wrap:anywhere}th{font-weight:600}td:first-child{min-width:9rem}\
code{font-size:.85em;overflow-wrap:anywhere}\
@media print{body{margin:0;max-width:none;font-size:10pt}.result{background:none;border:1pt solid;border-left-width:4pt}\
tr{break-inside:avoid}h2{break-after:avoid}@page{margin:18mm}}\
</style></head><body>";

#[cfg(test)]
mod tests {
    use hookledger_aggregates::OrganizationId;

    use super::*;
    use crate::audit::LedgerId;
    use crate::audit::verify::{KeySource, Kind};
    use crate::log::LogPosition;

    #[test]
    fn nothing_that_strangers_wrote_is_markup() {
        let subject = Subject::File { path: "<b>.jsonl".into(), organization: "<script>alert(1)</script>".into() };
        let mut found = Verification::new(subject, DateTime::default(), Vec::new(), KeySource::File);
        let organization = OrganizationId::from_slug("acme");
        found.names.insert(organization.uuid(), "<img src=x onerror=alert(1)>".into());
        found.tally.by_kind.insert("<script>".into(), 1);
        found.tally.by_actor.insert("'\"&\u{1}".into(), 1);
        found.notes.push("<i>".into());
        let place = LogPosition { partition: organization.partition(), position: 7 };
        let ledger = LedgerId::organization(organization);
        found.findings.add(Finding::at(Kind::Changed, place, ledger, "the <event>"));
        let page = html(&found);
        for bad in ["<script", "<img", "<i>", "<b>", "<event>", "\u{1}"] {
            assert!(!page.contains(bad), "{bad}");
        }
        assert!(page.contains("&#39;&quot;&amp;\u{fffd}") && page.contains("Not intact"));
        found.notes.push("\u{1b}[2J".into());
        assert!(!text(&found).contains('\u{1b}'));
        assert!(text(&found).contains(&format!("WRONG: position {}:7: the <event>", place.partition)));
    }
}
