//! PostgreSQL, as the stores and the lock table reach it: pools, settings of a session, classes of errors.

pub(crate) mod places;
mod pool;
mod pooler;
mod servers;
mod session;

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

pub(crate) use pool::{Connection, Pool};
pub(crate) use pooler::shares_sessions;
pub(crate) use session::SessionSettings;

/// For how long a connection that was not used is taken to be alive. A commit that is sent over a dead one
/// has an unknown outcome, so this is short; under load, no connection is idle for as long.
pub(super) const FRESH: Duration = Duration::from_millis(5);

/// How long a connection may take to say that it is alive. One that takes longer is replaced, which costs
/// less than to wait for one that will never say it.
pub(super) const PING: Duration = Duration::from_millis(500);

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

/// Whether the server says that it is starting up, or on its way down (`cannot_connect_now`).
fn is_starting(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("57P03"))
}

/// What the role of a connection may not do of what is needed of each table, as an error; empty where it may
/// do all.
pub(crate) async fn denied(
    connection: &mut PgConnection,
    needed: &[(&str, &[&str])],
) -> Result<String, sqlx::Error> {
    let needed = needed.iter().flat_map(|(table, rights)| rights.iter().map(|right| (*table, *right)));
    let (tables, rights): (Vec<_>, Vec<_>) = needed.unzip();
    let denied = sqlx::query_as(
        "select current_user::text, string_agg(format('%s on %s', needed.right, needed.table), ', ')
         from unnest($1::text[], $2::text[]) as needed (\"table\", \"right\")
         where not has_table_privilege(needed.table, needed.right)
         having count(*) > 0",
    );
    let denied: Option<(String, String)> =
        denied.bind(tables).bind(rights).fetch_optional(connection).await?;
    Ok(denied.map(|(role, what)| format!("the role {role} lacks {what}")).unwrap_or_default())
}

/// That the server has not answered.
fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"))
}

/// Whether the server says that it takes no writes (`read_only_sql_transaction`): it has become a standby.
fn is_read_only(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("25006"))
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
