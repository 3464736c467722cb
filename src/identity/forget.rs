//! Erasing what is known of a person.

use hookledger_aggregates::{OrganizationId, UserId};
use sqlx::PgConnection;

/// What remains of a user who was erased, in plain words. The log is never rewritten, or it would prove
/// nothing.
pub const REMAINS: &[&str] = &[
    "the user's random id, and what it did: roles, sign-ins, changes, each with its time",
    "the address of the client and the name of its program with each of these, as the log has them",
    "a keyed hash of the e-mail address, which tells nothing without this deployment's key",
    "mails that were sent, and copies of exports and backups made before",
];

/// Removes what is kept of a user beside the log: the address, sign-in links, and sessions.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(
    connection: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with address as (delete from user_emails where organization_id = $1 and user_id = $2),
              links as (delete from magic_links where organization_id = $1 and user_id = $2)
         delete from sessions where organization_id = $1 and user_id = $2",
    )
    .bind(organization.uuid())
    .bind(user.uuid())
    .execute(connection)
    .await
    .map(drop)
}
