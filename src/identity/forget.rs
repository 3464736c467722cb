//! Erasing a person's data.

use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, UserId};
use sqlx::PgConnection;

/// Maximum difference between the clocks of nodes and database, in milliseconds.
const CLOCKS: u64 = 60_000;

/// The data that remains of an erased user, as shown to people. The log is never rewritten, or it would prove nothing.
pub const REMAINS: &[&str] = &[
    "the user's random ID, and its history: roles, sign-ins, and changes, each with its time",
    "the IP address and browser of each of these, as recorded in the log",
    "a keyed hash of the email address, which reveals nothing without this deployment's key",
    "copies elsewhere: sent emails, the server's log files, and earlier exports and backups",
];

/// Removes a user's data beside the log: the address, sign-in links, and sessions. Also removes the same
/// address if it was stored for an invitation that failed.
pub async fn forget(
    connection: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
    erased_at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    // User IDs begin with their time, so a user invited from now on keeps the address.
    let millis = u64::try_from(erased_at.timestamp_millis()).unwrap_or_default();
    let until = uuid::Builder::from_unix_timestamp_millis(millis.saturating_sub(CLOCKS), &[0; 10]).into_uuid();
    sqlx::query(
        "with address as (
                  delete from user_emails e where organization_id = $1 and (user_id = $2
                      or user_id < $3 and lower(email) = (
                          select lower(email) from user_emails where organization_id = $1 and user_id = $2)
                         and not exists (select from users u where u.organization_id = $1 and u.id = e.user_id))),
              links as (delete from magic_links where organization_id = $1 and user_id = $2)
         delete from sessions where organization_id = $1 and user_id = $2",
    )
    .bind(organization.uuid())
    .bind(user.uuid())
    .bind(until)
    .execute(connection)
    .await
    .map(drop)
}
