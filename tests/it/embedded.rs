//! The embedded store, attacked by holders of one of its roles, or of an account on the machine.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use hookledger::platform::store::embedded::{DATABASE, OWNER, SUPERUSER, Supervised};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _, PgConnection};

use crate::patience::found;
use crate::process::Process;

const MASTER_KEYS: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Connects, once the server has started.
async fn connect(socket: &Path, user: &str) -> PgConnection {
    let options = PgConnectOptions::new_without_pgpass().socket(socket).username(user).database(DATABASE);
    found("no connection", async || options.connect().await.ok()).await
}

fn socket(process: &Process) -> std::path::PathBuf {
    process.data().join("postgres")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_the_embedded_store_can_give_itself_nothing() {
    let mut process = Process::new();
    process.run(&["migrate"]);
    {
        // As an earlier release left it, and an attacker after it.
        let data = process.data();
        let earlier = tokio::task::spawn_blocking(move || Supervised::start(&data).unwrap()).await.unwrap();
        let mut superuser = connect(earlier.socket_directory(), SUPERUSER).await;
        for damage in [
            format!("alter role {OWNER} createrole"),
            format!("grant pg_execute_server_program to {OWNER}, hookledger_worker"),
            format!("grant hookledger_worker to {OWNER} with admin option"),
            "grant pg_read_all_data to hookledger_runtime".to_owned(),
        ] {
            superuser.execute(damage.as_str()).await.unwrap();
        }
        drop(superuser);
        tokio::task::spawn_blocking(move || earlier.stop(std::time::Duration::from_secs(60))).await.unwrap();
    }
    process.serve().await;
    let mut owner = connect(&socket(&process), OWNER).await;
    for attack in [
        "grant pg_execute_server_program to hookledger",
        "grant pg_read_server_files to hookledger",
        "create role somebody superuser",
        "create role somebody login",
        "alter role hookledger_worker superuser",
        "grant hookledger_worker to pg_monitor",
        "copy (select 1) to program 'true'",
        "copy (select 1) to '/tmp/written'",
        "set role postgres",
        "alter system set fsync = off",
    ] {
        let refused = owner.execute(attack).await.unwrap_err();
        let code = refused.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
        assert_eq!(code, "42501", "{attack}: {refused}");
    }
    let others: Vec<(String, String)> = sqlx::query_as(
        "select member::regrole::text, roleid::regrole::text from pg_auth_members
         where member::regrole::text like 'hookledger%' order by 1, 2",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    let expected = ["hookledger_runtime", "hookledger_worker"].map(|role| (OWNER.to_owned(), role.to_owned()));
    assert_eq!(others, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_the_embedded_store_has_no_session_that_could_become_the_owner() {
    let mut process = Process::new();
    process.serve().await;
    let mut superuser = connect(&socket(&process), SUPERUSER).await;
    let users: Vec<String> = sqlx::query_scalar(
        "select distinct usename::text from pg_stat_activity where application_name = 'hookledger' order by 1",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert_eq!(users, ["hookledger_runtime", "hookledger_worker"]);
    for role in users {
        let mut session = connect(&socket(&process), &role).await;
        for escape in ["reset role", "reset session authorization", "set role none"] {
            session.execute(escape).await.unwrap();
        }
        for attack in ["set role hookledger", "alter table commits disable trigger all", "drop table commits"] {
            let refused = session.execute(attack).await.unwrap_err();
            assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42501", "{role}: {attack}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_postgres_knows_no_key_and_nobody_else_can_open_its_files() {
    let mut process = Process::new();
    process.environment.push(("HOOKLEDGER_MASTER_KEYS", MASTER_KEYS.to_owned()));
    process.environment.push(("HOOKLEDGER_JWT_KEYS", MASTER_KEYS.to_owned()));
    // As an earlier release left them.
    std::fs::create_dir_all(process.data()).unwrap();
    for file in ["postgres.owner", "postgres.log"] {
        std::fs::write(process.data().join(file), "").unwrap();
        std::fs::set_permissions(process.data().join(file), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    process.serve().await;
    let pid = std::fs::read_to_string(process.data().join("postgres/postmaster.pid")).unwrap();
    let pid = pid.lines().next().unwrap();
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains("HOOKLEDGER") && !environment.contains("AAAA"), "{environment}");
    for file in ["postgres.owner", "postgres.log", "postgres/.s.PGSQL.5432"] {
        let mode = std::fs::metadata(process.data().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}: {mode:o}");
    }
}

#[test]
fn root_runs_no_program_that_somebody_else_put_into_the_path() {
    let process = Process::new();
    let bin = process.directory.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    if std::fs::metadata(&bin).unwrap().uid() != 0 {
        return;
    }
    let told = process.directory.path().join("ran");
    let script = format!("#!/bin/sh\ntouch {}\necho {}\n", told.display(), bin.display());
    for program in ["pg_config", "initdb", "postgres"] {
        std::fs::write(bin.join(program), &script).unwrap();
        std::fs::set_permissions(bin.join(program), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = process.command(&["migrate"]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!told.exists());
}
