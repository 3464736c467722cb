//! The roles of the embedded cluster, created by its superuser.
//!
//! The owner may not create roles: with that privilege it could become `pg_execute_server_program`, and an
//! injected statement would be a shell. Clusters of earlier releases are corrected as well.

use sqlx::{Executor as _, PgConnection};

use super::connections::Use;
use super::embedded::OWNER;

/// Creates the owner and the roles that a running server logs in as, and revokes all their other privileges.
pub(super) async fn make(superuser: &mut PgConnection) -> Result<(), sqlx::Error> {
    for role in Use::ROLES.into_iter().chain([OWNER]) {
        let has_role = "select exists (select from pg_roles where rolname = $1)";
        if !sqlx::query_scalar::<_, bool>(has_role).bind(role).fetch_one(&mut *superuser).await? {
            superuser.execute(format!("create role {role}").as_str()).await?;
        }
        let plain = "login nosuperuser nocreaterole nocreatedb noreplication nobypassrls";
        superuser.execute(format!("alter role {role} {plain}").as_str()).await?;
        leave_all(superuser, role).await?;
    }
    // Migrations and rebuilds write as the worker, and the owner ends sessions of either role.
    superuser.execute(format!("grant {} to {OWNER}", Use::ROLES.join(", ")).as_str()).await.map(drop)
}

/// Ends a role's membership in all others, whoever granted it.
async fn leave_all(superuser: &mut PgConnection, role: &str) -> Result<(), sqlx::Error> {
    let joined: Vec<(String, Option<String>)> = sqlx::query_as(
        "select m.roleid::regrole::text, quote_ident(g.rolname) from pg_auth_members m
         left join pg_roles g on g.oid = m.grantor
         where m.member = $1::regrole",
    )
    .bind(role)
    .fetch_all(&mut *superuser)
    .await?;
    for (other, grantor) in joined {
        let granted = grantor.map(|grantor| format!("granted by {grantor}")).unwrap_or_default();
        superuser.execute(format!("revoke {other} from {role} {granted} cascade").as_str()).await?;
    }
    Ok(())
}
