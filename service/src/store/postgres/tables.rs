//! The tables: brought up to date by whoever may, and used by roles that may do no more than that.

use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use crate::db::postgres::{SessionSettings, denied};
use crate::store::migrations::{POSTGRES as MIGRATIONS, has_to_migrate, pending};

/// How long the migrations may take.
const MIGRATION: Duration = Duration::from_secs(120);

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
pub(super) async fn migrate(session: SessionSettings, may: bool) -> Result<usize, String> {
    let run = async {
        let mut connection =
            session.with([("statement_timeout", "0")]).connect().await.map_err(|error| error.to_string())?;
        let needed = needed(&mut connection).await.map_err(|error| explained(&error))?;
        if needed > 0 && !may {
            return Err(has_to_migrate(needed));
        }
        if needed > 0 {
            MIGRATIONS.run(&mut connection).await.map_err(|error| explained(&error))?;
        }
        connection.close().await.ok();
        Ok(needed)
    };
    let done = timeout(MIGRATION, run).await;
    done.unwrap_or_else(|_| Err(format!("the migrations took more than {} s", MIGRATION.as_secs())))
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
    let is_denied = match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("42501"))
        }
        _ => false,
    };
    if !is_denied {
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
