//! Sessions, and what is set in them: the server's defaults may have been changed, and are nothing to rely
//! on.

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Error};
use tokio::time::timeout;

use super::{FRESH, PING};
use crate::config::{ConfigError, StoreSection, address_of, is_ambiguous};

/// How to make a connection, and what to set in its session.
#[derive(Clone)]
pub(crate) struct SessionSettings {
    options: PgConnectOptions,
    /// The server and the database, without a password: for errors.
    address: String,
    /// Names and values of the server's settings, of which the last of a name counts.
    settings: Vec<(&'static str, String)>,
}

/// What a URL may have as parameters.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// A commit is on the disk before it is confirmed. Who has demanded more (the standby's disk, or that it can
/// be read there) gets more.
const DURABLE: &str = "select set_config(
    'synchronous_commit',
    case current_setting('synchronous_commit')
        when 'off' then 'on' else current_setting('synchronous_commit')
    end,
    false
)";

/// What the server calls a statement that a time limit has ended. One that strikes at the very end of a
/// statement is told as a request of the user.
const CANCELED: &str = "57014";

/// How often the settings are tried.
const ATTEMPTS: usize = 10;

impl SessionSettings {
    /// A session with the database that the configuration names. Statements, waits for rows and forgotten
    /// transactions are ended by the server itself, should this process be gone or stopped.
    pub(crate) fn of(store: &StoreSection) -> Result<Self, ConfigError> {
        let refuse = |why: &str| Err(ConfigError::new("store.url", why));
        if is_ambiguous(&store.url) {
            return refuse("a user or password with /, ? or # in it has to be percent-encoded");
        }
        // What is not known would be ignored, and logged with its value.
        let parameters = store.url.split_once('?').map_or("", |(_, parameters)| parameters).split('&');
        let is_known = |parameter: &str| {
            let name = parameter.split('=').next().unwrap_or_default();
            parameter.is_empty() || PARAMETERS.contains(&name) || name.starts_with("options[")
        };
        if !parameters.into_iter().all(is_known) {
            return refuse(&format!("has an unknown parameter; there are {}", PARAMETERS.join(", ")));
        }
        let refuse = |error: Error| ConfigError::new("store.url", error.to_string());
        let options: PgConnectOptions = store.url.parse().map_err(refuse)?;
        let limit = store.timeout.as_millis().to_string();
        let settings = vec![
            // What a statement sees is what was committed until it began; the guard finds the rest.
            ("default_transaction_isolation", "read committed".into()),
            ("default_transaction_read_only", "off".into()),
            ("default_transaction_deferrable", "off".into()),
            ("lock_timeout", "0".into()),
            ("statement_timeout", limit.clone()),
            ("idle_in_transaction_session_timeout", limit),
        ];
        let address = address_of(&store.url);
        Ok(Self { options: options.application_name("order-service"), address, settings })
    }

    /// What it connects to, without a password.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The same with more settings, which win.
    pub(crate) fn with<const N: usize>(mut self, settings: [(&'static str, &str); N]) -> Self {
        self.settings.extend(settings.map(|(name, value)| (name, value.to_owned())));
        self
    }

    /// Opens a connection and applies the settings.
    pub(crate) async fn connect(&self) -> Result<PgConnection, Error> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        self.prepare(&mut connection).await?;
        Ok(connection)
    }

    /// A pool of sqlx' own, of one connection.
    pub(crate) fn pool(&self, store: &StoreSection) -> PgPool {
        let session = self.clone();
        PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(store.timeout)
            // A connection that was good a moment ago is not asked again, which would cost a round trip each
            // time.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for >= FRESH {
                        timeout(PING, connection.ping()).await.map_err(|_| Error::PoolTimedOut)??;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move { session.prepare(connection).await })
            })
            .connect_lazy_with(self.options.clone())
    }

    /// Sets what is to be set, in one round trip.
    async fn prepare(&self, connection: &mut PgConnection) -> Result<(), Error> {
        // Names and values are this program's own.
        let set = self.settings.iter().map(|(name, value)| format!("set {name} = '{value}'; "));
        let all = set.collect::<String>() + DURABLE;
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let done = sqlx::raw_sql(AssertSqlSafe(all.clone())).execute(&mut *connection).await;
            match done {
                // Until they are set, a time limit counts that somebody has given the database.
                Err(Error::Database(error)) if left > 0 && error.code().as_deref() == Some(CANCELED) => {}
                done => return done.map(drop),
            }
        }
    }
}
