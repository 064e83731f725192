//! PostgreSQL, as the stores and the lock table reach it: pools, settings of a session, classes of errors.

mod pool;
mod session;

use std::time::Duration;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

pub(crate) use pool::{Connection, Pool};
pub(crate) use session::SessionSettings;

/// For how long a connection that was not used is taken to be alive. A commit that is sent over a dead one
/// has an unknown outcome, so this is short; under load, no connection is idle for as long.
pub(super) const FRESH: Duration = Duration::from_millis(5);

/// How long a connection may take to say that it is alive.
pub(super) const PING: Duration = Duration::from_secs(1);

/// Whether the server said that the statement failed, and was not on its way down.
pub(crate) fn is_definite(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    // Anything worse than an error ends the connection or the server, perhaps in the middle of the commit.
    let only_an_error = error
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|error| matches!(error.severity(), PgSeverity::Error));
    only_an_error && error.code().is_some_and(|code| !code.starts_with("57P") && !code.starts_with("08"))
}

/// Whether a statement that the connection had prepared does not fit the tables any more, since these were
/// changed. A new connection prepares it anew.
fn is_outdated(error: &sqlx::Error) -> bool {
    // feature_not_supported, "cached plan must not change result type"
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("0A000"))
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
