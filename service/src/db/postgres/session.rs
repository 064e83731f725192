//! Sessions, and what is set in them: the server's defaults may have been changed, and are nothing to rely
//! on.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Error, Row as _};
use tokio::time::timeout;

use super::servers::servers;
use super::{is_starting, no_answer};
use crate::config::{ConfigError, StoreSection, address_of};

/// How to make a connection, and what to set in its session. Clones know together which server is the
/// primary.
#[derive(Clone)]
pub(crate) struct SessionSettings {
    /// At least one.
    servers: Arc<[PgConnectOptions]>,
    /// The one that was the primary when a connection was made last.
    primary: Arc<AtomicUsize>,
    /// How long a server may take to be connected to: of several, each has a part of the time.
    patience: Duration,
    /// How long it may take to answer.
    reply: Duration,
    password_file: Option<PathBuf>,
    /// The server and the database, without a password: for errors.
    address: String,
    /// Names and values of the server's settings, of which the last of a name counts.
    settings: Vec<(&'static str, String)>,
}

/// A commit is on the disk before it is confirmed. Who has demanded more (the standby's disk, or that it can
/// be read there) gets more. The last column of the last row says whether the server is a standby.
const DURABLE: &str = "select set_config(
    'synchronous_commit',
    case current_setting('synchronous_commit')
        when 'off' then 'on' else current_setting('synchronous_commit')
    end,
    false
), pg_is_in_recovery()";

/// What the server calls a statement that a time limit has ended. One that strikes at the very end of a
/// statement is told as a request of the user.
const CANCELED: &str = "57014";

/// How often the settings are tried.
const ATTEMPTS: usize = 10;

impl SessionSettings {
    /// A session with the database that the configuration names. Statements, waits for rows and forgotten
    /// transactions are ended by the server itself, should this process be gone or stopped.
    pub(crate) fn of(store: &StoreSection) -> Result<Self, ConfigError> {
        let servers = servers(&store.url)?;
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
        let count = u32::try_from(servers.len()).unwrap_or(u32::MAX).max(1);
        Ok(Self {
            servers: servers.into(),
            primary: Arc::default(),
            patience: store.timeout / count,
            reply: store.timeout,
            password_file: store.password_file.clone(),
            address: address_of(&store.url),
            settings,
        })
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

    /// What a server answers, if it does so within the store's time-out.
    pub(crate) async fn answered<T>(
        &self,
        asking: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        timeout(self.reply, asking).await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// Opens a connection to the primary and applies the settings, within the store's time-out. Of several
    /// servers, those that do not answer are given up in time for the others.
    pub(crate) async fn connect(&self) -> Result<PgConnection, Error> {
        let first = self.primary.load(Ordering::Relaxed);
        if let [server] = &*self.servers {
            return self.answered(self.connect_to(server)).await;
        }
        let mut refused = Vec::new();
        for number in (0..self.servers.len()).map(|next| (first + next) % self.servers.len()) {
            let server = &self.servers[number];
            let name = || format!("{}:{}", server.get_host(), server.get_port());
            match timeout(self.patience, self.connect_to(server)).await {
                Ok(Ok(connection)) => {
                    self.primary.store(number, Ordering::Relaxed);
                    return Ok(connection);
                }
                Ok(Err(error)) => refused.push((name(), error)),
                Err(_) => refused.push((name(), no_answer())),
            }
        }
        if let Some(starting) = refused.iter().position(|(_, error)| is_starting(error)) {
            return Err(refused.swap_remove(starting).1);
        }
        let all: Vec<_> = refused.iter().map(|(name, error)| format!("{name}: {error}")).collect();
        Err(Error::Io(io::Error::other(format!("none of the servers is the primary: {}", all.join("; ")))))
    }

    async fn connect_to(&self, server: &PgConnectOptions) -> Result<PgConnection, Error> {
        let connected = PgConnection::connect_with(&self.login(server).await?).await;
        let mut connection = connected.map_err(explained)?;
        self.prepare(&mut connection).await?;
        Ok(connection)
    }

    /// A connection to the primary that listens for notifications.
    pub(crate) async fn listener(&self) -> Result<PgListener, Error> {
        // Which of the servers is the primary is known after a connection to it.
        self.connect().await?.close().await?;
        let server = &self.servers[self.primary.load(Ordering::Relaxed)];
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(self.patience);
        let mut listener =
            PgListener::connect_with(&pool.connect_lazy_with(self.login(server).await?)).await?;
        listener.eager_reconnect(false);
        Ok(listener)
    }

    /// A server with the password that is good now.
    async fn login(&self, server: &PgConnectOptions) -> Result<PgConnectOptions, Error> {
        let Some(file) = &self.password_file else { return Ok(server.clone()) };
        let password = tokio::fs::read_to_string(file).await.map_err(Error::Io)?;
        Ok(server.clone().password(password.trim_end_matches(['\r', '\n'])))
    }

    /// Sets what is to be set, in one round trip, and refuses a standby.
    async fn prepare(&self, connection: &mut PgConnection) -> Result<(), Error> {
        // Names and values are this program's own.
        let set = self.settings.iter().map(|(name, value)| format!("set {name} = '{value}'; "));
        let all = set.collect::<String>() + DURABLE;
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let done = sqlx::raw_sql(AssertSqlSafe(all.clone())).fetch_all(&mut *connection).await;
            match done {
                // Until they are set, a time limit counts that somebody has given the database.
                Err(Error::Database(error)) if left > 0 && error.code().as_deref() == Some(CANCELED) => {}
                Err(error) => return Err(error),
                Ok(rows) => {
                    let is_standby = rows.last().ok_or(Error::RowNotFound)?.try_get(1)?;
                    let standby = || Error::Io(io::Error::other("it is a standby, which takes no orders"));
                    return if is_standby { Err(standby()) } else { Ok(()) };
                }
            }
        }
    }
}

/// An error of a connection, with the way out where it is known.
fn explained(error: Error) -> Error {
    match error {
        Error::Tls(error) => {
            let way_out = "sslrootcert=FILE in store.url names the authority that is trusted, and \
                           sslmode=disable lets everything go in clear";
            Error::Tls(format!("{error} ({way_out})").into())
        }
        error => {
            let is_refused = error
                .as_database_error()
                .is_some_and(|error| error.message().contains("unsupported startup parameter"));
            let way_out = "PgBouncer passes on what its ignore_startup_parameters names";
            if is_refused { Error::Protocol(format!("{error} ({way_out})")) } else { error }
        }
    }
}
