//! Users and the claims on their addresses: registered, invited and changed, each in one unit with the
//! invariants that involve other streams.

use hmac::{Hmac, Mac as _};
use hookledger_aggregates::email_claim::{EmailClaim, EmailClaimCommand};
use hookledger_aggregates::event::Stored;
use hookledger_aggregates::team::{Team, TeamCommand};
use hookledger_aggregates::user::{Role, User, UserCommand};
use hookledger_aggregates::{EmailClaimId, Metadata, OrganizationId, UserId};
use hookledger_projections::{organizations, users};
use lettre::Address;
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;
use sqlx::PgPool;
use uuid::Uuid;

use super::error::{IdentityError, unread};
use crate::log::{AppendError, Commands, Log, LogPosition, NewEvent, Sequence, Unit};
use crate::platform::secrets::vault::{Vault, VaultError};

/// Name of the key that addresses are hashed with. It never changes, or addresses could be claimed again.
const CLAIM_KEY: &str = "email-claims";
/// How many times a change is decided when others keep coming first.
const TRIES: usize = 8;
/// Open invitations of one address that are examined.
const INVITATIONS: i64 = 100;

/// On whose authority a user is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The organization's own people, or the user.
    Organization,
    /// A super admin, who may also leave an organization without an admin.
    Platform,
}

/// An invited person, perhaps invited before.
#[derive(Clone, Copy, Debug)]
pub struct Invited {
    pub user: UserId,
    /// Log position of the last event, if there was one.
    pub place: Option<LogPosition>,
}

/// Registers, invites, changes and finds users.
pub struct Accounts {
    pool: PgPool,
    log: Log,
    commands: Commands,
    claim_key: SecretSlice<u8>,
}

impl Accounts {
    pub async fn new(pool: PgPool, log: Log, vault: &Vault) -> Result<Self, VaultError> {
        let claim_key = vault.platform_key(CLAIM_KEY).await?;
        Ok(Self { commands: Commands::new(pool.clone(), log.clone()), pool, log, claim_key })
    }

    /// The claim on an address; case does not matter.
    pub fn claim(&self, email: &str) -> Result<EmailClaimId, IdentityError> {
        let normal = normalized(email).ok_or_else(|| IdentityError::Address(email.chars().take(255).collect()))?;
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(self.claim_key.expose_secret()) else {
            // HMAC accepts keys of any length.
            return Err(IdentityError::NoSuchUser);
        };
        Ok(EmailClaimId::from_keyed_hash(&mac.chain_update(normal).finalize().into_bytes().into()))
    }

    /// Registers a user at once and claims the address in the same unit: the operator's way.
    ///
    /// # Errors
    /// [`IdentityError::AddressTaken`] if the address belongs to another user.
    pub async fn register(
        &self,
        organization: OrganizationId,
        email: &str,
        role: Role,
        metadata: &Metadata,
    ) -> Result<(UserId, LogPosition), IdentityError> {
        let claim = self.claim(email)?;
        let user = UserId::new(Uuid::now_v7());
        let registering = Registering { organization, user, metadata };
        for _ in 0..TRIES {
            let epoch = self.log.epoch();
            let mut unit = Vec::new();
            self.take(claim, None, &registering, &mut unit).await?;
            self.take(claim.within(organization), Some(organization), &registering, &mut unit).await?;
            let mut registered = User::default();
            for event in registered.decide(UserCommand::Register { role, email_claim: claim })? {
                registered.evolve(&event);
                unit.push(NewEvent::of(organization, user.uuid(), Sequence::At(1), &event, metadata)?);
            }
            if registered.administers() {
                self.count_admin(&registering, TeamCommand::Add { admin: user }, &mut unit).await?;
            }
            let unit = Unit::new(unit).decided_in(epoch);
            if let Some(place) = self.append_with_address(email, &registering, unit).await? {
                return Ok((user, place));
            }
        }
        Err(IdentityError::Busy)
    }

    /// Invites a person into an organization, or repeats an open invitation. Does not look whether the
    /// address has a user elsewhere: only the reader of the mail may learn that.
    ///
    /// # Errors
    /// [`IdentityError::AlreadyHere`] if the person is a user of this organization.
    pub async fn invite(
        &self,
        organization: OrganizationId,
        email: &str,
        role: Role,
        metadata: &Metadata,
    ) -> Result<Invited, IdentityError> {
        let claim = self.claim(email)?;
        let here = claim.within(organization);
        let user = UserId::new(Uuid::now_v7());
        let inviting = Registering { organization, user, metadata };
        for _ in 0..TRIES {
            let epoch = self.log.epoch();
            let claimed: EmailClaim = self.commands.load(organization, here.uuid()).await.map_err(unread)?;
            if let Some(known) = claimed.holder() {
                return self.invite_again(organization, known, role, metadata).await;
            }
            let mut unit = Vec::new();
            match self.take(here, Some(organization), &inviting, &mut unit).await {
                // Somebody else invited the person between the two looks.
                Err(IdentityError::AddressTaken) => continue,
                taken => taken?,
            }
            for event in User::default().decide(UserCommand::Invite { role, email_claim: claim })? {
                unit.push(NewEvent::of(organization, user.uuid(), Sequence::At(1), &event, metadata)?);
            }
            let unit = Unit::new(unit).decided_in(epoch);
            if let Some(place) = self.append_with_address(email, &inviting, unit).await? {
                return Ok(Invited { user, place: Some(place) });
            }
        }
        Err(IdentityError::Busy)
    }

