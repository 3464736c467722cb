//! The deployment's keys: configured, or generated beside the embedded store.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use crate::node::config::StoreSettings;
use crate::platform::secrets::master::{KeyError, KeyRing, generate};

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("{name} is required with DATABASE_URL. Generate a key with `hookledger keygen`")]
    Needed { name: &'static str },
    #[error("{name}: {source}")]
    Malformed { name: &'static str, source: KeyError },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// The master keys, which encrypt secrets.
pub fn master(settings: &StoreSettings) -> Result<KeyRing, KeysError> {
    ring("HOOKLEDGER_MASTER_KEYS", settings.master_keys.as_ref(), settings, "master.key")
}

/// The keys that sign sessions.
pub fn jwt(settings: &StoreSettings) -> Result<KeyRing, KeysError> {
    ring("HOOKLEDGER_JWT_KEYS", settings.jwt_keys.as_ref(), settings, "jwt.key")
}

fn ring(
    name: &'static str,
    configured: Option<&SecretString>,
    settings: &StoreSettings,
    file: &str,
) -> Result<KeyRing, KeysError> {
    let malformed = |source| KeysError::Malformed { name, source };
    if let Some(configured) = configured {
        return configured.expose_secret().parse().map_err(malformed);
    }
    if settings.database_url.is_some() {
        return Err(KeysError::Needed { name });
    }
    let path = settings.data_dir.join(file);
    let at = |source| KeysError::File { path: path.clone(), source };
    if !path.exists() {
        let key = SecretString::from(generate("k1").map_err(malformed)?);
        write_new(&path, &key).map_err(at)?;
        tracing::info!(path = %path.display(), "generated a key; back it up elsewhere");
    }
    SecretString::from(fs::read_to_string(&path).map_err(at)?).expose_secret().parse().map_err(malformed)
}

/// Writes the file whole or not at all, because a half-written key would lock everything up. Never replaces
/// an existing file.
fn write_new(path: &Path, key: &SecretString) -> io::Result<()> {
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
    writeln!(file, "{}", key.expose_secret())?;
    file.sync_all()?;
    let linked = fs::hard_link(&unfinished, path);
    fs::remove_file(&unfinished)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
    }
}
