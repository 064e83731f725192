//! Which migrations a database still needs.

use sqlx::migrate::{Migrate, MigrateError, Migrator};

/// Where it is kept which migrations a database has had.
const TABLE: &str = "_sqlx_migrations";

/// How many migrations a database needs that keeps a record of those it has had. Nothing is written, so that
/// whoever may not change tables may ask. One that has had others than these is refused, unless they are
/// later ones.
pub(super) async fn pending(
    migrations: &Migrator,
    connection: &mut impl Migrate,
) -> Result<usize, MigrateError> {
    if let Some(version) = connection.dirty_version(TABLE).await? {
        return Err(MigrateError::Dirty(version));
    }
    let applied = connection.list_applied_migrations(TABLE).await?;
    let latest = migrations.iter().map(|migration| migration.version).max().unwrap_or_default();
    let mut later = 0;
    for known in &applied {
        let Some(migration) = migrations.iter().find(|migration| migration.version == known.version) else {
            if known.version > latest {
                // While versions change, replicas of the one before run on what the next one has made.
                tracing::warn!(
                    version = known.version,
                    "the tables are of a later version than this program"
                );
                later += 1;
                continue;
            }
            return Err(MigrateError::VersionMissing(known.version));
        };
        if migration.checksum != known.checksum {
            return Err(MigrateError::VersionMismatch(known.version));
        }
    }
    Ok(migrations.iter().count() + later - applied.len())
}

/// That the start does not bring the tables up to date.
pub(super) fn has_to_migrate(pending: usize) -> String {
    format!(
        "{pending} migrations have to be run, which store.migrate = false leaves to \"order-service migrate\""
    )
}
