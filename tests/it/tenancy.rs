//! Row-level security alone: queries that forget their organization.

use std::collections::BTreeSet;

use hookledger::platform::store::{Tenant, Use};
use hookledger_aggregates::OrganizationId;
use sqlx::{Executor as _, PgPool};
use uuid::Uuid;

use crate::app::{GITHUB_SECRET, TestApp};

/// Every table and view with rows of organizations, and the column with the organization.
async fn tables_of_tenants(pool: &PgPool) -> Vec<(String, &'static str)> {
    let names: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid
         where a.attname = 'organization_id' and not a.attisdropped and c.relnamespace = current_schema()::regnamespace
           and c.relkind in ('r', 'p', 'v', 'm', 'f') order by 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(names.len() >= 14, "{names:?}");
    let mut all: Vec<_> = names.into_iter().map(|name| (name, "organization_id")).collect();
    all.push(("organizations".to_owned(), "id"));
    all
}

/// Whether it is a view that reads its tables with the rights of the caller, so that their policies apply.
async fn reads_as_whoever_asks(pool: &PgPool, name: &str) -> bool {
    sqlx::query_scalar(
        "select relkind = 'v' and 'security_invoker=true' = any (coalesce(reloptions, '{}')) from pg_class
         where relname = $1 and relnamespace = current_schema()::regnamespace",
    )
    .bind(name)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Disables row-level security, so that only the resolvers' checks are tested.
pub async fn switch_off(pool: &PgPool) {
    for (table, _) in tables_of_tenants(pool).await {
        if reads_as_whoever_asks(pool, &table).await {
            continue;
        }
        pool.execute(format!("alter table {table} no force row level security").as_str()).await.unwrap();
        pool.execute(format!("alter table {table} disable row level security").as_str()).await.unwrap();
    }
}

#[tokio::test]
async fn every_table_with_rows_of_tenants_has_a_forced_policy() {
    let database = crate::app::Database::fresh().await;
    let pool = database.superuser().await;
    for (table, _) in tables_of_tenants(&pool).await {
        if reads_as_whoever_asks(&pool, &table).await {
            continue;
        }
        let forced: bool = sqlx::query_scalar(
            "select relkind = 'r' and relrowsecurity and relforcerowsecurity from pg_class
             where relname = $1 and relnamespace = current_schema()::regnamespace",
        )
        .bind(&table)
        .fetch_one(&pool)
        .await
        .unwrap();
        assert!(forced, "{table} needs `select keep_tenants_apart('{table}')` in a migration");
        // Restrictive policies only forbid more.
        let policies: Vec<(String, Vec<String>)> = sqlx::query_as(
            "select policyname::text, roles::text[] from pg_policies
             where schemaname = current_schema() and tablename = $1 and permissive = 'PERMISSIVE' order by 1",
        )
        .bind(&table)
        .fetch_all(&pool)
        .await
        .unwrap();
        let expected = [("every_tenant", "hookledger_worker"), ("one_tenant", "hookledger_runtime")];
        let expected = expected.map(|(name, role)| (name.to_owned(), vec![role.to_owned()]));
        assert_eq!(policies, expected, "{table}");
    }
    let powers: Vec<bool> = sqlx::query_scalar(
        "select rolsuper or rolbypassrls or pg_has_role(rolname, 'hookledger_worker', 'member') from pg_roles
         where rolname = 'hookledger_runtime'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(powers, [false]);
}

/// The organizations whose rows that connection sees in a query without a condition.
async fn seen(connection: &mut sqlx::PgConnection, table: &str, column: &str) -> BTreeSet<Uuid> {
    let sql = format!("select distinct {column} from {table}");
    sqlx::query_scalar(&sql).fetch_all(connection).await.unwrap().into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_forgets_its_organization_sees_one() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    for slug in ["a", "b"] {
        app.organization(&admin, slug, &[("GITHUB", GITHUB_SECRET)]).await;
        app.user(slug, &format!("ada@{slug}.example.org"), hookledger_aggregates::user::Role::Admin).await;
        app.github(slug, "d", "{}").send().await.unwrap();
        admin.webhooks_until(slug, "status", |nodes| nodes.len() == 1 && nodes[0]["status"] == "SUCCESS").await;
    }
    let (a, b) = (OrganizationId::from_slug("a"), OrganizationId::from_slug("b"));
    let (store, superuser) = (app.database.store(), app.database.superuser().await);
    // Wait until conservation is counted, too.
    let counted = "select count(*) from conservation";
    crate::patience::until(counted, async || {
        sqlx::query_scalar::<_, i64>(counted).fetch_one(&superuser).await.unwrap() >= 2
    })
    .await;
    let (tenants, without) = (store.tenants().await.unwrap(), store.pool(Use::Query).await.unwrap());
    for (table, column) in tables_of_tenants(&superuser).await {
        let readable: bool = sqlx::query_scalar("select has_table_privilege('hookledger_runtime', $1, 'select')")
            .bind(&table)
            .fetch_one(&superuser)
            .await
            .unwrap();
        if !readable {
            continue;
        }
        let everything = seen(&mut superuser.acquire().await.unwrap(), &table, column).await;
        let by_a = seen(&mut tenants.of(a).await.unwrap(), &table, column).await;
        let expected: BTreeSet<_> = everything.iter().copied().filter(|id| *id == a.uuid()).collect();
        assert_eq!(by_a, expected, "{table}");
        assert!(!everything.contains(&b.uuid()) || everything.contains(&a.uuid()), "{table} shows nothing to test");
        assert_eq!(seen(&mut without.acquire().await.unwrap(), &table, column).await, BTreeSet::new(), "{table}");
        assert_eq!(seen(&mut tenants.everybody().await.unwrap(), &table, column).await, everything, "{table}");
    }
    // A connection that returns to the pool forgets its organization, however its transaction ended.
    for _ in 0..20 {
        let mut tenant = tenants.of(a).await.unwrap();
        let _ = tenant.execute("select no_such_function()").await;
        drop(tenant);
        assert_eq!(seen(&mut tenants.of(b).await.unwrap(), "webhook_logs", "organization_id").await, [b.uuid()].into());
    }
    // A tenant's connection cannot write.
    for statement in [
        "insert into webhook_counts values (gen_random_uuid(), now(), 1)",
        "delete from webhook_logs",
        "update organizations set name = ''",
        "select * from provider_secrets",
        "select * from magic_links",
        "create temporary table t (id int)",
    ] {
        let mut tenant: Tenant = tenants.everybody().await.unwrap();
        assert!(tenant.execute(statement).await.is_err(), "{statement}");
        assert!(without.execute(statement).await.is_err() || statement.starts_with("create"), "{statement}");
    }
    app.stop().await;
}
