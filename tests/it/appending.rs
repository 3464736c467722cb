//! Appending recovers without help. Whatever happens to connections, nodes, clocks and the database, every
//! acknowledged webhook is in the log exactly once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use hookledger::log::{AppendError, Heads, Log, MonthlyLimit, NewEvent, Sequence, Unit, Writer, remove_old_flushes};
use hookledger::platform::secrets::master::generate;
use hookledger::platform::store::Use;
use hookledger::platform::vitals::Vitals;
use hookledger_aggregates::delivery::DeliveryEvent;
use hookledger_aggregates::{Metadata, OrganizationId};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{Database, GITHUB_SECRET, TestApp, hmac_hex, settings};
use crate::cluster::Cluster;
use crate::kill::{ask, token};
use crate::patience::PATIENCE;
use crate::process::Process;
use crate::proxy::{Network, Proxy};

/// A writer without a server.
struct Appender {
    log: Log,
    vitals: Vitals,
    stop: CancellationToken,
}

impl Appender {
    async fn on(url: &str) -> Self {
        Self::with_clock(url, Utc::now).await
    }

    async fn with_clock(url: &str, now: fn() -> DateTime<Utc>) -> Self {
        let pool = Database { url: url.to_owned() }.store().pool(Use::Append).await.unwrap();
        let (log, writer) = Writer::new(pool, Heads::default());
        let (vitals, stop) = (Vitals::default(), CancellationToken::new());
        tokio::spawn(writer.with_clock(now).run(vitals.clone(), stop.clone()));
        Self { log, vitals, stop }
    }

    /// Waits until it is ready, or no longer ready.
    async fn until_ready(&self, ready: bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.vitals.reasons().is_empty() != ready {
            assert!(Instant::now() < deadline, "{:?}", self.vitals.reasons());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn unit(organization: OrganizationId, id: Uuid, sequence: Sequence) -> Unit {
    let event = DeliveryEvent::AttemptStarted { attempt: 1 };
    Unit::new(vec![NewEvent::of(organization, id, sequence, &event, &Metadata::default()).unwrap()])
}

fn fresh_unit() -> Unit {
    unit(OrganizationId::from_slug("a"), Uuid::new_v4(), Sequence::At(1))
}

async fn events(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from events").fetch_one(pool).await.unwrap()
}

async fn end_connections(pool: &PgPool) {
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name = 'hookledger'",
    )
    .execute(pool)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_whose_connections_are_ended_succeed_and_are_there_once() {
    let database = Database::fresh().await;
    let appender = Appender::on(&database.url).await;
    let superuser = database.superuser().await;
    let done = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let (log, done) = (appender.log.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let (organization, id) = (OrganizationId::from_slug(&format!("o{n}")), Uuid::new_v4());
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    // An append to the end of a stream has no sequence, so it would be there twice if it were sent twice.
                    let units = vec![unit(organization, id, Sequence::End)];
                    let verdicts = log.append_all(units).await.unwrap();
                    assert!(verdicts.iter().all(Result::is_ok), "{verdicts:?}");
                    count += 1;
                }
                count
            })
        })
        .collect();
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        end_connections(&superuser).await;
    }
    done.store(true, Ordering::Relaxed);
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    assert_eq!(events(&superuser).await, count);
    appender.until_ready(true).await;
}

/// The answers to senders: webhook IDs of 200s by the delivery's ID, and the number of refusals.
#[derive(Default)]
struct Answers {
    accepted: Mutex<BTreeMap<String, Uuid>>,
    refused: AtomicUsize,
}

impl Answers {
    async fn post(&self, client: &reqwest::Client, url: &str, delivery: &str) -> bool {
        let body = format!("{{\"n\":\"{delivery}\"}}");
        let post = client
            .post(format!("{url}/webhooks/acme/github"))
            .timeout(Duration::from_secs(10))
            .header("x-github-delivery", delivery)
            .header("x-github-event", "push")
            .header("x-hub-signature-256", format!("sha256={}", hmac_hex(GITHUB_SECRET, body.as_bytes())))
            .body(body);
        let Ok(response) = post.send().await else { return false };
        if response.status() != reqwest::StatusCode::OK {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["duplicate"], false, "{delivery} was there before it was answered: {answer}");
        let id = answer["webhook_id"].as_str().unwrap().parse().unwrap();
        self.accepted.lock().unwrap().insert(delivery.to_owned(), id);
        true
    }

