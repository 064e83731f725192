//! SQLite, as the store and the lock table open it: pools, settings of a connection, classes of errors.

mod file;

use std::sync::Arc;

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::config::{ConfigError, StoreSection};

pub(crate) use file::DatabaseFile;

/// How to open the file that the configuration names.
pub(crate) fn options(store: &StoreSection) -> Result<SqliteConnectOptions, ConfigError> {
    let refuse = |why: String| ConfigError::new("store.url", why);
    let file = store.url.strip_prefix("sqlite:").ok_or_else(|| refuse("must be sqlite://FILE".into()))?;
    if file.trim_start_matches('/').is_empty() || file.contains(":memory:") || file.contains("mode=memory") {
        return Err(refuse("must name a file, which replicas can share and a restart finds again".into()));
    }
    let options: SqliteConnectOptions = store.url.parse().map_err(|e: sqlx::Error| refuse(e.to_string()))?;
    Ok(options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // Earlier than the store's own time-out, so that the answer is definite: nothing was written.
        .busy_timeout(store.timeout * 3 / 4))
}

/// A pool that does not hand out a connection whose last transaction came to no end: a full disk makes SQLite
/// roll back by itself, which leaves the connection's bookkeeping behind. It is replaced. Nor one to another
/// file than this.
pub(crate) fn pool(store: &StoreSection, file: &Arc<DatabaseFile>, connections: u32) -> SqlitePoolOptions {
    let file = Arc::clone(file);
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(store.timeout)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(move |_, _| {
            let checked = file.check();
            Box::pin(async move { Ok(checked?) })
        })
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
}

/// Whether another process or connection kept this one from the file for too long.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => is_busy_text(error.message()),
        sqlx::Error::PoolTimedOut => true,
        _ => false,
    }
}

pub(crate) fn is_busy_text(message: &str) -> bool {
    message.contains("database is locked") || message.contains("database table is locked")
}
