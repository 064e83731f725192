//! Statements for a shop's own database.

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ColumnIndex, ConnectOptions as _, Connection as _, Decode, Executor, Row as _};
use tokio::time::timeout;

use super::description::{DatabaseKind, Sql};
use super::owner::Owner;
use super::template::Variables;

/// Carries statements out.
pub async fn execute(
    sql: &Sql,
    variables: &Variables,
    owner: &Owner,
    patience: Duration,
) -> anyhow::Result<()> {
    rows(sql, variables, owner, patience).await.map(drop)
}

/// The first column of all rows that a query returns, as text; `None` stands for NULL.
pub async fn rows(
    sql: &Sql,
    variables: &Variables,
    owner: &Owner,
    patience: Duration,
) -> anyhow::Result<Vec<Option<String>>> {
    let url = variables.fill(&sql.database).context("sql.database")?;
    let statement = variables.fill(&sql.statement).context("sql.statement")?;
    // A statement may wait for a lock that the shop does not give back.
    let done = timeout(patience, ask(&url, &statement, owner)).await;
    match done {
        Ok(rows) => rows.with_context(|| format!("sql {statement:?}")),
        Err(_) => bail!("sql {statement:?}: no answer within {} s", patience.as_secs_f64()),
    }
}

async fn ask(url: &str, statement: &str, owner: &Owner) -> anyhow::Result<Vec<Option<String>>> {
    // No error shows the URL, which may have a password.
    match DatabaseKind::of(url) {
        Some(DatabaseKind::Postgres) => {
            let options = PgConnectOptions::from_str(url).context("sql.database")?;
            owner.check_host(options.get_host())?;
            let mut connection: PgConnection =
                options.connect().await.map_err(plain).context("cannot connect to the database")?;
            let rows = first_column(&mut connection, statement).await;
            connection.close().await.ok();
            rows
        }
        Some(DatabaseKind::Mysql) => {
            let options = MySqlConnectOptions::from_str(url).context("sql.database")?;
            owner.check_host(options.get_host())?;
            let mut connection: MySqlConnection =
                options.connect().await.map_err(plain).context("cannot connect to the database")?;
            let rows = first_column(&mut connection, statement).await;
            connection.close().await.ok();
            rows
        }
        Some(DatabaseKind::Sqlite) => {
            let options = SqliteConnectOptions::from_str(url).context("sql.database")?;
            let options = options.busy_timeout(Duration::from_secs(5));
            let mut connection: SqliteConnection =
                options.connect().await.map_err(plain).with_context(|| format!("cannot open {url}"))?;
            let rows = first_column(&mut connection, statement).await;
            connection.close().await.ok();
            rows
        }
        None => {
            bail!("sql.database: must be postgres://…, mysql://… or sqlite://…");
        }
    }
}

/// What the database itself says, without what surrounds it.
fn plain(error: sqlx::Error) -> anyhow::Error {
    match error {
        sqlx::Error::Database(error) => anyhow::anyhow!("{}", error.message()),
        other => other.into(),
    }
}

/// Whatever its type, a value is taken as the text that the database makes of it.
async fn first_column<C, DB>(connection: &mut C, statement: &str) -> anyhow::Result<Vec<Option<String>>>
where
    DB: sqlx::Database,
    for<'c> &'c mut C: Executor<'c, Database = DB>,
    for<'r> Option<String>: Decode<'r, DB>,
    usize: ColumnIndex<DB::Row>,
{
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
        .fetch_all(connection)
        .await
        .map_err(plain)?;
    let texts = rows.iter().map(|row| {
        ensure!(!row.is_empty(), "a row has no column");
        Ok(row.try_get_unchecked::<Option<String>, _>(0)?)
    });
    texts.collect()
}
