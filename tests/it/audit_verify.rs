//! An auditor's checks: of the store and of an exported ledger, after the database's superuser changed what must not be
//! changed.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use chrono::Utc;
use futures::StreamExt as _;
use hookledger::audit::export::format::{EventLine, Line};
use hookledger::audit::export::read;
use hookledger::audit::verify::Kind;
use hookledger::log::stored_event::StoredEvent;
use hookledger_aggregates::{OrganizationId, Partition};
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use crate::app::{Database, GITHUB_SECRET, TestApp};
use crate::patience::PATIENCE;
use crate::process::BINARY;
use crate::tamper::{UNLOCKED, WRITABLE};

/// Enough for two full tiles of the ledger.
const WEBHOOKS: usize = 200;

/// A store with some history, all of it signed, and no running node.
pub struct Audited {
    pub database: Database,
    master_keys: String,
    directory: tempfile::TempDir,
    pub partition: Partition,
}

impl Audited {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("checkpoints.jsonl");
        let app = TestApp::with(|settings| settings.checkpoint_file = Some(file)).await;
        let admin = app.super_admin().await;
        app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
        let send = |n: usize| {
            let request = app.github("acme", &format!("d-{n}"), format!("{{\"n\":{n}}}"));
            async move { assert!(request.send().await.unwrap().status().is_success()) }
        };
        futures::stream::iter(0..WEBHOOKS).map(send).buffer_unordered(16).collect::<Vec<()>>().await;
        let forged = app.github("acme", "forged", "{}").header("x-hub-signature-256", "sha256=00");
        assert_eq!(forged.send().await.unwrap().status(), 401);
        let done =
            |nodes: &[serde_json::Value]| nodes.iter().filter(|node| node["status"] == "SUCCESS").count() == WEBHOOKS;
        admin.webhooks_until("acme", "status", done).await;
        drop(admin);
        Self::of(app, directory).await
    }

    /// Waits until all that a node recorded is signed, and stops it.
    pub async fn of(app: TestApp, directory: tempfile::TempDir) -> Self {
        let pool = app.database.superuser().await;
        let signed = "select not exists (
             select from log_heads h left join follower_checkpoints c on c.name = 'ledger' and c.partition = h.partition
             where coalesce(c.position, 0) < h.position)
             and not exists (select from ledger_trees t where not exists (
                 select from ledger_checkpoints c where c.ledger_id = t.ledger_id and c.size = t.size))";
        let deadline = Instant::now() + PATIENCE;
        while !sqlx::query_scalar::<_, bool>(signed).fetch_one(&pool).await.unwrap() {
            assert!(Instant::now() < deadline, "the ledger does not catch up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        pool.close().await;
        let master_keys = app.settings.store.master_keys.as_ref().unwrap().expose_secret().to_owned();
        let database = Database { url: app.database.url.clone() };
        app.stop().await;
        let partition = OrganizationId::from_slug("acme").partition();
        Self { database, master_keys, directory, partition }
    }

    fn checkpoint_file(&self) -> PathBuf {
        self.directory.path().join("checkpoints.jsonl")
    }

    pub fn audit(&self, url: &str, arguments: &[&str]) -> Output {
        self.run(url, &[&["audit"], arguments].concat())
    }

    pub fn run(&self, url: &str, arguments: &[&str]) -> Output {
        self.command(url, arguments).output().unwrap()
    }

    fn command(&self, url: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(self.directory.path()).env_clear();
        command.env("PATH", std::env::var("PATH").unwrap()).env("DATABASE_URL", url).env("RUST_LOG", "error");
        command.env("HOOKLEDGER_MASTER_KEYS", &self.master_keys);
        command.env("HOOKLEDGER_CHECKPOINT_FILE", self.checkpoint_file());
        command
    }

    /// A copy of the database.
    pub async fn copy(&self) -> String {
        let (server, name) = self.database.url.rsplit_once('/').unwrap();
        let copy = format!("test_{}", uuid::Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
        let sql = format!("create database {copy} template {name}");
        // Backends of closed connections need a moment to end.
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = admin.execute(sql.as_str()).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        admin.close().await.unwrap();
        format!("{server}/{copy}")
    }

    /// Positions of the webhooks' first events.
    async fn received(&self) -> Vec<i64> {
        let mut superuser = PgConnection::connect(&self.database.url).await.unwrap();
        let sql = "select position from events where event_type = 'webhook.received' order by position";
        let positions = superuser.fetch_all(sql).await.unwrap().iter().map(|row| row.get(0)).collect();
        superuser.close().await.unwrap();
        positions
    }
}

pub fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_superuser_changes_is_named() {
    let audited = Audited::new().await;
    let received = audited.received().await;
    let p = audited.partition;
    let n = p.number();
    let mut superuser = PgConnection::connect(&audited.database.url).await.unwrap();
    // No checkpoint was signed between the two: it would cover only the first.
    let sql = "select last_position from ledger_checkpoints where ledger_id = $1";
    let acme = OrganizationId::from_slug("acme").uuid();
    let signed: Vec<i64> = sqlx::query_scalar(sql).bind(acme).fetch_all(&mut superuser).await.unwrap();
    let is_apart = |two: &&[i64]| signed.iter().any(|last| (two[0]..two[1] + 3).contains(last));
    let two = received[20..].windows(2).find(|two| !is_apart(two)).unwrap();
    let (a, b) = (two[0], two[1]);
    let sql = format!("select position from log_heads where partition = {n}");
    let last: i64 = superuser.fetch_one(sql.as_str()).await.unwrap().get(0);
    let sql =
        format!("select max(size) from ledger_checkpoints where ledger_id = '{}'", OrganizationId::from_slug("acme"));
    let size: i64 = superuser.fetch_one(sql.as_str()).await.unwrap().get(0);
    superuser.close().await.unwrap();
    let acme = OrganizationId::from_slug("acme");

    let untouched = audited.audit(&audited.copy().await, &["verify"]);
    assert_eq!(untouched.status.code(), Some(0), "{}", told(&untouched));
    assert!(told(&untouched).contains(&format!("{WEBHOOKS} verified again")), "{}", told(&untouched));

    let swap = |column: &str| {
        format!(
            "create temporary table two as select position as p, {column} as v from events where partition = {n} and position in ({a}, {b});
             update events set {column} = (select v from two where p <> position)
             where partition = {n} and position in ({a}, {b})"
        )
    };
    let at = |sql: &str| format!("{sql} where partition = {n} and position = {a}");
    let of_acme = |table: &str, set: &str, which: &str| {
        format!("update {table} set {set} where ledger_id = '{acme}' and {which}")
    };
    let cases: Vec<(&str, String, i64, &str)> = vec![
        (
            "an event changed",
            at("update events set payload = replace(payload::text, '\"github\"', '\"stripe\"')::json"),
            a,
            "was changed",
        ),
        ("its spaces changed", at("update events set payload = (payload::text || ' ')::json"), a, "was changed"),
        (
            "its time changed",
            at("update events set recorded_at = recorded_at + interval '1 microsecond'"),
            a,
            "was changed",
        ),
        (
            "two events swapped",
            format!(
                "update events set position = -1 where partition = {n} and position = {a};
                 update events set position = {a} where partition = {n} and position = {b};
                 update events set position = {b} where partition = {n} and position = -1"
            ),
            a,
            "the events here and at",
        ),
        ("two payloads swapped", swap("payload"), a, "payload of the events here and at"),
        (
            "the last three deleted",
            format!("delete from events where partition = {n} and position > {last} - 3"),
            last - 2,
            "missing",
        ),
        (
            "the last three deleted, and the traces in the database",
            format!(
                "delete from events where partition = {n} and position > {last} - 3;
                 update follower_checkpoints set position = {last} - 3 where partition = {n};
                 delete from ledger_checkpoints where ledger_id = '{acme}' and size > {size} - 3;
                 delete from ledger_tails where ledger_id = '{acme}';
                 update ledger_trees set size = {size} - 3 where ledger_id = '{acme}'"
            ),
            last - 2,
            "missing",
        ),
        ("one in the middle deleted", at("delete from events"), a, "missing"),
        ("a commit deleted", at("delete from commits"), a, "missing"),
        (
            "the second event of a commit changed",
            at("update commits set data = replace(data, '\"secretVersion\":1', '\"secretVersion\":2')"),
            a + 1,
            "was changed",
        ),
        (
            "the events of a commit swapped",
            at(
                "update commits set data = concat_ws(E'\\n', split_part(data, E'\\n', 2), split_part(data, E'\\n', 1), \
                split_part(data, E'\\n', 3))",
            ),
            a,
            "WRONG",
        ),
        (
            "the end of a commit cut off",
            at("update commits set data = split_part(data, E'\\n', 1), events = 1"),
            a + 1,
            "missing",
        ),
        (
            "an event added to a commit",
            at("update commits set data = data || E'\\nwebhook.x\\t1\\t{}'"),
            a,
            "said to have 3 events",
        ),
        (
            "text after an event",
            at("update commits set data = replace(data, E'\\n', E'\\t\\tx\\n')"),
            a,
            "not as the server writes it",
        ),
        (
            "a commit put where nothing follows",
            format!(
                "alter table commits drop constraint commits_partition_check;
                 insert into commits (position, recorded_at, stream_id, organization_id, partition, first_sequence,
                                      events, aggregate_type, metadata, data)
                 select position, recorded_at, gen_random_uuid(), organization_id, 99, first_sequence, events,
                        aggregate_type, metadata, data
                 from commits where partition = {n} and position = {a}"
            ),
            0,
            "partitions that do not exist",
        ),
        ("the count of a commit changed", at("update commits set events = 1"), a, "said to have 1 events"),
        (
            "the actor of a commit changed",
            at("update commits set metadata = replace(metadata, 'sender', 'system')"),
            a,
            "was changed",
        ),
        (
            "one in the middle deleted, and the others moved up",
            format!(
                "{};
                 update events set position = -position where partition = {n} and position > {a};
                 update events set position = -position - 1 where partition = {n} and position < 0",
                at("delete from events")
            ),
            a,
            "missing",
        ),
        (
            "a body replaced",
            format!("update webhook_bodies set body = 'x' where position = {a}"),
            a,
            "stored body was replaced",
        ),
        (
            "headers replaced",
            format!("update webhook_bodies set headers = headers || 'x:y\n' where position = {a}"),
            a,
            "stored headers were replaced",
        ),
        (
            "a body put in",
            format!(
                "insert into webhook_bodies (organization_id, webhook_id, headers, body, position)
                     values ('{acme}', gen_random_uuid(), '', '', {last} + 100)"
            ),
            last + 100,
            "belongs to no event",
        ),
        (
            "a tile changed",
            of_acme("ledger_tiles", "hashes = set_byte(hashes, 33, get_byte(hashes, 33) # 1)", "index = 0"),
            2,
            "the tile 0/0",
        ),
        (
            "a tile deleted",
            format!("delete from ledger_tiles where ledger_id = '{acme}' and index = 1"),
            0,
            "the tile 0/1",
        ),
        (
            "a tail changed",
            of_acme("ledger_tails", "hashes = set_byte(hashes, 0, get_byte(hashes, 0) # 1)", "true"),
            0,
            "ledger_tails",
        ),
        ("a head changed", of_acme("ledger_trees", "root = sha256('x')", "true"), 0, "ledger_trees"),
        (
            "a checkpoint changed",
            of_acme("ledger_checkpoints", "note = replace(note, 'time 2', 'time 3')", &format!("size = {size}")),
            0,
            "ledger_checkpoints",
        ),
        (
            "a checkpoint's row changed",
            of_acme("ledger_checkpoints", "root = sha256('x')", &format!("size = {size}")),
            0,
            "its row is not",
        ),
        (
            "a checkpoint deleted",
            format!("delete from ledger_checkpoints where ledger_id = '{acme}' and size = {size}"),
            0,
            "is missing",
        ),
        (
            "an event changed, and its tile with it",
            format!(
                "{}; {}",
                at("update events set metadata = '{}'"),
                of_acme("ledger_tiles", "hashes = set_byte(hashes, 40, get_byte(hashes, 40) # 1)", "index = 0")
            ),
            0,
            "are not those of the checkpoint",
        ),
    ];
    for (what, sql, position, expected) in cases {
        let url = audited.copy().await;
        let mut superuser = PgConnection::connect(&url).await.unwrap();
        superuser.execute(UNLOCKED).await.unwrap();
        if sql.contains("update events") || sql.contains("from events") {
            superuser.execute(WRITABLE).await.unwrap();
        }
        superuser.execute(sql.as_str()).await.unwrap();
        superuser.close().await.unwrap();
        let output = audited.audit(&url, &["verify"]);
        let text = told(&output);
        let first = text.lines().find(|line| line.starts_with("WRONG: ")).unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{what}: {text}");
        assert!(first.contains(expected), "{what}: {text}");
        if position > 0 {
            assert!(first.contains(&format!("position {p}:{position}: ")) || position == 2, "{what}: {text}");
        }
    }
    // With the trusted key from elsewhere, and with another key.
    let key =
        Command::new(BINARY).arg("ledger-key").env("HOOKLEDGER_MASTER_KEYS", &audited.master_keys).output().unwrap();
    let key = String::from_utf8(key.stdout).unwrap();
    let with =
        |key: &str| audited.audit(&audited.database.url, &["verify", "--organization", "acme", "--public-key", key]);
    assert_eq!(with(key.trim()).status.code(), Some(0), "{}", told(&with(key.trim())));
    let other = hookledger::audit::checkpoint::LedgerKeys::derive(
        &hookledger::platform::secrets::master::generate("x").unwrap().parse().unwrap(),
    );
    assert_eq!(with(&other.public()[0].to_string()).status.code(), Some(1));
    assert_eq!(audited.audit("postgres://nobody@127.0.0.1:1/none", &["verify"]).status.code(), Some(2));
    assert_eq!(audited.audit(&audited.database.url, &["verify", "--organization", "nobody"]).status.code(), Some(2));
}

/// The kind of the first finding, with the file alone.
fn check(path: &Path) -> Option<Kind> {
    let found = read::verify(path, &[], Utc::now(), &mut |_, _| ()).unwrap();
    found.findings.first().map(|finding| finding.kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_verifies_alone_and_not_with_any_byte_changed() {
    let audited = Audited::new().await;
    let path = audited.directory.path().join("acme.jsonl");
    let name = path.to_str().unwrap();
    let exported = audited.audit(&audited.database.url, &["export", "acme", "--out", name]);
    assert!(exported.status.success(), "{}", told(&exported));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let whole = std::fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&whole).into_owned();
    assert!(
        text.contains("\"event_type\":\"access.audit_exported\"") && text.contains("command line"),
        "who exported is in it"
    );
    assert!(!text.contains(GITHUB_SECRET));

    // Only the file and the binary are needed.
    let alone = tempfile::tempdir().unwrap();
    std::fs::copy(&path, alone.path().join("x")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["audit", "verify"]).args(arguments).current_dir(alone.path()).env_clear().output().unwrap()
    };
    let output = run(&["x", "--report", "report.html"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let report = std::fs::read_to_string(alone.path().join("report.html")).unwrap();
    for part in ["Intact.", "organization acme", "webhook.received", "sender", "Last checkpoints"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert_eq!(run(&["none"]).status.code(), Some(2));

    let changed = alone.path().join("changed");
    let check_bytes = |bytes: &[u8]| {
        std::fs::write(&changed, bytes).unwrap();
        check(&changed)
    };
    assert_eq!(check_bytes(&whole), None);
    let samples = (0..whole.len()).step_by(whole.len() / 180).chain(whole.len() - 40..whole.len()).chain(0..40);
    for index in samples {
        for flip in [1_u8, 0x20] {
            let mut bytes = whole.clone();
            bytes[index] ^= flip;
            assert!(check_bytes(&bytes).is_some(), "byte {index}");
        }
    }
    for end in [0, 1, whole.len() / 2, whole.len() - 1] {
        assert!(check_bytes(&whole[..end]).is_some(), "cut at {end}");
    }
    for more in [&b"\n"[..], b" ", b"{}\n", &whole] {
        assert!(check_bytes(&[&whole[..], more].concat()).is_some());
    }
    let lines: Vec<&str> = text.lines().collect();
    for index in [0, 1, lines.len() / 2, lines.len() - 2, lines.len() - 1] {
        let without: String =
            lines.iter().enumerate().filter(|(n, _)| *n != index).map(|(_, line)| format!("{line}\n")).collect();
        assert!(check_bytes(without.as_bytes()).is_some(), "without line {index}");
    }
    // The finding names the changed event.
    let place = text.find("\"bodySize\":").unwrap() + 11;
    let mut bytes = whole.clone();
    bytes[place] = if bytes[place] == b'9' { b'8' } else { b'9' };
    assert_eq!(check_bytes(&bytes), Some(Kind::Changed));

    // Numbers at the ends of their range.
    let extreme = |number: i64| {
        let organization = OrganizationId::from_slug("acme");
        let event = StoredEvent {
            organization: organization.uuid(),
            partition: organization.partition().number(),
            position: number,
            sequence: number,
            recorded_at: number,
            aggregate_type: "webhook",
            aggregate_id: "00000000-0000-0000-0000-000000000000",
            event_type: "webhook.received",
            event_version: "1",
            payload: "{}",
            metadata: "{}",
        };
        serde_json::to_string(&Line::Event(EventLine::new(&event, event.leaf_hash()).unwrap())).unwrap()
    };
    let extremes: Vec<String> = [i64::MAX, i64::MAX, i64::MIN, 0].map(extreme).to_vec();
    let hostile: [Vec<u8>; 7] = [
        format!("{}\n{}\n", lines[0], extremes.join("\n")).into_bytes(),
        Vec::new(),
        vec![0; 20 << 20],
        vec![b'['; 20 << 20],
        format!("{}\n{}\n", lines[0], "{\"event\":".repeat(100_000)).into_bytes(),
        format!("{}\n{{\"event\":{{\"position\":1e999}}}}\n", lines[0]).into_bytes(),
        (0..=255_u8).cycle().take(100_000).collect(),
    ];
    for bytes in hostile {
        assert!(check_bytes(&bytes).is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_verifies_once_its_loss_is_declared_and_a_later_change_is_found_all_the_same() {
    let audited = Audited::new().await;
    let backup = audited.copy().await;
    // An export is recorded in the log and signed, also in the checkpoint file.
    let exported = audited.audit(&audited.database.url, &["export", "acme"]);
    assert!(exported.status.success(), "{}", told(&exported));

    let verify = || audited.audit(&backup, &["verify"]);
    let before = verify();
    assert_eq!(before.status.code(), Some(1), "{}", told(&before));
    assert!(told(&before).contains("WRONG") && told(&before).contains("missing"), "{}", told(&before));

    let shown = audited.audit(&backup, &["declare-loss", "--reason", "restored from Tuesday's backup"]);
    assert!(shown.status.success(), "{}", told(&shown));
    assert!(told(&shown).contains("missing: organization acme"), "{}", told(&shown));
    assert!(told(&shown).contains("Nothing was declared yet"), "{}", told(&shown));
    assert_eq!(verify().status.code(), Some(1));

    let declared = audited.audit(&backup, &["declare-loss", "--reason", "restored from Tuesday's backup", "--yes"]);
    assert!(declared.status.success(), "{}", told(&declared));
    for _ in 0..2 {
        let after = verify();
        assert_eq!(after.status.code(), Some(0), "{}", told(&after));
        assert!(told(&after).contains("declared loss: organization acme"), "{}", told(&after));
        assert!(told(&after).contains("restored from Tuesday's backup"), "{}", told(&after));
    }
    let again = audited.audit(&backup, &["declare-loss", "--reason", "again", "--yes"]);
    assert!(told(&again).contains("No loss was found"), "{}", told(&again));

    // Only the declared loss is excused: neither a change, nor a forged declaration.
    let mut superuser = PgConnection::connect(&backup).await.unwrap();
    superuser.execute(UNLOCKED).await.unwrap();
    superuser.execute(WRITABLE).await.unwrap();
    let change = format!(
        "update events set metadata = '{{\"actor\":\"sender\"}}' where partition = {} and position = {}",
        audited.partition.number(),
        audited.received().await[7]
    );
    superuser.execute(change.as_str()).await.unwrap();
    superuser.close().await.unwrap();
    let changed = verify();
    assert_eq!(changed.status.code(), Some(1), "{}", told(&changed));
    let refused = audited.audit(&backup, &["declare-loss", "--reason", "to hide it", "--yes"]);
    assert!(!refused.status.success(), "{}", told(&refused));
    assert_eq!(verify().status.code(), Some(1));
}

/// The database is older than the file of checkpoints beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_a_restored_backup_warns_until_the_loss_is_declared() {
    let audited = Audited::new().await;
    let backup = audited.copy().await;
    let exported = audited.audit(&audited.database.url, &["export", "acme"]);
    assert!(exported.status.success(), "{}", told(&exported));
    let mut settings = crate::app::settings(Some(&backup));
    settings.store.master_keys = Some(audited.master_keys.clone().into());
    settings.checkpoint_file = Some(audited.checkpoint_file());
    let app = TestApp::on(Database { url: backup.clone() }, settings).await;
    let until = async |warned: bool| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready = app.client.get(format!("{}/readyz", app.url)).send().await.unwrap();
            let (status, said) = (ready.status(), ready.text().await.unwrap());
            if status == 200 && said.contains("restored to an earlier state") == warned {
                return;
            }
            assert!(Instant::now() < deadline, "{status}: {said}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until(true).await;
    let declared = audited.audit(&backup, &["declare-loss", "--reason", "restored", "--yes"]);
    assert!(declared.status.success(), "{}", told(&declared));
    until(false).await;
    app.stop().await;
}

/// A node that serves signs while the check runs: the database first, then the file. The file is a pipe here, which the
/// check reads when the test writes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_signed_while_the_check_begins_is_not_missing() {
    let audited = Audited::new().await;
    let url = audited.copy().await;
    let mut superuser = PgConnection::connect(&url).await.unwrap();
    let taken = "set session_replication_role = replica;
                 create temporary table signed as select * from ledger_checkpoints order by signed_at desc limit 1;
                 delete from ledger_checkpoints c using signed s where c.ledger_id = s.ledger_id and c.size = s.size";
    superuser.execute(taken).await.unwrap();
    let pipe = audited.directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let kept = std::fs::read(audited.checkpoint_file()).unwrap();
    let verifying = {
        let mut command = audited.command(&url, &["audit", "verify"]);
        command.env("HOOKLEDGER_CHECKPOINT_FILE", &pipe);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    // It opens once the check does.
    let opened = tokio::task::spawn_blocking(move || std::fs::File::options().write(true).open(pipe).unwrap());
    let mut opened = tokio::time::timeout(PATIENCE, opened).await.expect("the check reads the file").unwrap();
    superuser.execute("insert into ledger_checkpoints select * from signed").await.unwrap();
    opened.write_all(&kept).unwrap();
    drop(opened);
    let verified = verifying.await.unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", told(&verified));
    assert!(told(&verified).contains("the log was compared with all of them"), "{}", told(&verified));
    superuser.close().await.unwrap();
}
