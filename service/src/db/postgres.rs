//! PostgreSQL, as the stores and the lock table reach it: pools, settings of a session, classes of errors.

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgPoolOptions, PgSeverity};
use tokio::time::timeout;

use crate::config::{ConfigError, StoreSection};

/// For how long a connection that nobody used is taken to be alive. A commit that is sent over a dead one has an unknown
/// outcome, so this is short; under load, no connection is idle for as long.
const FRESH: Duration = Duration::from_millis(5);

/// How long a connection may take to say that it is alive.
const PING: Duration = Duration::from_secs(1);

/// How to reach the database that the configuration names. Statements, waits for rows and forgotten transactions
/// are ended by the server itself, should this process be gone or stopped.
pub(crate) fn options(store: &StoreSection) -> Result<PgConnectOptions, ConfigError> {
    let refuse = |error: sqlx::Error| ConfigError::new("store.url", error.to_string());
    let options: PgConnectOptions = store.url.parse().map_err(refuse)?;
    let ms = |duration: Duration| duration.as_millis().to_string();
    Ok(options.application_name("order-service").options([
        ("statement_timeout", ms(store.timeout)),
        ("idle_in_transaction_session_timeout", ms(store.timeout)),
    ]))
}

/// A pool of at most so many connections.
pub(crate) fn pool(store: &StoreSection, connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(store.timeout)
        // A connection that was good a moment ago is not asked again, which would cost a round trip each time.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for >= FRESH {
                    timeout(PING, connection.ping()).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
                }
                Ok(true)
            })
        })
}

/// Whether the server said that the statement failed, and was not on its way down.
pub(crate) fn is_definite(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    // Anything worse than an error ends the connection or the server, perhaps in the middle of the commit.
    let only_an_error = error
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|error| matches!(error.severity(), PgSeverity::Error));
    only_an_error && error.code().is_some_and(|code| !code.starts_with("57P") && !code.starts_with("08"))
}

/// Whether others kept this one from its rows for too long.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    match error {
        // lock_not_available, query_canceled, deadlock_detected, serialization_failure
        sqlx::Error::Database(error) => {
            ["55P03", "57014", "40P01", "40001"].contains(&error.code().as_deref().unwrap_or_default())
        }
        _ => false,
    }
}
