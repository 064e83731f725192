//! Statements for a shop's own database.

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::description::Sql;
use super::template::Variables;

/// Carries statements out.
pub async fn execute(sql: &Sql, variables: &Variables) -> anyhow::Result<()> {
    let (database, statement) = connect(sql, variables).await?;
    let failed = || format!("sql {statement:?}");
    let owned = sqlx::AssertSqlSafe(statement.clone());
    match database {
        Database::Postgres(mut connection) => {
            sqlx::raw_sql(owned).execute(&mut connection).await.with_context(failed)?;
            connection.close().await.ok();
        }
        Database::Sqlite(mut connection) => {
            sqlx::raw_sql(owned).execute(&mut connection).await.with_context(failed)?;
            connection.close().await.ok();
        }
    }
    Ok(())
}

/// The first column of the first row that a query returns, which has to be a whole number.
pub async fn query(sql: &Sql, variables: &Variables) -> anyhow::Result<i64> {
    let (database, statement) = connect(sql, variables).await?;
    let failed = || format!("sql {statement:?}");
    let no_number = || format!("sql {statement:?}: the first column of the first row is no whole number");
    let owned = sqlx::AssertSqlSafe(statement.clone());
    match database {
        Database::Postgres(mut connection) => {
            let row = sqlx::query(owned).fetch_one(&mut connection).await.with_context(failed)?;
            let number = row.try_get::<i64, _>(0).or_else(|_| row.try_get::<i32, _>(0).map(i64::from));
            connection.close().await.ok();
            number.with_context(no_number)
        }
        Database::Sqlite(mut connection) => {
            let row = sqlx::query(owned).fetch_one(&mut connection).await.with_context(failed)?;
            let number = row.try_get::<i64, _>(0);
            connection.close().await.ok();
            number.with_context(no_number)
        }
    }
}

/// A connection to the database of a description.
enum Database {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

async fn connect(sql: &Sql, variables: &Variables) -> anyhow::Result<(Database, String)> {
    let url = variables.fill(&sql.database).context("sql.database")?;
    let statement = variables.fill(&sql.statement).context("sql.statement")?;
    // The URL may have a password.
    let scheme = url.split(':').next().unwrap_or_default().to_owned();
    let database = match scheme.as_str() {
        "postgres" | "postgresql" => {
            let options = PgConnectOptions::from_str(&url).context("sql.database")?;
            Database::Postgres(options.connect().await.context("cannot connect to the database")?)
        }
        "sqlite" => {
            let options = SqliteConnectOptions::from_str(&url).context("sql.database")?;
            let options = options.busy_timeout(Duration::from_secs(5));
            Database::Sqlite(options.connect().await.context("cannot open the database")?)
        }
        other => bail!("sql.database: there are postgres:// and sqlite://, not {other:?}"),
    };
    Ok((database, statement))
}