    /// Sends without a pause until it is stopped.
    fn senders(self: &Arc<Self>, url: &str, stop: &CancellationToken) -> Vec<tokio::task::JoinHandle<()>> {
        let sender = |n: usize| {
            let (answers, url, stop) = (Arc::clone(self), url.to_owned(), stop.clone());
            tokio::spawn(async move {
                let client = reqwest::Client::builder().no_proxy().build().unwrap();
                for i in 0.. {
                    if stop.is_cancelled() {
                        return;
                    }
                    if !answers.post(&client, &url, &format!("s-{n}-{i}")).await {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            })
        };
        (0..8).map(sender).collect()
    }

    /// Sends one at a time until one is accepted, and returns how long that took.
    async fn until_accepted(&self, client: &reqwest::Client, url: &str, name: &str) -> Duration {
        let since = Instant::now();
        for n in 0.. {
            if self.post(client, url, &format!("{name}-{n}")).await {
                break;
            }
            assert!(since.elapsed() < PATIENCE, "nothing is accepted any more");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        since.elapsed()
    }

    /// Every accepted webhook is in the log once.
    async fn are_in_the_log_once(&self, pool: &PgPool) {
        let counts: Vec<(String, i64)> = sqlx::query_as(
            "select aggregate_id, count(*) from events where event_type = 'webhook.received' group by aggregate_id",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let counts: BTreeMap<String, i64> = counts.into_iter().collect();
        for (delivery, id) in &*self.accepted.lock().unwrap() {
            assert_eq!(counts.get(&id.to_string()), Some(&1), "{delivery}");
        }
        let doubled = "select count(*) from events where event_type like 'webhook.duplicate%'";
        assert_eq!(sqlx::query_scalar::<_, i64>(doubled).fetch_one(pool).await.unwrap(), 0);
    }

    fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_connections_are_all_ended_goes_on() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let superuser = app.database.superuser().await;
    let (answers, stop) = (Arc::new(Answers::default()), CancellationToken::new());
    let senders = answers.senders(&app.url, &stop);
    for round in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        end_connections(&superuser).await;
        answers.until_accepted(&app.client, &app.url, &format!("r-{round}")).await;
    }
    stop.cancel();
    for sender in senders {
        sender.await.unwrap();
    }
    answers.are_in_the_log_once(&superuser).await;
    eprintln!("{} accepted, {} refused", answers.accepted(), answers.refused.load(Ordering::Relaxed));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_outlives_ten_crashes_of_its_database() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let database = Database { url: cluster.url.clone() };
    let app = TestApp::on(database, settings(Some(&cluster.url))).await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let (answers, stop) = (Arc::new(Answers::default()), CancellationToken::new());
    let senders = answers.senders(&app.url, &stop);
    let mut recoveries = Vec::new();
    for round in 0..10 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::task::block_in_place(|| cluster.crash());
        // Shorter and longer than callers wait.
        tokio::time::sleep(Duration::from_millis(if round == 9 { 6_000 } else { 100 })).await;
        if round == 9 {
            let ready = app.client.get(format!("{}/readyz", app.url)).send().await.unwrap();
            assert_eq!(ready.status(), 503);
        }
        tokio::task::block_in_place(|| cluster.restart());
        recoveries.push(answers.until_accepted(&app.client, &app.url, &format!("r-{round}")).await);
    }
    stop.cancel();
    for sender in senders {
        sender.await.unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready = app.client.get(format!("{}/readyz", app.url)).send().await.unwrap();
        if ready.status() == 200 {
            break;
        }
        assert!(Instant::now() < deadline, "{}", ready.text().await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let superuser = app.database.superuser().await;
    answers.are_in_the_log_once(&superuser).await;
    eprintln!(
        "{} accepted, {} refused; first 200 after {recoveries:?}",
        answers.accepted(),
        answers.refused.load(Ordering::Relaxed)
    );
    superuser.close().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_of_a_log_that_cannot_commit_and_comes_back_without_traffic() {
    let database = Database::fresh().await;
    let appender = Appender::on(&database.url).await;
    appender.log.append(fresh_unit()).await.unwrap();
    assert!(appender.vitals.reasons().is_empty());
    let mut superuser = PgConnection::connect(&database.url).await.unwrap();
    let forbid = "alter table flushes add constraint full_disk check (false) not valid";
    superuser.execute(forbid).await.unwrap();
    assert!(matches!(appender.log.append(fresh_unit()).await, Err(AppendError::Failed)));
    assert!(appender.vitals.reasons()[0].contains("cannot commit"), "{:?}", appender.vitals.reasons());
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(appender.vitals.reasons().len(), 1);
    superuser.execute("alter table flushes drop constraint full_disk").await.unwrap();
    appender.until_ready(true).await;
    appender.log.append(fresh_unit()).await.unwrap();
}

/// A proxy that loses the answers to flushes: while it is switched on, it closes the connection at each answer.
struct LosesAnswers {
    url: String,
    lost: Arc<AtomicUsize>,
    armed: Arc<AtomicBool>,
    /// Number of answers that were passed on to the writer.
    answers: Arc<AtomicUsize>,
}

impl LosesAnswers {
    async fn before(url: &str) -> Self {
        let options: PgConnectOptions = url.parse().unwrap();
        let socket = options.get_socket().map(|directory| directory.join(format!(".s.PGSQL.{}", options.get_port())));
        let tcp = format!("{}:{}", options.get_host(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = options.get_database().unwrap();
        let url = format!("postgres://postgres@{}/{name}?sslmode=disable", listener.local_addr().unwrap());
        let proxy = Self { url, lost: Arc::default(), armed: Arc::default(), answers: Arc::default() };
        let counts = (Arc::clone(&proxy.lost), Arc::clone(&proxy.armed), Arc::clone(&proxy.answers));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let ((lost, armed, answers), socket, tcp) = (counts.clone(), socket.clone(), tcp.clone());
                tokio::spawn(async move {
                    client.set_nodelay(true).unwrap();
                    if let Some(path) = socket {
                        carry(client, UnixStream::connect(path).await.unwrap(), &lost, &armed, &answers).await;
                    } else {
                        carry(client, TcpStream::connect(tcp).await.unwrap(), &lost, &armed, &answers).await;
                    }
                });
            }
        });
        proxy
    }
}

async fn carry(
    client: TcpStream,
    server: impl tokio::io::AsyncRead + tokio::io::AsyncWrite,
    lost: &AtomicUsize,
    armed: &AtomicBool,
    answers: &AtomicUsize,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    // The writer's connection is the one that prepares the function, whose next answers are to flushes.
    let is_writers = AtomicBool::new(false);
    let up = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            if buffer[..read].windows(12).any(|bytes| bytes == b"append_batch") {
                is_writers.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if is_writers.load(Ordering::SeqCst) {
                if armed.swap(false, Ordering::SeqCst) {
                    lost.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                answers.fetch_add(1, Ordering::SeqCst);
            }
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_answered_and_is_there_once() {
    let database = Database::fresh().await;
    let proxy = LosesAnswers::before(&database.url).await;
    let appender = Appender::on(&proxy.url).await;
    let superuser = database.superuser().await;
    let (organization, id) = (OrganizationId::from_slug("a"), Uuid::new_v4());
    for n in 1..=20 {
        // At the end of the stream, it could be appended twice. With a sequence, the second would be a conflict.
        let sequence = if n % 2 == 0 { Sequence::End } else { Sequence::At(n) };
        let place = appender.log.append(unit(organization, id, sequence)).await.unwrap();
        assert_eq!((place.last.position, events(&superuser).await), (n, n));
        proxy.armed.store(true, Ordering::SeqCst);
    }
    assert_eq!(proxy.lost.load(Ordering::SeqCst), 19);
    proxy.armed.store(false, Ordering::SeqCst);
    assert!(matches!(appender.log.append(unit(organization, id, Sequence::At(20))).await, Err(AppendError::Conflict)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_is_one_round_trip_whatever_its_kind() {
    let database = Database::fresh().await;
    let proxy = LosesAnswers::before(&database.url).await;
    let appender = Appender::on(&proxy.url).await;
    let organization = OrganizationId::from_slug("a");
    let plain = |id| unit(organization, id, Sequence::At(1));
    let checked = || unit(organization, Uuid::new_v4(), Sequence::End);
    let limit = Some(MonthlyLimit { allowed: 3, since: DateTime::UNIX_EPOCH });
    let taken = Uuid::new_v4();
    // Prepares both functions.
    appender.log.append(plain(taken)).await.unwrap();
    appender.log.append(checked()).await.unwrap();
    let answers_to = |unit: Unit| {
        let (log, answers) = (appender.log.clone(), Arc::clone(&proxy.answers));
        async move {
            let before = answers.load(Ordering::SeqCst);
            let verdict = log.append(unit).await;
            (answers.load(Ordering::SeqCst) - before, verdict)
        }
    };
    for unit in [
        plain(Uuid::new_v4()),
        checked(),
        Unit { limit, ..plain(Uuid::new_v4()) },
        Unit { limit, ..checked() },
        Unit { limit, ..checked() },
    ] {
        let (answers, verdict) = answers_to(unit).await;
        assert_eq!((answers, verdict.is_ok()), (1, true), "{verdict:?}");
    }
    // Beyond the limit, and in conflict. The simple function finds a conflict first: its error is one answer, the end of
    // the transaction another.
    let (answers, verdict) = answers_to(Unit { limit, ..checked() }).await;
    assert!(answers == 1 && matches!(verdict, Err(AppendError::OverLimit(used)) if used.accepted == 3), "{verdict:?}");
    let (answers, verdict) = answers_to(Unit { limit, ..plain(taken) }).await;
    assert!((2..=3).contains(&answers) && matches!(verdict, Err(AppendError::Conflict)), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_whose_commit_is_not_heard_of_is_answered_with_200() {
    let database = Database::fresh().await;
    let proxy = LosesAnswers::before(&database.url).await;
    let app = TestApp::on(Database { url: proxy.url.clone() }, settings(Some(&proxy.url))).await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let answers = Answers::default();
    for n in 0..10 {
        proxy.armed.store(true, Ordering::SeqCst);
        assert!(answers.post(&app.client, &app.url, &format!("d-{n}")).await);
    }
    assert!(proxy.lost.load(Ordering::SeqCst) >= 9);
    answers.are_in_the_log_once(&database.superuser().await).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_went_silent_is_given_up() {
    let database = Database::fresh().await;
    let proxy = Proxy::before(&database.url).await;
    let appender = Appender::on(&proxy.url).await;
    appender.log.append(fresh_unit()).await.unwrap();
    proxy.set(Network::Swallows);
    let unheard = tokio::spawn({
        let log = appender.log.clone();
        async move { log.append_all(vec![fresh_unit()]).await.unwrap().pop().unwrap() }
    });
    appender.until_ready(false).await;
    proxy.set(Network::Good);
    unheard.await.unwrap().unwrap();
    appender.log.append(fresh_unit()).await.unwrap();
    assert_eq!(events(&database.superuser().await).await, 3);
    appender.until_ready(true).await;
}

/// Appends one event to the end of a stream, in SQL.
const BY_HAND: &str = "select positions from append_batch_checked(
    $1, array[clock_timestamp()], '{0}', 1, '{0}', '{0}', '{1}', '{delivery}', array[$2], '{0}',
    array['00000000-0000-0000-0000-000000000000'::uuid], array['{}'], array[E'delivery.attempt_started\\t1\\t{}'],
    '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')";

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_is_sent_again_waits_for_its_first_try_and_is_answered_as_that() {
    let database = Database::fresh().await;
    let superuser = database.superuser().await;
    let stream = Uuid::new_v4();
    for commits in [true, false] {
        let flush = Uuid::now_v7();
        let mut first = superuser.begin().await.unwrap();
        let before: Vec<Option<i64>> =
            sqlx::query_scalar(BY_HAND).bind(flush).bind(stream).fetch_one(&mut *first).await.unwrap();
        let pool = superuser.clone();
        let again = tokio::spawn(async move {
            sqlx::query_scalar::<_, Vec<Option<i64>>>(BY_HAND).bind(flush).bind(stream).fetch_one(&pool).await.unwrap()
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!again.is_finished());
        if commits {
            first.commit().await.unwrap();
        } else {
            first.rollback().await.unwrap();
        }
        assert_eq!(again.await.unwrap(), before);
    }
    assert_eq!(events(&superuser).await, 2);
}

#[tokio::test]
async fn records_of_old_flushes_are_removed() {
    let database = Database::fresh().await;
    let pool = database.store().pool(Use::Append).await.unwrap();
    let superuser = database.superuser().await;
    sqlx::query(
        "insert into flushes
         select gen_random_uuid(), clock_timestamp() - n * interval '1 min', false, '{}', '{}', '{}', '{}', '{}'
         from generate_series(0, 29) n, generate_series(1, 100)",
    )
    .execute(&superuser)
    .await
    .unwrap();
    let mut after = DateTime::UNIX_EPOCH;
    for _ in 0..2 {
        remove_old_flushes(&pool, &mut after).await.unwrap();
        let left: i64 = sqlx::query_scalar("select count(*) from flushes").fetch_one(&superuser).await.unwrap();
        assert_eq!(left, 1_000);
    }
}

#[tokio::test]
async fn a_flush_changes_no_row_so_that_a_long_snapshot_does_not_slow_it() {
    let database = Database::fresh().await;
    let appender = Appender::on(&database.url).await;
    let superuser = database.superuser().await;
    for n in 0..50 {
        let sequence = if n % 2 == 0 { Sequence::At(1) } else { Sequence::End };
        appender.log.append(unit(OrganizationId::from_slug("a"), Uuid::new_v4(), sequence)).await.unwrap();
    }
    // Backends report their statistics when they end.
    end_connections(&superuser).await;
    let deadline = Instant::now() + PATIENCE;
    let counts = "select n_tup_ins from pg_stat_user_tables where relname = 'commits'";
    while sqlx::query_scalar::<_, i64>(counts).fetch_one(&superuser).await.unwrap() < 50 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let changed: Vec<String> =
        sqlx::query_scalar("select relname::text from pg_stat_user_tables where n_tup_upd + n_tup_del > 0")
            .fetch_all(&superuser)
            .await
            .unwrap();
    assert_eq!(changed, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_paused_anywhere_stops_no_other() {
    let database = Database::fresh().await;
    let mut paused = Process::new();
    paused.environment = vec![
        ("DATABASE_URL", database.url.clone()),
        ("HOOKLEDGER_MASTER_KEYS", generate("k1").unwrap()),
        ("HOOKLEDGER_JWT_KEYS", generate("j1").unwrap()),
    ];
    let mut other = Process::new();
    other.environment.clone_from(&paused.environment);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    paused.serve().await;
    let session = token(&paused, &client).await;
    let connect = "mutation($id: ID!, $secret: String!) { connectProvider(input: {organizationId: $id, providerName: GITHUB, secret: $secret}) { provider { id } } }";
    // The node whose flushes were checked and counted.
    let create = "mutation { createOrganization(input: {name: \"Acme\", slug: \"acme\", plan: STARTER}) { organization { id } } }";
    let data = ask(&paused, &client, &session, create, json!({})).await;
    let id = data["createOrganization"]["organization"]["id"].clone();
    ask(&paused, &client, &session, connect, json!({ "id": id, "secret": GITHUB_SECRET })).await;
    other.serve().await;

    // Duplicates beside new webhooks: nearly every flush of the paused node is a checked one.
    let stop = CancellationToken::new();
    let senders: Vec<_> = (0..8)
        .map(|n| {
            let (url, stop) = (paused.url(), stop.clone());
            tokio::spawn(async move {
                let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
                for i in 0.. {
                    if stop.is_cancelled() {
                        return;
                    }
                    let delivery = if i % 2 == 0 { "same".to_owned() } else { format!("p-{n}-{i}") };
                    let post = client
                        .post(format!("{url}/webhooks/acme/github"))
                        .header("x-github-delivery", delivery)
                        .header("x-hub-signature-256", format!("sha256={}", hmac_hex(GITHUB_SECRET, b"{}")))
                        .body("{}");
                    drop(post.send().await);
                }
            })
        })
        .collect();
    let answers = Answers::default();
    for round in 0..15_u64 {
        tokio::time::sleep(Duration::from_millis(150 + 7 * round)).await;
        paused.signal("STOP");
        answers.until_accepted(&client, &other.url(), &format!("o-{round}")).await;
        paused.signal("CONT");
    }
    stop.cancel();
    for sender in senders {
        sender.await.unwrap();
    }
    eprintln!("{} refused while the other was paused", answers.refused.load(Ordering::Relaxed));
}

#[tokio::test]
async fn the_clock_is_believed_where_another_agrees() {
    let database = Database::fresh().await;
    let superuser = database.superuser().await;
    // The node's clock and that of the last event, in minutes before or after the database's.
    for (node, last, believed) in [
        (0, Some(0), true),
        (4, Some(4), true),
        (-4, Some(-600), true),
        // The database's clock jumped ahead, or back.
        (-10, Some(-10), false),
        (10, Some(10), false),
        // The node's clock alone is off.
        (-10, Some(-1), true),
        (600, Some(0), true),
        // The log was idle, or is ahead because its clock was wrong once.
        (0, Some(-6_000), true),
        (0, Some(6_000), true),
        (0, None, true),
        // No clock can be trusted.
        (-10, None, false),
        (10, Some(-6_000), false),
    ] {
        let told = sqlx::query(
            "select check_clock($1, array[$1 + $2 * interval '1 min', $3 * interval '1 min' + $1, '-infinity'])",
        )
        .bind(Utc::now())
        .bind(node)
        .bind(last)
        .execute(&superuser)
        .await;
        let code = told.as_ref().err().and_then(|error| error.as_database_error()?.code());
        assert_eq!(code.as_deref(), (!believed).then_some("HL002"), "{node} {last:?}: {told:?}");
    }
}

fn ten_minutes_ago() -> DateTime<Utc> {
    Utc::now() - chrono::Duration::minutes(10)
}

#[tokio::test]
async fn nothing_is_appended_by_a_clock_that_nothing_agrees_with() {
    let database = Database::fresh().await;
    let superuser = database.superuser().await;
    // The log is empty, and the clocks of node and database differ.
    let wrong = Appender::with_clock(&database.url, ten_minutes_ago).await;
    assert!(matches!(wrong.log.append(fresh_unit()).await, Err(AppendError::Overloaded)));
    assert!(wrong.vitals.reasons()[0].contains("clock"), "{:?}", wrong.vitals.reasons());
    assert_eq!(events(&superuser).await, 0);
    // A node with a correct clock appends. From then on, the last event confirms the database's clock.
    let right = Appender::on(&database.url).await;
    right.log.append(fresh_unit()).await.unwrap();
    wrong.log.append(fresh_unit()).await.unwrap();
    assert!(wrong.vitals.reasons().is_empty());
    // As if the database's clock had jumped by ten minutes: the last event is that old.
    superuser
        .execute(
            "alter table commits disable trigger commits_are_immutable;
             update commits set recorded_at = recorded_at - interval '10 min';
             alter table commits enable trigger commits_are_immutable",
        )
        .await
        .unwrap();
    let other = Appender::with_clock(&database.url, ten_minutes_ago).await;
    assert!(matches!(other.log.append(fresh_unit()).await, Err(AppendError::Overloaded)));
    // A node that saw the clocks agree knows how much time has passed since, whatever its own clock says.
    wrong.log.append(fresh_unit()).await.unwrap();
    other.until_ready(true).await;
    assert_eq!(events(&superuser).await, 3);
}
