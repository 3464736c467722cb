//! The ledger, checked by a second implementation. Leaves, trees, proofs and notes are computed here
//! from the specifications alone, with none of the product's code.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookledger::log::{Heads, NewEvent, Sequence, Unit, Writer};
use hookledger::platform::store::Use;
use hookledger::platform::vitals::Vitals;
use hookledger_aggregates::delivery::DeliveryEvent;
use hookledger_aggregates::user::Role;
use hookledger_aggregates::{Metadata, OrganizationId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::{Executor as _, PgPool, Row as _};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{Actor, Database, GITHUB_SECRET, TestApp};
use crate::patience::PATIENCE;

type Hash = [u8; 32];

fn sha256(parts: &[&[u8]]) -> Hash {
    Sha256::digest(parts.concat()).into()
}

/// RFC 6962, section 2.1.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            sha256(&[&[1], &root(left), &root(right)])
        }
    }
}

/// RFC 9162, section 2.1.3.2.
fn inclusion_holds(index: u64, size: u64, leaf: Hash, proof: &[Hash], root: Hash) -> bool {
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for step in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = sha256(&[&[1], step, &hash]);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = sha256(&[&[1], &hash, step]);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && hash == root
}

/// RFC 9162, section 2.1.4.2.
fn consistency_holds(from: u64, from_root: Hash, to: u64, to_root: Hash, proof: &[Hash]) -> bool {
    if from == to {
        return proof.is_empty() && from_root == to_root;
    }
    let mut path = proof.to_vec();
    if from.is_power_of_two() {
        path.insert(0, from_root);
    }
    let [first, rest @ ..] = &path[..] else { return false };
    let (mut node, mut last) = (from - 1, to - 1);
    while node & 1 == 1 {
        (node, last) = (node >> 1, last >> 1);
    }
    let (mut before, mut after) = (*first, *first);
    for step in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            (before, after) = (sha256(&[&[1], step, &before]), sha256(&[&[1], step, &after]));
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            after = sha256(&[&[1], &after, step]);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && before == from_root && after == to_root
}

/// The leaf of each event, by tree and in order, with its position, computed from the table.
async fn leaves(pool: &PgPool) -> BTreeMap<Uuid, Vec<(i64, Hash)>> {
    let rows = sqlx::query(
        "select organization_id, partition, position, sequence,
                (extract(epoch from recorded_at) * 1000000)::bigint,
                aggregate_type, aggregate_id, event_type, event_version, payload::text, metadata::text
         from events order by partition, position",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut trees: BTreeMap<Uuid, Vec<(i64, Hash)>> = BTreeMap::new();
    for row in rows {
        let (organization, partition, position): (Uuid, i32, i64) = (row.get(0), row.get(1), row.get(2));
        let mut bytes = vec![0, 1];
        bytes.extend(organization.as_bytes());
        bytes.extend(partition.to_be_bytes());
        for number in [position, row.get(3), row.get(4)] {
            bytes.extend(number.to_be_bytes());
        }
        for column in 5..11 {
            let text: &str = row.get(column);
            bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        let home = i32::from(organization.as_bytes()[15] % 16);
        let stray = Uuid::from_u128(0x8000_8000_0000_0000_0000 + u128::from(partition.unsigned_abs()));
        let tree = if home == partition { organization } else { stray };
        trees.entry(tree).or_default().push((position, sha256(&[&bytes])));
    }
    trees
}

fn roots(leaves: &BTreeMap<Uuid, Vec<(i64, Hash)>>) -> BTreeMap<Uuid, (i64, Vec<u8>)> {
    let root_of = |leaves: &[(i64, Hash)]| root(&leaves.iter().map(|(_, leaf)| *leaf).collect::<Vec<_>>()).to_vec();
    let size = |leaves: &[(i64, Hash)]| i64::try_from(leaves.len()).unwrap();
    leaves.iter().map(|(tree, leaves)| (*tree, (size(leaves), root_of(leaves)))).collect()
}

async fn kept(pool: &PgPool) -> BTreeMap<Uuid, (i64, Vec<u8>)> {
    let rows: Vec<(Uuid, i64, Vec<u8>)> =
        sqlx::query_as("select ledger_id, size, root from ledger_trees").fetch_all(pool).await.unwrap();
    rows.into_iter().map(|(tree, size, root)| (tree, (size, root))).collect()
}

/// Waits until a query returns true.
async fn until(pool: &PgPool, question: &str) {
    // Null, the sum over no rows, is not yet true.
    let holds = async || sqlx::query_scalar::<_, Option<bool>>(question).fetch_one(pool).await.unwrap() == Some(true);
    crate::patience::until(question, holds).await;
}

async fn caught_up(pool: &PgPool) {
    until(
        pool,
        "select (select sum(position) from log_heads) =
                (select sum(position) from follower_checkpoints where name = 'ledger')",
    )
    .await;
}

async fn all_signed(pool: &PgPool) {
    caught_up(pool).await;
    until(
        pool,
        "select not exists (select from ledger_trees t where not exists (
             select from ledger_checkpoints c where c.ledger_id = t.ledger_id and c.size = t.size))",
    )
    .await;
}

