//! The settings in force, for people to see: every setting of `serve`, without secrets.

use chrono::Duration;
use clap::Args as _;

use crate::api::graphql::PlatformSetting;
use crate::node::config::{ServeSettings, Size, Span};

/// How to show a value.
enum Told {
    Value(Option<String>),
    Secret(bool),
}

/// Every setting, in the order of `serve --help`.
#[must_use]
pub fn of(settings: &ServeSettings) -> Vec<PlatformSetting> {
    let command = ServeSettings::augment_args(clap::Command::new("serve"));
    let settings = command.get_arguments().filter_map(|argument| {
        let name = argument.get_env()?.to_str()?.to_owned();
        let (value, is_secret, is_set) = match told(settings, &name) {
            Told::Value(value) => (value.clone(), false, value.is_some()),
            Told::Secret(is_set) => (None, true, is_set),
        };
        let default = argument.get_default_values().first().and_then(|value| value.to_str());
        Some(PlatformSetting {
            name,
            help: argument.get_help().map(ToString::to_string).unwrap_or_default(),
            value,
            default: default.filter(|text| !text.is_empty()).map(str::to_owned),
            is_secret,
            is_set,
        })
    });
    settings.collect()
}

/// Anything not named here is treated as a secret.
fn told(settings: &ServeSettings, name: &str) -> Told {
    let store = &settings.store;
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let list = |items: Vec<String>| (!items.is_empty()).then(|| items.join(","));
    Told::Value(match name {
        "HOOKLEDGER_DATABASE_CONNECTIONS" => Some(store.database_connections.to_string()),
        "HOOKLEDGER_DATA_DIR" => Some(store.data_dir.display().to_string()),
        "HOOKLEDGER_SUPER_ADMIN_EMAIL" => Some(store.super_admin_email.clone()),
        "HOOKLEDGER_BASE_URL" => Some(store.base_url.0.clone()),
        "HOOKLEDGER_MAGIC_LINK_TTL" => Some(span(store.magic_link_ttl)),
        "HOOKLEDGER_LISTEN" => Some(settings.listen.to_string()),
        "HOOKLEDGER_MAX_BODY" => Some(size(settings.max_body)),
        "HOOKLEDGER_OPERATIONS_LISTEN" => settings.operations_listen.map(|address| address.to_string()),
        "HOOKLEDGER_BODY_BUDGET" => Some(size(settings.body_budget)),
        "HOOKLEDGER_MAX_CONNECTIONS" => Some(settings.max_connections.to_string()),
        "HOOKLEDGER_MAX_CONNECTIONS_PER_CLIENT" => Some(settings.max_connections_per_client.to_string()),
        "HOOKLEDGER_TRUSTED_PROXIES" => list(settings.trusted_proxies.iter().map(ToString::to_string).collect()),
        "HOOKLEDGER_PAYPAL_CERT_DIR" => path(&settings.paypal_cert_dir),
        "HOOKLEDGER_PAYPAL_TRUST_ROOTS" => path(&settings.paypal_trust_roots),
        "HOOKLEDGER_PAYPAL_MAX_AGE" => Some(span(settings.paypal_max_age)),
        "HOOKLEDGER_RETRY_DELAYS" => list(settings.retry_delays.0.iter().map(|delay| span(Span(*delay))).collect()),
        "HOOKLEDGER_PENDING_TIMEOUT" => Some(span(settings.pending_timeout)),
        "HOOKLEDGER_ATTEMPT_TIMEOUT" => Some(span(settings.attempt_timeout)),
        "HOOKLEDGER_RETENTION_BODIES" => Some(span(settings.retention_bodies)),
        "HOOKLEDGER_EGRESS_ALLOW_CIDRS" => {
            Some(settings.egress_allow_cidrs.to_string()).filter(|ranges| !ranges.is_empty())
        }
        "HOOKLEDGER_SESSION_TTL" => Some(span(settings.session_ttl)),
        "HOOKLEDGER_MAIL_FROM" => Some(settings.mail_from.to_string()),
        "HOOKLEDGER_MAIL_DIR" => path(&settings.mail_dir),
        "HOOKLEDGER_GRAPHQL_GET" => Some(settings.graphql_get.to_string()),
        "HOOKLEDGER_DEMO" => Some(settings.demo.to_string()),
        "HOOKLEDGER_CHECKPOINT_INTERVAL" => Some(span(settings.checkpoint_interval)),
        "HOOKLEDGER_CHECKPOINT_FILE" => path(&settings.checkpoint_file()),
        "HOOKLEDGER_WITNESS_URL" => settings.witness_url.clone(),
        "HOOKLEDGER_THREADS" => settings.threads.map(|threads| threads.to_string()),
        "DATABASE_URL" => return Told::Secret(store.database_url.is_some()),
        "HOOKLEDGER_MASTER_KEYS" => return Told::Secret(store.master_keys.is_some()),
        "HOOKLEDGER_JWT_KEYS" => return Told::Secret(store.jwt_keys.is_some()),
        "HOOKLEDGER_SMTP_URL" => return Told::Secret(settings.smtp_url.is_some()),
        "HOOKLEDGER_EVENTSTORE_URL" => return Told::Secret(settings.eventstore_url.is_some()),
        _ => return Told::Secret(false),
    })
}

fn span(Span(time): Span) -> String {
    let units = [(Duration::days(1), "d"), (Duration::hours(1), "h"), (Duration::minutes(1), "m")];
    let seconds = time.num_seconds();
    let whole = units.into_iter().find(|(unit, _)| seconds > 0 && seconds % unit.num_seconds() == 0);
    whole.map_or_else(|| format!("{seconds}s"), |(unit, name)| format!("{}{name}", seconds / unit.num_seconds()))
}

fn size(Size(bytes): Size) -> String {
    match bytes {
        _ if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        _ if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Serve {
        #[command(flatten)]
        settings: ServeSettings,
    }

    #[test]
    fn every_setting_is_told_as_people_write_it_and_no_secret_is() {
        let given = ["serve", "--jwt-keys", "k1:c2VjcmV0", "--retry-delays", "90s,5m", "--max-body", "512KiB"];
        let settings = of(&Serve::parse_from(given).settings);
        let find = |name: &str| settings.iter().find(|setting| setting.name == name).unwrap();
        assert_eq!(find("HOOKLEDGER_RETRY_DELAYS").value.as_deref(), Some("90s,5m"));
        assert_eq!(find("HOOKLEDGER_MAX_BODY").value.as_deref(), Some("512KiB"));
        assert_eq!(find("HOOKLEDGER_SESSION_TTL").default.as_deref(), Some("12h"));
        let keys = find("HOOKLEDGER_JWT_KEYS");
        assert_eq!((keys.is_secret, keys.is_set, &keys.value), (true, true, &None));
        let secrets = settings.iter().filter(|setting| setting.is_secret).map(|setting| setting.name.as_str());
        // A new setting is listed here if it is a secret, and shown above otherwise.
        let known = [
            "DATABASE_URL",
            "HOOKLEDGER_MASTER_KEYS",
            "HOOKLEDGER_JWT_KEYS",
            "HOOKLEDGER_SMTP_URL",
            "HOOKLEDGER_EVENTSTORE_URL",
        ];
        assert_eq!(secrets.collect::<Vec<_>>(), known);
    }
}
