//! Names: resolved once per attempt, with all addresses checked, and connected to as checked.

use std::sync::atomic::Ordering;

use super::*;

fn url(server: &Server) -> String {
    format!("http://hooks.example:{}/", server.address.port())
}

const FORBIDDEN: Result<Answer, SendError> = Err(SendError::Forbidden(Forbidden::NotPublic));

#[tokio::test]
async fn a_name_that_is_rebound_to_a_private_address_is_refused() {
    let server = Server::answering(OK).await;
    let names = Scripted::new(&[&["127.0.0.1"], &["10.0.0.1"], &["169.254.169.254"], &["127.0.0.1"]]);
    let egress = egress_resolving(names.clone());
    assert_eq!(send(&egress, &url(&server), PATIENCE).await.unwrap().status, 200);
    // Even though a connection from before the change is still open.
    assert_eq!(egress.idle_connections(), 1);
    assert_eq!(send(&egress, &url(&server), PATIENCE).await, FORBIDDEN);
    assert_eq!(send(&egress, &url(&server), PATIENCE).await, FORBIDDEN);
    assert_eq!(send(&egress, &url(&server), PATIENCE).await.unwrap().status, 200);
    assert_eq!(names.asked.load(Ordering::SeqCst), 4, "each attempt asks once");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn one_forbidden_address_refuses_the_whole_answer() {
    let server = Server::answering(OK).await;
    for answer in [
        &["127.0.0.1", "10.0.0.1"][..],
        &["10.0.0.1", "127.0.0.1"],
        &["127.0.0.1", "::1"],
        &["127.0.0.1", "64:ff9b::7f00:1"],
        &["::ffff:10.0.0.1"],
        &["fe80::1"],
    ] {
        let egress = egress_resolving(Scripted::new(&[answer]));
        let refused = send(&egress, &url(&server), PATIENCE).await;
        assert_eq!(refused, FORBIDDEN, "{answer:?}");
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), Kind::Forbidden);
        assert!(!answer.iter().any(|address| error.to_string().contains(address)));
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn plain_http_does_not_go_to_public_addresses() {
    let egress = egress_resolving(Scripted::new(&[&["8.8.8.8"], &["127.0.0.1", "8.8.8.8"]]));
    for _ in 0..2 {
        let refused = send(&egress, "http://hooks.example:8080/", PATIENCE).await;
        assert_eq!(refused, Err(Forbidden::NotAllowListed.into()));
    }
}

#[tokio::test]
async fn an_url_that_was_accepted_under_another_allow_list_is_checked_again() {
    let server = Server::answering(OK).await;
    let target = Target::parse(&server.url(), &"127.0.0.0/8".parse().unwrap()).unwrap();
    let strict = Egress::with(AllowList::default(), Box::new(Scripted::default()), RootCertStore::empty()).unwrap();
    assert_eq!(strict.send(&target, outgoing(PATIENCE)).await, FORBIDDEN);
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let server = Server::answering(OK).await;
    let names = Scripted::new(&[&["127.0.0.2", "::ffff:127.0.0.3", "127.0.0.1"], &["127.0.0.2"]]);
    let egress = egress_resolving(names);
    assert_eq!(send(&egress, &url(&server), PATIENCE).await.unwrap().status, 200);
    assert_eq!(send(&egress, &url(&server), PATIENCE).await, Err(SendError::Unreachable));
}

#[tokio::test]
async fn an_idle_connection_is_not_used_for_another_address() {
    let server = Server::answering(OK).await;
    let egress = egress_resolving(Scripted::new(&[&["127.0.0.1"], &["127.0.0.2"]]));
    assert_eq!(send(&egress, &url(&server), PATIENCE).await.unwrap().status, 200);
    assert_eq!(send(&egress, &url(&server), PATIENCE).await, Err(SendError::Unreachable));
}

#[tokio::test]
async fn a_name_without_address_or_answer_is_said_to_be_so() {
    let egress = egress_resolving(Scripted::new(&[&[]]));
    for _ in 0..2 {
        let error = send(&egress, "http://hooks.example/", PATIENCE).await.unwrap_err();
        assert_eq!((error.kind(), &error), (Kind::NoAnswer, &Unresolvable::NoAddress.of("hooks.example")));
    }
    let silent = send(&egress, "http://silent.example/", SHORT).await;
    assert_eq!(silent, Err(Unresolvable::NoAnswer.of("silent.example")));
}
