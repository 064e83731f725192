//! The tables: brought up to date by whoever may, and used by roles that may do no more than that.

use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{sleep, timeout};

use crate::db::postgres::{SessionSettings, denied};
use crate::store::migrations::{POSTGRES as MIGRATIONS, has_to_migrate, pending};

/// How long the migrations may take when a replica starts.
pub(super) const AT_START: Duration = Duration::from_secs(120);

/// After how long a migration is tried again that would have had to wait for a table.
const AGAIN: Duration = Duration::from_secs(5);

/// What orders need. A reset also deletes.
const NEEDED: [(&str, &[&str]); 5] = [
    ("products", &["select", "insert", "update"]),
    ("orders", &["select", "insert", "update"]),
    ("stock_adjustments", &["select", "insert"]),
    ("kept_answers", &["select", "insert"]),
    ("token_generations", &["select", "insert", "update"]),
];

/// Brings the tables up to date, if it `may`, and returns how many migrations that took. A role that may not
/// change tables is enough where there are none. The connection is one of its own: a migration, and the wait
/// for another replica's, may take longer than a statement of an order.
///
/// A migration waits a second at most for its tables: all that came later would wait behind it, for as
/// long as a backup takes. It is tried again, until `limit`, or for ever.
pub(super) async fn migrate(
    session: SessionSettings,
    may: bool,
    limit: Option<Duration>,
) -> Result<usize, String> {
    // The server has to give up, too: it does not notice while it executes that a client has gone.
    let statement = limit.map_or(0, |limit| limit.as_millis());
    // And it may read all that there is: not as orders are planned.
    let session = session.with([
        ("statement_timeout", &*statement.to_string()),
        ("enable_seqscan", "on"),
        ("enable_bitmapscan", "on"),
    ]);
    let run = async {
        let mut applied = 0;
        loop {
            // A new one each time: with the connection ends the lock by which one replica at a time migrates.
            let mut connection = session.connect().await.map_err(|error| error.to_string())?;
            let needed = needed(&mut connection).await.map_err(|error| explained(&error))?;
            applied = applied.max(needed);
            if needed > 0 && !may {
                return Err(has_to_migrate(needed));
            }
            let done = if needed > 0 { MIGRATIONS.run(&mut connection).await } else { Ok(()) };
            connection.close().await.ok();
            match done {
                Ok(()) => return Ok(applied),
                Err(error) if code_of(&error).is_some_and(|code| TABLE_IS_TAKEN.contains(&code.as_str())) => {
                    tracing::warn!(%error, "a migration waits until its table is free: it is tried again");
                    sleep(AGAIN).await;
                }
                Err(error) => return Err(explained(&error)),
            }
        }
    };
    let Some(limit) = limit else { return run.await };
    let late = || {
        format!(
            "the migrations take more than {} s, or wait for a transaction that holds a table: \
             \"order-service migrate\" takes all the time that they need",
            limit.as_secs()
        )
    };
    timeout(limit, run).await.unwrap_or_else(|_| Err(late()))
}

/// PostgreSQL's codes for a table that somebody else has locked (lock_not_available, deadlock_detected), and
/// for a right that is missing.
const TABLE_IS_TAKEN: [&str; 2] = ["55P03", "40P01"];
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// The database's code for what has gone wrong, if it was the database.
fn code_of(error: &MigrateError) -> Option<String> {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            Some(error.as_database_error()?.code()?.into_owned())
        }
        _ => None,
    }
}

async fn needed(connection: &mut PgConnection) -> Result<usize, MigrateError> {
    let is_there = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null");
    if is_there.fetch_one(&mut *connection).await? {
        return pending(&MIGRATIONS, connection).await;
    }
    Ok(MIGRATIONS.iter().count())
}

/// An error of the migrations, with the way out where the role is what is wrong.
fn explained(error: &MigrateError) -> String {
    if code_of(error).as_deref() != Some(INSUFFICIENT_PRIVILEGE) {
        return error.to_string();
    }
    format!(
        "{error}: where migrations have to be run, \"order-service migrate\" does it as a role that may; to \
         see that none has, a role needs select on _sqlx_migrations"
    )
}

/// Refuses a role that may not do what orders need.
pub(super) async fn check_rights(session: &SessionSettings) -> Result<(), String> {
    let mut connection = session.connect().await.map_err(|error| error.to_string())?;
    let denied =
        session.answered(denied(&mut connection, &NEEDED)).await.map_err(|error| error.to_string())?;
    connection.close().await.ok();
    if denied.is_empty() { Ok(()) } else { Err(denied) }
}
