//! The migrations, and which of them a database still needs.

use std::sync::LazyLock;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

/// Where it is kept which migrations a database has had.
const TABLE: &str = "_sqlx_migrations";

/// The names and the texts of migrations, in a folder beside the crates. They are listed here rather than
/// found by a macro of sqlx, for which all its databases would be compiled a second time.
macro_rules! migrations {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../../migrations/", $folder, "/", $name, ".sql")))),+]
    };
}

/// PostgreSQL's migrations.
pub(super) static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| migrator(&POSTGRES_FILES));
/// SQLite's migrations.
pub(super) static SQLITE: LazyLock<Migrator> = LazyLock::new(|| migrator(&SQLITE_FILES));

static POSTGRES_FILES: [(&str, &str); 13] = migrations![
    "postgres":
    "0001_create_shop",
    "0002_create_locks",
    "0003_lock_many_keys_at_once",
    "0004_one_call_per_turn",
    "0005_count_tokens_in_generations",
    "0006_keep_answers_of_changes",
    "0007_reserve_until_paid",
    "0008_add_counters",
    "0009_count_orders",
    "0010_records_without_a_unique_index",
    "0011_page_adjustments",
    "0012_look_past_what_is_gone",
    "0013_keep_products_that_have_orders",
];

static SQLITE_FILES: [(&str, &str); 7] = migrations![
    "sqlite":
    "0001_create_shop",
    "0002_create_locks",
    "0003_count_tokens_in_generations",
    "0004_keep_answers_of_changes",
    "0005_reserve_until_paid",
    "0006_add_counters",
    "0007_count_orders",
];

/// What runs these files, whose names are a number and a description.
fn migrator(files: &[(&'static str, &'static str)]) -> Migrator {
    let migration = |&(name, text): &(&'static str, &'static str)| {
        let (number, description) = name.split_once('_').expect("a name has both");
        let number = number.parse().expect("it begins with a number");
        let description = description.replace('_', " ").into();
        Migration::new(number, description, MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_a_migration_is_listed() {
        for (folder, listed) in [("postgres", &POSTGRES_FILES[..]), ("sqlite", &SQLITE_FILES[..])] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(folder);
            let files = fs::read_dir(folder).expect("the folder is there");
            let names = files.map(|file| file.expect("it can be read").file_name().into_string());
            let mut found: Vec<_> = names.map(|name| name.expect("it is text")).collect();
            found.sort();
            let listed: Vec<_> = listed.iter().map(|(name, _)| format!("{name}.sql")).collect();
            assert_eq!(listed, found);
        }
    }

    #[test]
    fn a_database_of_an_earlier_version_knows_them_by_these_checksums() {
        let first = |migrator: &Migrator| {
            let migration = migrator.iter().next().expect("there are some");
            let bytes = migration.checksum.iter().take(6).map(|byte| format!("{byte:02x}"));
            (migration.version, migration.description.to_string(), bytes.collect::<String>())
        };
        assert_eq!(first(&POSTGRES), (1, "create shop".into(), "be3968d52488".into()));
        assert_eq!(first(&SQLITE), (1, "create shop".into(), "9b68b821e58b".into()));
    }
}
