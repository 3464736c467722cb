//! The store goes away and comes back: the network breaks, PostgreSQL restarts. Nobody helps the node.

use std::time::{Duration, Instant};

use sqlx::Connection as _;

use crate::app::Database;
use crate::proxy::{Network, Proxy};

#[tokio::test]
async fn the_proxy_holds_and_swallows_without_a_word_and_resets() {
    let database = Database::fresh().await;
    let proxy = Proxy::before(&database.url).await;
    let mut held = sqlx::PgConnection::connect(&proxy.url).await.unwrap();
    let mut swallowed = sqlx::PgConnection::connect(&proxy.url).await.unwrap();
    let silence = Duration::from_millis(200);
    proxy.set(Network::Holds);
    {
        let asking = sqlx::query("select 1").execute(&mut held);
        tokio::pin!(asking);
        assert!(tokio::time::timeout(silence, &mut asking).await.is_err());
        proxy.set(Network::Good);
        asking.await.unwrap();
    }
    proxy.set(Network::Swallows);
    tokio::time::sleep(silence).await;
    proxy.set(Network::Good);
    assert!(tokio::time::timeout(silence, swallowed.ping()).await.is_err());
    let mut reset = sqlx::PgConnection::connect(&proxy.url).await.unwrap();
    let begun = Instant::now();
    proxy.set(Network::Delays(Duration::from_millis(50)));
    reset.ping().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(50));
    proxy.set(Network::Resets);
    assert!(reset.ping().await.is_err());
}
