//! Sessions: who is signed in, since when and from where, and how sessions end.
//!
//! Each request looks its session up together with its user, in one query by primary keys, so that an end is
//! in force on every node once it is committed. A longer use, such as a WebSocket, asks again every few
//! seconds.
//!
//! The log has the beginning and the end of each session; the rows here say which are in force. An end is
//! appended first. If a crash prevents the update of the row, [`SessionKeeper`] makes up for it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::user::{UserCommand, UserEvent};
use hookledger_aggregates::{Event, Metadata, OrganizationId, RecordedEvent, SessionId, UserId};
use hookledger_projections::users::{self, IN_FORCE};
use sqlx::{FromRow, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::accounts::{Accounts, Authority};
use super::error::IdentityError;
use super::tokens::Tokens;
use crate::log::follow::{Handler, HandlerError};
use crate::log::{LogPosition, Scope};

/// Maximum number of a user's sessions in a list.
const LISTED: i64 = 100;

/// The signed-in user, and the session.
#[derive(Clone, Debug)]
pub struct Authenticated {
    pub user: users::User,
    pub session: SessionId,
}

/// A session, in force or ended.
#[derive(Clone, Debug, FromRow)]
pub struct Session {
    pub organization_id: Uuid,
    pub session_id: Uuid,
    pub user_id: Uuid,
    pub started_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub client: Option<String>,
    pub agent: Option<String>,
}

/// A new session, and its token.
#[derive(Debug)]
pub struct Begun {
    pub session: SessionId,
    pub token: String,
}

/// Begins, checks and ends sessions. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    pool: PgPool,
    tokens: Arc<Tokens>,
    accounts: Arc<Accounts>,
}

impl Sessions {
    #[must_use]
    pub fn new(pool: PgPool, tokens: Arc<Tokens>, accounts: Arc<Accounts>) -> Self {
        Self { pool, tokens, accounts }
    }

    /// The user of a token, if its session is in force.
    pub async fn authenticate(&self, token: &str) -> Result<Option<Authenticated>, sqlx::Error> {
        let Ok(claims) = self.tokens.check(token) else { return Ok(None) };
        let user = users::find_in_session(&self.pool, claims.org, claims.sub, claims.sid).await?;
        Ok(user.map(|user| Authenticated { user, session: claims.sid }))
    }

    /// Ends one session. Ended ones stay ended.
    ///
    /// # Errors
    /// After an error, the session may still be in force.
    pub async fn end(
        &self,
        organization: OrganizationId,
        user: UserId,
        session: SessionId,
        metadata: &Metadata,
    ) -> Result<Option<LogPosition>, IdentityError> {
        self.end_in_force(organization, user, UserCommand::EndSession { session }, metadata).await
    }

    /// Ends all of a user's sessions.
    ///
    /// # Errors
    /// After an error, some may still be in force.
    pub async fn end_all(
        &self,
        organization: OrganizationId,
        user: UserId,
        metadata: &Metadata,
    ) -> Result<Option<LogPosition>, IdentityError> {
        self.end_in_force(organization, user, UserCommand::EndSessions, metadata).await
    }

    async fn end_in_force(
        &self,
        organization: OrganizationId,
        user: UserId,
        command: UserCommand,
        metadata: &Metadata,
    ) -> Result<Option<LogPosition>, IdentityError> {
        let session = if let UserCommand::EndSession { session } = &command { Some(session.uuid()) } else { None };
        let place = self.accounts.change(organization, user, command, Authority::Organization, metadata).await?;
        sqlx::query(
            "update sessions set ended_at = clock_timestamp()
             where organization_id = $1 and user_id = $2 and ($3::uuid is null or session_id = $3) and ended_at is null",
        )
        .bind(organization.uuid())
        .bind(user.uuid())
        .bind(session)
        .execute(&self.pool)
        .await?;
        Ok(place)
    }

