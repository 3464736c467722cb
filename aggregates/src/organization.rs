//! A customer company: its name, plan, limit, and whether it is active.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::decision::aggregate;

/// A customer's plan, which determines the monthly limit unless a super admin sets another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plan {
    /// 1,000 webhooks a month.
    #[default]
    Free,
    /// 50,000 webhooks a month.
    Starter,
    /// No limit.
    Premium,
}

impl Plan {
    /// Every plan, the smallest first.
    pub const ALL: [Self; 3] = [Self::Free, Self::Starter, Self::Premium];

    /// Accepted webhooks per calendar month; `None` is unlimited.
    #[must_use]
    pub const fn webhook_limit(self) -> Option<u32> {
        match self {
            Self::Free => Some(1_000),
            Self::Starter => Some(50_000),
            Self::Premium => None,
        }
    }

    /// The name in events and read models.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Starter => "starter",
            Self::Premium => "premium",
        }
    }
}

/// 1 to 255 characters that can be shown on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrganizationName(String);

impl FromStr for OrganizationName {
    type Err = OrganizationError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let good = (1..=255).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        good.then(|| Self(text.to_owned())).ok_or(OrganizationError::BadName)
    }
}

/// 1 to 100 characters of `[a-z0-9-]`, not beginning or ending with `-`. Cannot be changed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slug(String);

impl Slug {
    /// The text, as in URLs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = OrganizationError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = (1..=100).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !text.starts_with('-')
            && !text.ends_with('-');
        good.then(|| Self(text.to_owned())).ok_or(OrganizationError::BadSlug)
    }
}

/// The state of an organization.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Organization {
    created: bool,
    name: String,
    plan: Plan,
    webhook_limit: Option<u32>,
    active: bool,
}

/// Creates an organization or changes its settings; for super admins.
#[derive(Clone, Debug)]
pub enum OrganizationCommand {
    /// A new organization, active at once.
    Create {
        /// The name that people see.
        name: OrganizationName,
        /// The name in URLs. It determines the ID.
        slug: Slug,
        /// The plan.
        plan: Plan,
        /// Accepted webhooks per calendar month; `None` is unlimited.
        webhook_limit: Option<u32>,
    },
    /// Fields that are `None` do not change.
    Update {
        /// The new name.
        name: Option<OrganizationName>,
        /// The new plan, which brings its own limit.
        plan: Option<Plan>,
        /// The new limit; `Some(None)` removes it.
        webhook_limit: Option<Option<u32>>,
    },
    /// An inactive organization receives no webhooks, and its people cannot sign in.
    SetActive(bool),
}

/// An organization was created, or its settings changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrganizationEvent {
    /// The organization exists, and is active.
    #[serde(rename = "organization.created", rename_all = "camelCase")]
    Created {
        /// The name that people see.
        name: String,
        /// The name in URLs, which never changes.
        slug: String,
        /// The plan.
        plan: Plan,
        /// Accepted webhooks per calendar month; `None` is unlimited.
        webhook_limit: Option<u32>,
    },
    /// People see another name.
    #[serde(rename = "organization.renamed", rename_all = "camelCase")]
    Renamed {
        /// The new name.
        name: String,
    },
    /// The plan, the limit, or both changed.
    #[serde(rename = "organization.plan_changed", rename_all = "camelCase")]
    PlanChanged {
        /// The plan from now on.
        plan: Plan,
        /// Accepted webhooks per calendar month from now on; `None` is unlimited.
        webhook_limit: Option<u32>,
    },
    /// It receives webhooks again, and its people can sign in.
    #[serde(rename = "organization.activated")]
    Activated {},
    /// It receives no webhooks, and its people cannot sign in.
    #[serde(rename = "organization.deactivated")]
    Deactivated {},
}

aggregate!(Organization, "organization", OrganizationCommand, OrganizationEvent, OrganizationError, {
    Created => "organization.created" v 1,
    Renamed => "organization.renamed" v 1,
    PlanChanged => "organization.plan_changed" v 1,
    Activated => "organization.activated" v 1,
    Deactivated => "organization.deactivated" v 1,
});

/// Why a command is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrganizationError {
    /// The slug is taken.
    #[error("An organization with this slug already exists. Choose another slug.")]
    AlreadyExists,
    /// No organization has the ID.
    #[error("Organization not found.")]
    NotFound,
    /// The text is no [`OrganizationName`].
    #[error("A name must be 1 to 255 characters, on one line.")]
    BadName,
    /// The text is no [`Slug`].
    #[error("A slug must be 1 to 100 characters (a-z, 0-9, or -) and can't begin or end with -.")]
    BadSlug,
}

