//! Where products and orders are kept.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Where products and orders are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSection {
    /// "sqlite://FILE", which several replicas on one machine may share, or
    /// "postgres://USER:PASSWORD@HOST/DATABASE". PostgreSQL may be HOST:PORT,HOST:PORT: the one that is the
    /// primary is connected to, also after a fail-over. A server elsewhere than on this machine has to do TLS
    /// with a certificate that is trusted ("?sslrootcert=FILE" for an authority of your own), unless sslmode
    /// says otherwise.
    pub url: String,
    /// A file with PostgreSQL's password, instead of one in the URL; it is read for each connection, so that
    /// the password can be changed while the service runs.
    #[schemars(with = "Option<String>")]
    pub password_file: Option<PathBuf>,
    /// Whether the start brings the tables up to date; if not, that is left to "order-service migrate", and a
    /// start is refused before it.
    pub migrate: bool,
    /// The longest time that one operation of the store may take.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            url: "sqlite://stocklock.db".into(),
            password_file: None,
            migrate: true,
            timeout: Duration::from_secs(3),
        }
    }
}

impl StoreSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Some(file) = &self.password_file else { return Ok(()) };
        if self.url.starts_with("sqlite:") {
            return Err(ConfigError::new("store.password_file", "is for PostgreSQL; SQLite has no password"));
        }
        let readable = std::fs::read_to_string(file).map(drop);
        readable.map_err(|error| {
            ConfigError::new("store.password_file", format!("{} cannot be read: {error}", file.display()))
        })
    }
}
