//! The databases: what the stores and the lock table share of reaching them.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use crate::config::{ConfigError, StoreSection};

/// The kinds of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatabaseKind {
    Sqlite,
    Postgres,
}

impl DatabaseKind {
    /// The kind that the configuration names.
    pub(crate) fn of(store: &StoreSection) -> Result<Self, ConfigError> {
        match store.url.split(':').next() {
            Some("sqlite") => Ok(Self::Sqlite),
            Some("postgres" | "postgresql") => Ok(Self::Postgres),
            _ => Err(ConfigError::new("store.url", "must be sqlite://FILE or postgres://USER@HOST/DATABASE")),
        }
    }
}

/// Whether others kept a statement from what it needed for too long.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    sqlite::is_busy(error) || postgres::is_busy(error)
}