impl Organization {
    /// Decides a command. Settings that are already as requested cause no event.
    ///
    /// # Errors
    /// [`OrganizationError`] if the organization exists already, or does not exist.
    pub fn decide(&self, command: OrganizationCommand) -> Result<Vec<OrganizationEvent>, OrganizationError> {
        match command {
            OrganizationCommand::Create { .. } if self.created => Err(OrganizationError::AlreadyExists),
            OrganizationCommand::Create { name, slug, plan, webhook_limit } => {
                Ok(vec![OrganizationEvent::Created { name: name.0, slug: slug.0, plan, webhook_limit }])
            }
            _ if !self.created => Err(OrganizationError::NotFound),
            OrganizationCommand::Update { name, plan, webhook_limit } => Ok(self.update(name, plan, webhook_limit)),
            OrganizationCommand::SetActive(active) if active == self.active => Ok(vec![]),
            OrganizationCommand::SetActive(true) => Ok(vec![OrganizationEvent::Activated {}]),
            OrganizationCommand::SetActive(false) => Ok(vec![OrganizationEvent::Deactivated {}]),
        }
    }

    /// A new plan sets its own limit, unless the same command names one.
    fn update(
        &self,
        name: Option<OrganizationName>,
        plan: Option<Plan>,
        webhook_limit: Option<Option<u32>>,
    ) -> Vec<OrganizationEvent> {
        let renamed = name.filter(|name| name.0 != self.name).map(|name| OrganizationEvent::Renamed { name: name.0 });
        let new_plan = plan.unwrap_or(self.plan);
        let default_limit = if new_plan == self.plan { self.webhook_limit } else { new_plan.webhook_limit() };
        let new_limit = webhook_limit.unwrap_or(default_limit);
        let changed = (new_plan, new_limit) != (self.plan, self.webhook_limit);
        let plan_changed =
            changed.then_some(OrganizationEvent::PlanChanged { plan: new_plan, webhook_limit: new_limit });
        renamed.into_iter().chain(plan_changed).collect()
    }

    fn evolve(&mut self, event: &OrganizationEvent) {
        match event {
            OrganizationEvent::Created { name, plan, webhook_limit, slug: _ } => {
                *self = Self {
                    created: true,
                    name: name.clone(),
                    plan: *plan,
                    webhook_limit: *webhook_limit,
                    active: true,
                };
            }
            OrganizationEvent::Renamed { name } => self.name.clone_from(name),
            OrganizationEvent::PlanChanged { plan, webhook_limit } => {
                self.plan = *plan;
                self.webhook_limit = *webhook_limit;
            }
            OrganizationEvent::Activated {} => self.active = true,
            OrganizationEvent::Deactivated {} => self.active = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Organization {
        let mut organization = Organization::default();
        organization.evolve(&OrganizationEvent::Created {
            name: "Acme".into(),
            slug: "acme".into(),
            plan: Plan::Free,
            webhook_limit: Some(1_000),
        });
        organization
    }

    fn create() -> OrganizationCommand {
        OrganizationCommand::Create {
            name: "Acme".parse().unwrap(),
            slug: "acme".parse().unwrap(),
            plan: Plan::Free,
            webhook_limit: Some(1_000),
        }
    }

    #[test]
    fn a_slug_is_taken_once() {
        assert!(Organization::default().decide(create()).is_ok());
        assert_eq!(acme().decide(create()), Err(OrganizationError::AlreadyExists));
    }

    #[test]
    fn a_new_plan_brings_its_limit() {
        let update = OrganizationCommand::Update { name: None, plan: Some(Plan::Premium), webhook_limit: None };
        assert_eq!(
            acme().decide(update),
            Ok(vec![OrganizationEvent::PlanChanged { plan: Plan::Premium, webhook_limit: None }])
        );
    }

    #[test]
    fn what_does_not_change_is_not_an_event() {
        let update =
            OrganizationCommand::Update { name: Some("Acme".parse().unwrap()), plan: None, webhook_limit: None };
        assert_eq!(acme().decide(update), Ok(vec![]));
        assert_eq!(acme().decide(OrganizationCommand::SetActive(true)), Ok(vec![]));
    }

    #[test]
    fn an_unknown_organization_cannot_be_changed() {
        let nobody = Organization::default();
        assert_eq!(nobody.decide(OrganizationCommand::SetActive(false)), Err(OrganizationError::NotFound));
    }

    #[test]
    fn slugs_and_names_are_held_to_their_form() {
        for bad in ["", "Acme", "a b", "-a", "a-", "ä", &"a".repeat(101)] {
            assert!(bad.parse::<Slug>().is_err(), "{bad}");
        }
        for bad in ["", "   ", "a\nb", &"n".repeat(256)] {
            assert!(bad.parse::<OrganizationName>().is_err(), "{bad}");
        }
        assert!("acme-2".parse::<Slug>().is_ok());
    }
}
