//! Usage and billing: the plan, and its usage.

use async_graphql::{Enum, Error, SimpleObject};
use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, NaiveTime, Utc};
use hookledger_aggregates::usage::share_reached;
use hookledger_projections::{organizations, usage};

use super::organization::{Plan, plan};
use crate::api::graphql::errors::internal;
use crate::platform::store::Tenant;

/// Number of past months shown.
const PAST_MONTHS: i64 = 24;

/// How close the usage is to the monthly limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum UsageWarning {
    None,
    /// 80 % are used.
    Approaching,
    /// The limit is reached: webhooks are refused until the month ends.
    Reached,
}

/// An organization's usage of its plan.
#[derive(SimpleObject)]
pub struct Usage {
    plan: Plan,
    /// Accepted webhooks per calendar month, UTC; null is unlimited.
    webhook_limit: Option<i32>,
    /// The current month, such as `2026-01`.
    month: String,
    /// Webhooks accepted this month, without duplicates.
    used: i64,
    /// Webhooks left until the limit; null for unlimited.
    remaining: Option<i64>,
    /// Percentage of the limit; null for unlimited.
    percent_used: Option<f64>,
    warning: UsageWarning,
    /// Start of the next month.
    resets_at: DateTime<Utc>,
    /// Earlier months with webhooks, newest first.
    past_months: Vec<MonthlyUsage>,
}

/// The usage of an earlier month.
#[derive(SimpleObject)]
pub struct MonthlyUsage {
    /// Such as `2026-01`.
    month: String,
    used: i64,
}

pub(crate) async fn of(
    tenant: &mut Tenant,
    organization: &organizations::Organization,
    now: DateTime<Utc>,
) -> Result<Usage, Error> {
    let (id, month) = (organization.organization_id(), first_day(now));
    let used = usage::used(&mut **tenant, id, month).await.map_err(internal)?;
    let past = usage::months_before(&mut **tenant, id, month, PAST_MONTHS).await.map_err(internal)?;
    let limit = organization.webhook_limit.map(i64::from);
    Ok(Usage {
        plan: plan(organization)?,
        webhook_limit: organization.webhook_limit,
        month: name(month),
        used,
        remaining: limit.map(|limit| (limit - used).max(0)),
        percent_used: limit.map(|limit| percent(used, limit)),
        warning: warning(used, limit),
        resets_at: resets_at(month),
        past_months: past
            .into_iter()
            .map(|past| MonthlyUsage { month: name(past.month), used: past.accepted })
            .collect(),
    })
}

fn first_day(now: DateTime<Utc>) -> NaiveDate {
    let today = now.date_naive();
    today - Days::new(u64::from(today.day0()))
}

fn resets_at(month: NaiveDate) -> DateTime<Utc> {
    (month + Months::new(1)).and_time(NaiveTime::MIN).and_utc()
}

fn name(month: NaiveDate) -> String {
    month.format("%Y-%m").to_string()
}

#[expect(clippy::cast_precision_loss, reason = "a percentage is for the eye")]
fn percent(used: i64, limit: i64) -> f64 {
    if limit == 0 { 100.0 } else { used as f64 * 100.0 / limit as f64 }
}

fn warning(used: i64, limit: Option<i64>) -> UsageWarning {
    let share =
        |limit| share_reached(u64::try_from(used).unwrap_or_default(), u32::try_from(limit).unwrap_or(u32::MAX));
    match limit.map(share) {
        Some(100..) => UsageWarning::Reached,
        Some(1..) => UsageWarning::Approaching,
        Some(0) | None => UsageWarning::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_come_at_80_and_100_percent() {
        for (used, limit, expected) in [
            (799, Some(1_000), UsageWarning::None),
            (800, Some(1_000), UsageWarning::Approaching),
            (999, Some(1_000), UsageWarning::Approaching),
            (1_000, Some(1_000), UsageWarning::Reached),
            (1_200, Some(1_000), UsageWarning::Reached),
            (0, Some(0), UsageWarning::Reached),
            (1_000_000, None, UsageWarning::None),
        ] {
            assert_eq!(warning(used, limit), expected, "{used} of {limit:?}");
        }
    }

    #[test]
    fn the_count_begins_anew_with_the_month() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let month = first_day(at("2026-12-31T23:59:59Z"));
        assert_eq!(name(month), "2026-12");
        assert_eq!(resets_at(month), at("2027-01-01T00:00:00Z"));
        assert_eq!(first_day(at("2026-02-01T00:00:00Z")), NaiveDate::from_ymd_opt(2026, 2, 1).unwrap());
    }
}
