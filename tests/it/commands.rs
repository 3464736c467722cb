//! The commands of the operator, beside a running server and without one.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::process::{BINARY, Process};

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_needs_no_configuration() {
    let mut process = Process::new();
    let first = process.run(&["seed-demo"]);
    assert!(first.contains("Created the sample data") && first.contains("/auth/verify?token="), "{first}");
    process.serve().await;
    let again = process.run(&["seed-demo"]);
    assert!(again.contains("already exists"), "{again}");
    // The printed curl command is accepted.
    let curl = again.split("curl ").nth(1).unwrap().split("\n\n").next().unwrap();
    let output = Command::new("sh").arg("-c").arg(format!("curl -s --noproxy '*' {curl}")).output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(answer.contains("200 OK") && answer.contains("\"duplicate\":false"), "{answer}");
    for key in ["master.key", "jwt.key"] {
        let mode = std::fs::metadata(process.data().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    process.terminate();
    assert!(!process.data().join("postgres/postmaster.pid").exists(), "PostgreSQL stops with the server");
}

#[test]
fn a_store_that_only_root_can_enter_works() {
    use std::os::unix::fs::DirBuilderExt as _;
    let process = Process::new();
    // As in a clone under /root: other users cannot enter it, and the path is long.
    let deep = process.directory.path().join("closed").join("x".repeat(80));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&deep).unwrap();
    let output = process.command(&["migrate"]).env("HOOKLEDGER_DATA_DIR", deep.join("data")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_missing_or_wrong_is_said() {
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = Command::new(BINARY);
        command.args(arguments).env_clear().env("PATH", std::env::var("PATH").unwrap());
        let output = command.envs(environment.iter().copied()).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let nowhere = "postgres://nobody@127.0.0.1:1/none";
    assert!(run(&["migrate"], &[("DATABASE_URL", nowhere)]).contains("could not reach the database"));
    assert!(run(&["migrate"], &[("DATABASE_URL", "mysql://x")]).contains("DATABASE_URL"));
    assert!(run(&["serve"], &[("HOOKLEDGER_LISTEN", "nonsense")]).contains("--listen"));
    assert!(run(&["serve"], &[("HOOKLEDGER_MAX_BODY", "9999MiB")]).contains("a size must be"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.toml");
    std::fs::write(&file, "hookledger_lissten = \"x\"").unwrap();
    assert!(run(&["--config", file.to_str().unwrap(), "serve"], &[]).contains("unknown setting"));
    std::fs::write(&file, "hookledger_listen = \"nonsense\"").unwrap();
    assert!(run(&["--config", file.to_str().unwrap(), "serve"], &[]).contains("nonsense"));
}

#[test]
fn keygen_and_schema_print_what_they_say() {
    let run = |arguments: &[&str]| {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["keygen", "k7"]).trim().parse::<hookledger::platform::secrets::master::KeyRing>().is_ok());
    assert_eq!(run(&["schema"]), hookledger::api::graphql::sdl());
}