    async fn invite_again(
        &self,
        organization: OrganizationId,
        user: UserId,
        role: Role,
        metadata: &Metadata,
    ) -> Result<Invited, IdentityError> {
        let known: User = self.commands.load(organization, user.uuid()).await.map_err(unread)?;
        if known.has_joined() || !known.is_active() {
            return Err(IdentityError::AlreadyHere);
        }
        let change = UserCommand::SetRole(role);
        let place = self.change(organization, user, change, Authority::Organization, metadata).await?;
        Ok(Invited { user, place })
    }

    /// Changes a user and, in the same unit, the organization's admins and the claim on the address. Returns
    /// the log position of the last event, or nothing if nothing changed.
    ///
    /// # Errors
    /// [`IdentityError::User`] and [`IdentityError::Team`] if the change is not allowed;
    /// [`IdentityError::AddressTaken`] if an invited person became a user elsewhere.
    pub async fn change(
        &self,
        organization: OrganizationId,
        user: UserId,
        command: UserCommand,
        authority: Authority,
        metadata: &Metadata,
    ) -> Result<Option<LogPosition>, IdentityError> {
        let changing = Registering { organization, user, metadata };
        for _ in 0..TRIES {
            let epoch = self.log.epoch();
            let (before, last) =
                self.commands.load_with_sequence::<User>(organization, user.uuid()).await.map_err(unread)?;
            let events = before.decide(command.clone())?;
            if events.is_empty() {
                return Ok(None);
            }
            let mut after = before.clone();
            events.iter().for_each(|event| after.evolve(event));
            let mut unit = Vec::new();
            if let Some(claim) = after.email_claim().filter(|_| after.has_joined() && !before.has_joined()) {
                self.take(claim, None, &changing, &mut unit).await?;
            }
            if let Some(claim) = after.email_claim().filter(|_| after.is_erased() && !before.is_erased()) {
                let release = EmailClaimCommand::Release { user };
                let here = claim.within(organization);
                self.change_claim(claim, None, release.clone(), &changing, &mut unit).await?;
                self.change_claim(here, Some(organization), release, &changing, &mut unit).await?;
            }
            if before.administers() != after.administers() {
                let change = if after.administers() {
                    TeamCommand::Add { admin: user }
                } else {
                    // The platform always keeps a super admin.
                    let even_the_last = authority == Authority::Platform && organization != OrganizationId::PLATFORM;
                    TeamCommand::Remove { admin: user, even_the_last }
                };
                self.count_admin(&changing, change, &mut unit).await?;
            }
            push_all(&mut unit, organization, user.uuid(), last, &events, metadata)?;
            match self.log.append(Unit::new(unit).decided_in(epoch)).await {
                Ok(appended) => return Ok(Some(appended.last)),
                Err(AppendError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(IdentityError::Busy)
    }

    /// The active user of an address, or else an invited person who has not joined: for operators who let
    /// people in without mail.
    ///
    /// # Errors
    /// [`IdentityError::NoSuchUser`] if there is neither; [`IdentityError::SeveralInvitations`] if the
    /// organization is ambiguous.
    pub async fn find_or_invited(&self, email: &str, by: Option<OrganizationId>) -> Result<users::User, IdentityError> {
        let claim = self.claim(email)?;
        // An invitation does not let in a deactivated user, to whom the address belongs.
        if let Some(user) = users::find_by_claim(&self.pool, claim).await? {
            return Some(user).filter(users::User::may_sign_in).ok_or(IdentityError::NoSuchUser);
        }
        let mut invited = users::invitations(&self.pool, claim, INVITATIONS).await?;
        invited.retain(|user| by.is_none_or(|by| by.uuid() == user.organization_id));
        if invited.len() > 1 {
            let mut slugs = Vec::new();
            for user in &invited {
                let organization = OrganizationId::new(user.organization_id);
                slugs.extend(organizations::find(&self.pool, organization).await?.map(|inviting| inviting.slug));
            }
            return Err(IdentityError::SeveralInvitations(slugs.join(", ")));
        }
        invited.pop().ok_or(IdentityError::NoSuchUser)
    }

    /// Adds the taking of a claim to a unit.
    async fn take(
        &self,
        claim: EmailClaimId,
        within: Option<OrganizationId>,
        taking: &Registering<'_>,
        unit: &mut Vec<NewEvent>,
    ) -> Result<(), IdentityError> {
        self.change_claim(claim, within, EmailClaimCommand::Take { user: taking.user }, taking, unit).await
    }

    /// Adds the change of a claim to a unit: one within an organization, or the address's own. The latter
    /// belongs to the platform and has its own partition, since any organization may ask for it, and none may
    /// learn from its stream who had it.
    async fn change_claim(
        &self,
        claim: EmailClaimId,
        within: Option<OrganizationId>,
        command: EmailClaimCommand,
        Registering { organization, metadata, .. }: &Registering<'_>,
        unit: &mut Vec<NewEvent>,
    ) -> Result<(), IdentityError> {
        let (claimed, last) =
            self.commands.load_with_sequence::<EmailClaim>(*organization, claim.uuid()).await.map_err(unread)?;
        let events = claimed.decide(command)?;
        let first = unit.len();
        push_all(unit, within.unwrap_or(OrganizationId::PLATFORM), claim.uuid(), last, &events, metadata)?;
        let partition = within.map_or(claim.partition(), OrganizationId::partition);
        unit[first..].iter_mut().for_each(|event| event.partition = partition);
        Ok(())
    }

    /// Adds to a unit that the organization has one admin more or less.
    async fn count_admin(
        &self,
        Registering { organization, metadata, .. }: &Registering<'_>,
        command: TeamCommand,
        unit: &mut Vec<NewEvent>,
    ) -> Result<(), IdentityError> {
        let id = organization.uuid();
        let (team, last) = self.commands.load_with_sequence::<Team>(*organization, id).await.map_err(unread)?;
        push_all(unit, *organization, id, last, &team.decide(command)?, metadata)
    }

    /// Appends a new user's first events. The address is stored first, beside the log, so that a crash in
    /// between leaves only an unused row. `None` if somebody else came first.
    async fn append_with_address(
        &self,
        email: &str,
        Registering { organization, user, .. }: &Registering<'_>,
        unit: Unit,
    ) -> Result<Option<LogPosition>, IdentityError> {
        sqlx::query(
            "insert into user_emails (organization_id, user_id, email) values ($1, $2, $3) on conflict do nothing",
        )
        .bind(organization.uuid())
        .bind(user.uuid())
        .bind(email.trim())
        .execute(&self.pool)
        .await?;
        match self.log.append(unit).await {
            Ok(appended) => Ok(Some(appended.last)),
            Err(error @ (AppendError::Conflict | AppendError::Overloaded)) => {
                // Nothing was appended, so the stored address belongs to nobody.
                sqlx::query("delete from user_emails where organization_id = $1 and user_id = $2")
                    .bind(organization.uuid())
                    .bind(user.uuid())
                    .execute(&self.pool)
                    .await?;
                // Somebody else was slightly faster, or the log is unavailable.
                if matches!(error, AppendError::Conflict) { Ok(None) } else { Err(error.into()) }
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The stream to write, and the circumstances.
struct Registering<'a> {
    organization: OrganizationId,
    user: UserId,
    metadata: &'a Metadata,
}

/// Adds a stream's next events to a unit.
fn push_all<E: Stored>(
    unit: &mut Vec<NewEvent>,
    organization: OrganizationId,
    aggregate_id: Uuid,
    last: i64,
    events: &[E],
    metadata: &Metadata,
) -> Result<(), IdentityError> {
    for (sequence, event) in (last + 1..).zip(events) {
        unit.push(NewEvent::of(organization, aggregate_id, Sequence::At(sequence), event, metadata)?);
    }
    Ok(())
}

/// Lower case, without surrounding space; `None` for an address that mail cannot be sent to. The result has
/// neither control characters nor spaces, so that it fits into exactly one mail header.
fn normalized(email: &str) -> Option<String> {
    let email = email.trim();
    let good = email.len() <= 254
        && !email.chars().any(|c| c.is_control() || c.is_whitespace())
        && email.parse::<Address>().is_ok();
    good.then(|| email.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::normalized;

    #[test]
    fn an_address_is_the_same_in_any_case() {
        assert_eq!(normalized(" Ada@Example.ORG "), Some("ada@example.org".to_owned()));
        assert_eq!(normalized("admin@localhost").as_deref(), Some("admin@localhost"));
    }

    #[test]
    fn what_is_no_address_or_could_be_more_than_one_is_refused() {
        let long = format!("{}@example.org", "a".repeat(250));
        let bad = [
            "",
            "@",
            "a@",
            "@b",
            "a b@c",
            "a\n@c",
            "a@b.c\r\nbcc: x@y.z",
            "a@b.c,d@e.f",
            "A <a@b.c>",
            "a@b.c\u{0}",
            "\"a\r\nb\"@c.d",
            &long,
        ];
        for bad in bad {
            assert_eq!(normalized(bad), None, "{bad:?}");
        }
    }
}