/// Many events of each organization, without a node.
async fn append(database: &Database, slugs: &[String], each: usize) {
    let (log, writer) = Writer::new(database.store().pool(Use::Append).await.unwrap(), Heads::default());
    let stop = CancellationToken::new();
    let writing = tokio::spawn(writer.run(Vitals::default(), stop.clone()));
    for n in 0..each {
        let units = slugs.iter().map(|slug| {
            let organization = OrganizationId::from_slug(slug);
            let event = DeliveryEvent::AttemptStarted { attempt: u32::try_from(n).unwrap() };
            let metadata = Metadata::default();
            Unit::new(vec![NewEvent::of(organization, Uuid::new_v4(), Sequence::At(1), &event, &metadata).unwrap()])
        });
        for verdict in log.append_all(units.collect()).await.unwrap() {
            verdict.unwrap();
        }
    }
    stop.cancel();
    writing.await.unwrap();
}

fn slugs(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("bulk-{n}")).collect()
}

/// The parts of a signed note: origin, size, root; checked with the public key `name+id+base64`.
fn opened(note: &str, key: &str) -> (String, u64, Hash) {
    let (text, signatures) = note.rsplit_once("\n\n").unwrap();
    let text = format!("{text}\n");
    let lines: Vec<&str> = text.lines().collect();
    let mut parts = key.splitn(3, '+');
    let (name, id, public) =
        (parts.next().unwrap(), parts.next().unwrap(), STANDARD.decode(parts.next().unwrap()).unwrap());
    assert_eq!(name, lines[0]);
    assert_eq!(public[0], 1);
    assert_eq!(id, hex::encode(&sha256(&[name.as_bytes(), b"\n", &public])[..4]));
    let signature = signatures.strip_prefix(&format!("— {name} ")).unwrap().trim_end();
    let signature = STANDARD.decode(signature).unwrap();
    assert_eq!(hex::encode(&signature[..4]), id);
    ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &public[1..])
        .verify(text.as_bytes(), &signature[4..])
        .unwrap();
    let root = STANDARD.decode(lines[2]).unwrap().try_into().unwrap();
    (lines[0].to_owned(), lines[1].parse().unwrap(), root)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tree_is_that_of_its_events_also_of_those_before_the_ledger() {
    let app = {
        let database = Database::fresh().await;
        // More than one tile, in trees that share partitions, before any follower runs.
        append(&database, &slugs(40), 300).await;
        let settings = crate::app::settings(Some(&database.url));
        TestApp::on(database, settings).await
    };
    let pool = app.database.superuser().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    app.user("acme", "ada@example.org", Role::Admin).await;
    for n in 0..30 {
        app.github("acme", &format!("d-{}", n % 20), format!("{{\"n\": {n}}}")).send().await.unwrap();
    }
    all_signed(&pool).await;
    let expected = leaves(&pool).await;
    assert!(expected.len() > 42, "forty, acme, the platform, and a stray claim or two: {}", expected.len());
    assert_eq!(kept(&pool).await, roots(&expected));
    let tails: i64 = sqlx::query_scalar("select count(*) from ledger_tails").fetch_one(&pool).await.unwrap();
    let tiles: i64 = sqlx::query_scalar("select count(*) from ledger_tiles").fetch_one(&pool).await.unwrap();
    assert!(tiles >= 40 && tails < 400, "no row for each event: {tiles} tiles, {tails} tails");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go_and_trees_go_on_exactly() {
    let mut app = TestApp::start().await;
    let pool = app.database.superuser().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    for round in 0..3 {
        let next = app.second_node().await;
        append(&app.database, &slugs(7), 50).await;
        for n in 0..10 {
            app.github("acme", &format!("{round}-{n}"), "{}").send().await.unwrap();
        }
        if round == 1 {
            // As if it had lost the lease without noticing.
            pool.execute("update followers set lease_until = '-infinity', owner = null where name = 'ledger'")
                .await
                .unwrap();
        }
        app.stop().await;
        append(&next.database, &slugs(7), 50).await;
        app = next;
    }
    all_signed(&pool).await;
    assert_eq!(kept(&pool).await, roots(&leaves(&pool).await));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_full_or_signed_cannot_be_rewritten() {
    let database = Database::fresh().await;
    append(&database, &slugs(1), 300).await;
    let settings = crate::app::settings(Some(&database.url));
    let app = TestApp::on(database, settings).await;
    let pool = app.database.superuser().await;
    all_signed(&pool).await;
    for table in ["ledger_tiles", "ledger_checkpoints"] {
        for sql in
            [format!("update {table} set root = 'x'"), format!("delete from {table}"), format!("truncate {table}")]
        {
            for role in ["none", "hookledger_worker", "hookledger_runtime"] {
                let mut connection = pool.acquire().await.unwrap();
                connection.execute(format!("set role {role}").as_str()).await.unwrap();
                let refused = connection.execute(sql.as_str()).await.unwrap_err();
                let code = refused.as_database_error().unwrap().code().unwrap().into_owned();
                assert_eq!(code, if role == "none" { "23001" } else { "42501" }, "{role}: {sql}");
                connection.execute("reset role").await.unwrap();
            }
        }
    }
    for (role, sql) in [
        ("hookledger_runtime", "delete from ledger_tails"),
        ("hookledger_runtime", "update ledger_trees set size = 0"),
        ("hookledger_worker", "update ledger_tails set hashes = ''"),
        ("hookledger_worker", "delete from ledger_trees"),
    ] {
        let mut connection = pool.acquire().await.unwrap();
        connection.execute(format!("set role {role}").as_str()).await.unwrap();
        assert!(connection.execute(sql).await.is_err(), "{role}: {sql}");
        connection.execute("reset role").await.unwrap();
    }
    app.stop().await;
}

fn notes(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["note"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_checkpoint_is_in_a_file_that_only_grows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoints.jsonl");
    let mut app = TestApp::with(|settings| settings.checkpoint_file = Some(path.clone())).await;
    let pool = app.database.superuser().await;
    let mut before = Vec::new();
    for round in 1..=3 {
        append(&app.database, &slugs(2), 5).await;
        all_signed(&pool).await;
        // The database has them a moment before the file.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let kept: Vec<String> =
                sqlx::query_scalar("select note from ledger_checkpoints").fetch_all(&pool).await.unwrap();
            let in_file = if path.exists() { notes(&path) } else { Vec::new() };
            if kept.iter().all(|note| in_file.contains(note)) {
                break;
            }
            assert!(Instant::now() < deadline, "{kept:?} of {in_file:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let now = std::fs::read(&path).unwrap();
        assert!(now.starts_with(&before) && now.len() > before.len());
        before = now;
        if round < 3 {
            let (database, settings) = (Database { url: app.database.url.clone() }, app.settings.clone());
            app.stop().await;
            app = TestApp::on(database, settings).await;
        }
    }
    let in_file = notes(&path);
    let kept: Vec<String> = sqlx::query_scalar("select note from ledger_checkpoints").fetch_all(&pool).await.unwrap();
    assert!(kept.len() >= 4);
    assert!(kept.iter().all(|note| in_file.contains(note)), "{kept:?} of {in_file:?}");
    app.stop().await;
}

const CHECKPOINT: &str = "checkpoint { size rootHash lastPosition note }";

fn hash(value: &Value) -> Hash {
    STANDARD.decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

fn hashes(value: &Value) -> Vec<Hash> {
    value.as_array().unwrap().iter().map(hash).collect()
}

async fn ledger(actor: &Actor<'_>, fields: &str) -> Value {
    let query = format!("{{ organization(slug: \"acme\") {{ ledger {{ {fields} }} }} }}");
    actor.data(&query, json!({})).await["organization"]["ledger"].take()
}

struct Acme {
    app: TestApp,
    pool: PgPool,
}

impl Acme {
    async fn with(events: usize) -> Self {
        let app = TestApp::start().await;
        let pool = app.database.superuser().await;
        let admin = app.super_admin().await;
        app.organization(&admin, "acme", &[]).await;
        app.organization(&admin, "other", &[]).await;
        let this = Self { app, pool };
        this.add(events).await;
        this
    }

    async fn add(&self, events: usize) {
        append(&self.app.database, &["acme".to_owned(), "other".to_owned()], events).await;
        all_signed(&self.pool).await;
    }

    /// Position and leaf of each of its events.
    async fn leaves(&self) -> Vec<(i64, Hash)> {
        leaves(&self.pool).await.remove(&OrganizationId::from_slug("acme").uuid()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_hold_before_a_verifier_of_ones_own() {
    let acme = Acme::with(300).await;
    let admin = acme.app.user("acme", "ada@example.org", Role::Admin).await;
    all_signed(&acme.pool).await;
    let earlier = ledger(&admin, &format!("publicKey {CHECKPOINT}")).await;
    acme.add(500).await;
    let later = ledger(&admin, &format!("publicKey origin {CHECKPOINT}")).await;

    let leaves = acme.leaves().await;
    let hashes_of: Vec<Hash> = leaves.iter().map(|(_, leaf)| *leaf).collect();
    let key = later["publicKey"].as_str().unwrap();
    assert_eq!(earlier["publicKey"], later["publicKey"]);
    for (ledger, size) in [(&earlier, None), (&later, Some(leaves.len()))] {
        let told = &ledger["checkpoint"];
        let (origin, signed, root_hash) = opened(told["note"].as_str().unwrap(), key);
        assert_eq!((origin.as_str(), &json!(signed)), (later["origin"].as_str().unwrap(), &told["size"]));
        assert_eq!(root_hash, root(&hashes_of[..usize::try_from(signed).unwrap()]));
        assert_eq!(root_hash, hash(&told["rootHash"]));
        assert!(size.is_none_or(|size| size as u64 == signed), "the checkpoint does not cover the whole tree");
    }
    let (from, to) = (earlier["checkpoint"]["size"].as_u64().unwrap(), later["checkpoint"]["size"].as_u64().unwrap());
    let (from_root, to_root) = (hash(&earlier["checkpoint"]["rootHash"]), hash(&later["checkpoint"]["rootHash"]));
    assert!(from > 256 && to > from);

    let proof = ledger(&admin, &format!("consistencyProof(from: {from}) {{ hashes {CHECKPOINT} }}")).await;
    let proof = hashes(&proof["consistencyProof"]["hashes"]);
    assert!(consistency_holds(from, from_root, to, to_root, &proof));
    assert!(!consistency_holds(from, to_root, to, to_root, &proof));

    let partition = OrganizationId::from_slug("acme").partition();
    for index in [0, 1, 255, 256, leaves.len() - 1] {
        let (position, leaf) = leaves[index];
        for (size, root_hash) in [(from, from_root), (to, to_root)] {
            let fields = format!(
                "inclusionProof(position: \"{partition}:{position}\", size: {size}) {{ leafIndex leaf leafHash hashes }}"
            );
            if index as u64 >= size {
                continue;
            }
            let proof = &ledger(&admin, &fields).await["inclusionProof"];
            assert_eq!(proof["leafIndex"], json!(index));
            assert_eq!(hash(&proof["leafHash"]), leaf);
            assert_eq!(sha256(&[&[0], &STANDARD.decode(proof["leaf"].as_str().unwrap()).unwrap()]), leaf);
            assert!(inclusion_holds(index as u64, size, leaf, &hashes(&proof["hashes"]), root_hash));
        }
    }
    let ask = |fields: String| format!("{{ organization(slug: \"acme\") {{ ledger {{ {fields} }} }} }}");
    for (fields, code) in [
        ("consistencyProof(from: -1) { from }".to_owned(), "BAD_USER_INPUT"),
        ("consistencyProof(from: 100000) { from }".to_owned(), "BAD_USER_INPUT"),
        ("consistencyProof(from: 1, to: 7) { from }".to_owned(), "NOT_FOUND"),
        (format!("inclusionProof(position: \"{partition}:0\") {{ leaf }}"), "NOT_FOUND"),
        (format!("inclusionProof(position: \"{partition}:100000\") {{ leaf }}"), "UNAVAILABLE"),
        (format!("inclusionProof(position: \"{}:1\") {{ leaf }}", (partition.number() + 1) % 16), "BAD_USER_INPUT"),
    ] {
        assert_eq!(admin.code(&ask(fields.clone()), json!({})).await, code, "{fields}");
    }
    acme.app.stop().await;
}

/// The status and bytes of a GET.
async fn get(actor: &Actor<'_>, path: &str) -> (u16, Vec<u8>) {
    let request = actor.app.client.get(format!("{}/api/{path}", actor.app.url)).bearer_auth(&actor.token);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_tiles_finds_every_leaf_and_event() {
    let acme = Acme::with(700).await;
    let admin = acme.app.user("acme", "ada@example.org", Role::Admin).await;
    all_signed(&acme.pool).await;
    let base = "organizations/acme/ledger";
    let (_, key) = get(&admin, &format!("{base}/key")).await;
    let (_, note) = get(&admin, &format!("{base}/checkpoint")).await;
    let (key, note) = (String::from_utf8(key).unwrap(), String::from_utf8(note).unwrap());
    let (_, size, root_hash) = opened(&note, key.trim_end());
    let leaves: Vec<Hash> = acme.leaves().await.into_iter().map(|(_, leaf)| leaf).collect();
    assert_eq!((leaves.len() as u64, root(&leaves)), (size, root_hash));

    let (mut from_tiles, mut from_entries) = (Vec::new(), Vec::new());
    for tile in 0..=size / 256 {
        let width = (size - tile * 256).min(256);
        let path = if width == 256 { format!("{tile:03}") } else { format!("{tile:03}.p/{width}") };
        let (status, bytes) = get(&admin, &format!("{base}/tile/0/{path}")).await;
        assert_eq!((status, bytes.len() as u64), (200, width * 32), "{path}");
        from_tiles.extend(bytes.chunks_exact(32).map(|hash| Hash::try_from(hash).unwrap()));
        let (status, bytes) = get(&admin, &format!("{base}/tile/entries/{path}")).await;
        assert_eq!(status, 200, "{path}");
        let mut rest = &bytes[..];
        while let [high, low, more @ ..] = rest {
            let (entry, more) = more.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            from_entries.push(sha256(&[&[0], entry]));
            rest = more;
        }
    }
    assert_eq!((&from_tiles, &from_entries), (&leaves, &leaves));
    let tiles = size / 256;
    let (_, above) = get(&admin, &format!("{base}/tile/1/000.p/{tiles}")).await;
    let expected: Vec<u8> = leaves.chunks_exact(256).flat_map(root).collect();
    assert_eq!(above, expected);
    // An earlier tree's tile is the beginning of today's.
    let (_, part) = get(&admin, &format!("{base}/tile/0/000.p/3")).await;
    assert_eq!(part, leaves[..3].concat());

    let proof = get(&admin, &format!("{base}/proof/consistency?from=3")).await.1;
    let proof: Value = serde_json::from_slice(&proof).unwrap();
    assert!(consistency_holds(3, root(&leaves[..3]), size, root_hash, &hashes(&proof["hashes"])));
    let position = acme.leaves().await[5].0;
    let proof = get(&admin, &format!("{base}/proof/inclusion?position={position}")).await.1;
    let proof: Value = serde_json::from_slice(&proof).unwrap();
    assert!(inclusion_holds(5, size, leaves[5], &hashes(&proof["hashes"]), root_hash));

    for (path, expected) in [
        (format!("tile/0/{tiles:03}"), 404),
        (format!("tile/0/{tiles:03}.p/255"), 404),
        ("tile/0/999".to_owned(), 404),
        ("tile/7/000".to_owned(), 404),
        ("tile/200/000".to_owned(), 404),
        ("tile/0/000.p/0".to_owned(), 404),
        ("tile/entries/999".to_owned(), 404),
        ("proof/inclusion".to_owned(), 400),
        ("proof/inclusion?position=x".to_owned(), 400),
        ("proof/consistency?from=99999999".to_owned(), 400),
        ("nothing".to_owned(), 404),
    ] {
        assert_eq!(get(&admin, &format!("{base}/{path}")).await.0, expected, "{path}");
    }
    acme.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_for_the_admins_of_its_organization() {
    let acme = Acme::with(1).await;
    let app = &acme.app;
    let super_admin = app.super_admin().await;
    let admin = app.user("acme", "ada@example.org", Role::Admin).await;
    let member = app.user("acme", "bob@example.org", Role::Member).await;
    let foreign = app.user("other", "eve@example.org", Role::Admin).await;
    all_signed(&acme.pool).await;
    let strays: Vec<Uuid> = leaves(&acme.pool).await.into_keys().filter(|id| id.as_u128() >> 64 == 0x8000).collect();
    for path in ["checkpoint", "key", "tile/0/000.p/1", "tile/entries/000.p/1", "proof/consistency?from=0"] {
        let ours = format!("organizations/acme/ledger/{path}");
        let stranger = app.client.get(format!("{}/api/{ours}", app.url)).send().await.unwrap();
        assert_eq!(stranger.status().as_u16(), 401, "{path}");
        for (actor, expected) in [(&super_admin, 200), (&admin, 200), (&member, 403), (&foreign, 404)] {
            assert_eq!(get(actor, &ours).await.0, expected, "{path}");
        }
        let nobodys = get(&foreign, &format!("organizations/nobody/ledger/{path}")).await;
        assert_eq!(get(&foreign, &ours).await, nobodys);
        // Ledgers of no organization, and ledgers by ID, are for super admins only.
        let acmes = OrganizationId::from_slug("acme").uuid();
        for id in [Uuid::nil(), acmes].into_iter().chain(strays.iter().copied()) {
            assert_eq!(get(&super_admin, &format!("ledgers/{id}/{path}")).await.0, 200, "{id} {path}");
            assert_eq!(get(&admin, &format!("ledgers/{id}/{path}")).await.0, 404, "{id} {path}");
        }
    }
    let posted = app.client.post(format!("{}/api/organizations/acme/ledger/checkpoint", app.url)).send().await.unwrap();
    assert_eq!(posted.status().as_u16(), 405);
    assert!(!strays.is_empty(), "no claim on an address is in another partition");
    let platform = super_admin.data(&format!("{{ platformLedgers {{ ledgerId {CHECKPOINT} }} }}"), json!({})).await;
    let platform = platform["platformLedgers"].as_array().unwrap();
    assert_eq!(platform.iter().filter(|ledger| !ledger["checkpoint"].is_null()).count(), strays.len() + 1);
    acme.app.stop().await;
}

/// A witness according to C2SP tlog-witness: it remembers a tree by its first line, and refuses heads that
/// do not extend it. At first it knows nothing, and the size is 0.
#[derive(Clone, Default)]
struct TestWitness(std::sync::Arc<std::sync::Mutex<BTreeMap<String, (u64, Hash)>>>);

impl TestWitness {
    fn add(&self, body: &str) -> (u16, String) {
        let (head, note) = body.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let old: u64 = lines.next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
        let proof: Vec<Hash> = lines.map(|line| STANDARD.decode(line).unwrap().try_into().unwrap()).collect();
        let told: Vec<&str> = note.lines().collect();
        let (size, new): (u64, Hash) =
            (told[1].parse().unwrap(), STANDARD.decode(told[2]).unwrap().try_into().unwrap());
        let mut known = self.0.lock().unwrap();
        let (known_size, known_root) = known.get(told[0]).copied().unwrap_or((0, root(&[])));
        if old != known_size {
            return (409, format!("{known_size}\n"));
        }
        if old > 0 && !consistency_holds(old, known_root, size, new, &proof) {
            return (422, String::new());
        }
        known.insert(told[0].to_owned(), (size, new));
        (200, format!("— witness.example.com {}\n", STANDARD.encode([7; 76])))
    }
}

/// Serves the witness; returns its URL.
async fn serve_witness(
    answer: impl Fn(&str) -> (u16, String) + Clone + Send + Sync + 'static,
) -> (String, tokio::task::JoinHandle<()>) {
    use warp::Filter as _;
    let route =
        warp::post().and(warp::path!("add-checkpoint")).and(warp::body::bytes()).map(move |body: bytes::Bytes| {
            let (status, told) = answer(std::str::from_utf8(&body).unwrap());
            warp::reply::with_status(told, warp::http::StatusCode::from_u16(status).unwrap())
        });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/add-checkpoint", listener.local_addr().unwrap());
    (url, tokio::spawn(warp::serve(route).incoming(listener).run()))
}

/// A restored backup and a promoted replica look like this to a node that never knew the tail.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_knows_a_longer_tree_is_warned_about_until_it_does_not() {
    let size = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1_000_000));
    let told_size = std::sync::Arc::clone(&size);
    let ledger = OrganizationId::from_slug("bulk-0").to_string();
    let (url, serving) = serve_witness(move |told| match told_size.load(std::sync::atomic::Ordering::SeqCst) {
        size if size > 0 && told.contains(&ledger) => (409, format!("{size}\n")),
        _ => (200, String::new()),
    })
    .await;
    let app = TestApp::with(|settings| settings.witness_url = Some(url)).await;
    append(&app.database, &slugs(1), 10).await;
    let until = async |warned: bool| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = app.client.get(format!("{}/readyz", app.url)).send().await.unwrap().text().await.unwrap();
            if told.contains("the witness knows more of") == warned {
                return;
            }
            assert!(Instant::now() < deadline, "{told}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until(true).await;
    size.store(0, std::sync::atomic::Ordering::SeqCst);
    append(&app.database, &slugs(1), 10).await;
    until(false).await;
    app.stop().await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_is_told_and_what_it_signs_is_kept() {
    let witness = TestWitness::default();
    let answering = witness.clone();
    let (url, serving) = serve_witness(move |body| answering.add(body)).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoints.jsonl");
    let settings = |settings: &mut hookledger::node::config::ServeSettings| {
        settings.checkpoint_file = Some(path.clone());
        settings.witness_url = Some(url.clone());
    };
    let mut app = TestApp::with(settings).await;
    let pool = app.database.superuser().await;
    for round in 0..3 {
        append(&app.database, &slugs(3), 100).await;
        all_signed(&pool).await;
        let expected = roots(&leaves(&pool).await);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let known = witness.0.lock().unwrap().clone();
            let known: BTreeMap<Uuid, (i64, Vec<u8>)> = known
                .into_iter()
                .map(|(origin, (size, root))| {
                    let (_, id) = origin.rsplit_once('/').unwrap();
                    (id.parse().unwrap(), (i64::try_from(size).unwrap(), root.to_vec()))
                })
                .collect();
            if known == expected {
                break;
            }
            assert!(Instant::now() < deadline, "{known:?} is not {expected:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // After a restart, the witness's refusal tells which size it knows.
        if round == 1 {
            let (database, settings) = (Database { url: app.database.url.clone() }, app.settings.clone());
            app.stop().await;
            app = TestApp::on(database, settings).await;
        }
    }
    let cosigned = notes(&path).into_iter().filter(|note| note.contains("— witness.example.com ")).count();
    assert!(cosigned >= 9, "{cosigned}");
    app.stop().await;
    serving.abort();
}