    /// Begins a session, in the table and in the log. The row comes first: its time is that of the sign-in,
    /// and an earlier deactivation would have been seen.
    pub(super) async fn begin(
        &self,
        user: &users::User,
        metadata: impl FnOnce(SessionId) -> Metadata,
        now: DateTime<Utc>,
    ) -> Result<Begun, IdentityError> {
        let (organization, id) = (OrganizationId::new(user.organization_id), UserId::new(user.id));
        let session = SessionId::new(Uuid::now_v7());
        let metadata = metadata(session);
        let token = self.tokens.issue(id, organization, session, now)?;
        sqlx::query(
            "insert into sessions (organization_id, session_id, user_id, expires_at, client, agent)
             values ($1, $2, $3, $4, $5, $6)",
        )
        .bind(organization.uuid())
        .bind(session.uuid())
        .bind(id.uuid())
        .bind(now + self.tokens.lifetime())
        .bind(metadata.client.as_deref())
        .bind(metadata.agent.as_ref().map(hookledger_aggregates::Label::as_str))
        .execute(&self.pool)
        .await?;
        let sign_in = UserCommand::SignIn { session };
        if let Err(error) = self.accounts.change(organization, id, sign_in, Authority::Organization, &metadata).await {
            // Nobody has its token; the row is removed only to keep it out of the list.
            sqlx::query("delete from sessions where organization_id = $1 and session_id = $2")
                .bind(organization.uuid())
                .bind(session.uuid())
                .execute(&self.pool)
                .await?;
            return Err(error);
        }
        Ok(Begun { session, token })
    }

    /// Removes rows of sessions that expired a month ago.
    pub async fn sweep(&self) -> Result<(), sqlx::Error> {
        sqlx::query("delete from sessions where expires_at < now() - interval '30 days'")
            .execute(&self.pool)
            .await
            .map(drop)
    }
}

impl Session {
    /// The sessions of users that are in force, each user's newest first.
    pub async fn of_users(
        executor: impl PgExecutor<'_>,
        organization: OrganizationId,
        users: &[UserId],
    ) -> Result<Vec<Self>, sqlx::Error> {
        let users: Vec<Uuid> = users.iter().map(|user| user.uuid()).collect();
        sqlx::query_as(&format!(
            "select s.* from unnest($2::uuid[]) as of (user_id)
             cross join lateral (
                 select {COLUMNS} from sessions s
                 join users u on u.organization_id = s.organization_id and u.id = s.user_id
                 left join organizations o on o.id = s.organization_id
                 where s.organization_id = $1 and s.user_id = of.user_id and {IN_FORCE}
                 order by s.started_at desc limit $3) s"
        ))
        .bind(organization.uuid())
        .bind(users)
        .bind(LISTED)
        .fetch_all(executor)
        .await
    }

    /// A session of an organization's user, in force or ended.
    pub async fn find(
        executor: impl PgExecutor<'_>,
        organization: OrganizationId,
        id: SessionId,
    ) -> Result<Option<Self>, sqlx::Error> {
        let sql = format!("select {COLUMNS} from sessions s where s.organization_id = $1 and s.session_id = $2");
        sqlx::query_as(&sql).bind(organization.uuid()).bind(id.uuid()).fetch_optional(executor).await
    }
}

const COLUMNS: &str =
    "s.organization_id, s.session_id, s.user_id, s.started_at, s.expires_at, s.ended_at, s.client, s.agent";

/// Follows the log, so that every session whose end is in the log ends, even after a crash in between.
pub struct SessionKeeper;

impl Handler for SessionKeeper {
    fn name(&self) -> &'static str {
        "sessions"
    }

    fn scope(&self) -> Scope {
        Scope::Administrative
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            for recorded in events {
                let session = match &recorded.event {
                    Event::User(UserEvent::SessionEnded { session_id }) => Some(session_id.uuid()),
                    Event::User(UserEvent::SessionsEnded {}) => None,
                    // Deactivations are checked whenever a session is looked up.
                    Event::User(_)
                    | Event::Organization(_)
                    | Event::EmailClaim(_)
                    | Event::Destination(_)
                    | Event::Route(_)
                    | Event::Delivery(_)
                    | Event::Usage(_)
                    | Event::Team(_)
                    | Event::Retention(_)
                    | Event::Access(_)
                    | Event::Provider(_)
                    | Event::Webhook(_) => continue,
                };
                sqlx::query(
                    "update sessions set ended_at = $4
                     where organization_id = $1 and user_id = $2 and ($3::uuid is null or session_id = $3)
                       and ended_at is null and started_at <= $4",
                )
                .bind(recorded.organization.uuid())
                .bind(recorded.aggregate_id)
                .bind(session)
                .bind(recorded.recorded_at)
                .execute(&mut *connection)
                .await
                .map_err(|error| HandlerError::Transient(error.to_string()))?;
            }
            Ok(())
        })
    }
}
