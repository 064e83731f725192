//! PgBouncer, and others of its kind, between the service and the server.

use std::time::Duration;

use sqlx::{Connection as _, Error, PgConnection, Row as _};
use tokio::time::timeout;

use super::SessionSettings;

/// How long a connection may wait for another's transaction. A session of its own does not wait at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether sessions of the server are shared between connections: then what is set in one, and the statements
/// that it has prepared, are gone or another's at any time.
///
/// Two connections that take turns see whether they get the same session: one says which it has, the other
/// takes what is free and keeps it, and the first says it again.
pub(crate) async fn shares_sessions(settings: &SessionSettings) -> Result<bool, Error> {
    let mut one = settings.connect().await?;
    let mut other = settings.connect().await?;
    let first = settings.answered(session(&mut one, SESSION)).await?;
    let kept = match settings.answered(session(&mut other, IN_TRANSACTION)).await {
        Err(error) if error.to_string().contains("statement pooling") => return Ok(true),
        kept => kept?,
    };
    // A pool that has one session has none to spare now.
    let again = match timeout(PATIENCE, session(&mut one, SESSION)).await {
        Ok(again) => Some(again?),
        Err(_) => None,
    };
    other.close().await.ok();
    if again.is_some() {
        one.close().await.ok();
    }
    Ok(kept == first || again != Some(first))
}

/// Which process of the server serves the connection, asked without preparing anything.
const SESSION: &str = "select pg_backend_pid()";

/// The same in a transaction that stays open.
const IN_TRANSACTION: &str = "begin; select pg_backend_pid()";

async fn session(connection: &mut PgConnection, question: &'static str) -> Result<i32, Error> {
    let rows = sqlx::raw_sql(question).fetch_all(connection).await?;
    rows.last().ok_or(Error::RowNotFound)?.try_get(0)
}
