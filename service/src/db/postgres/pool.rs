//! Connections that are used again. They cost nothing when they are given back, and a question only where
//! they were idle for a while; whoever does not say that a connection is in order when it is done has it
//! closed.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult};
use rand::RngExt as _;
use sqlx::postgres::{PgArguments, PgConnection, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{Connection as _, Error};
use tokio::time::{Instant, timeout};

use super::{FRESH, PING, SessionSettings, is_definite, is_outdated, is_read_only, is_starting, no_answer};

/// Connections to one database. Clones share them.
#[derive(Clone)]
pub(crate) struct Pool {
    connections: managed::Pool<Manager>,
    reply: Duration,
}

struct Manager {
    session: SessionSettings,
    /// When a connection was found dead: those that were not used since may be dead as well.
    found_dead: Mutex<Option<Instant>>,
    /// How many were made.
    made: AtomicU64,
}

impl Manager {
    /// Notes that a connection is dead, so that whoever comes next need not find it out for each other one.
    fn is_dead(&self) {
        *self.found_dead() = Some(Instant::now());
    }

    fn found_dead(&self) -> MutexGuard<'_, Option<Instant>> {
        self.found_dead.lock().expect("nothing panics while it holds this")
    }
}

/// A connection, and when it was last given back.
struct Idle {
    connection: PgConnection,
    /// No other connection has this number, nor ever had it.
    number: u64,
    since: Instant,
}

impl managed::Manager for Manager {
    type Type = Idle;
    type Error = Error;

    async fn create(&self) -> Result<Idle, Error> {
        loop {
            match self.session.connect().await {
                Ok(connection) => {
                    let number = self.made.fetch_add(1, Ordering::Relaxed);
                    return Ok(Idle { connection, number, since: Instant::now() });
                }
                // It is on its way: whoever waits for a connection waits for that, and does not ask all the
                // time.
                Err(error) if is_starting(&error) => {
                    let pause = rand::rng().random_range(50..100);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn recycle(&self, idle: &mut Idle, _: &Metrics) -> RecycleResult<Error> {
        if idle.since.elapsed() < FRESH {
            return Ok(());
        }
        if self.found_dead().is_some_and(|found| idle.since <= found) {
            return Err(RecycleError::message("another connection of its time is dead"));
        }
        let Ok(answer) = timeout(PING, idle.connection.ping()).await else {
            self.is_dead();
            return Err(RecycleError::message("no answer in time"));
        };
        answer.map_err(RecycleError::Backend)
    }
}

/// How much longer than the server a statement is waited for, until its connection is taken for dead.
const REPLY: Duration = Duration::from_millis(500);

impl Pool {
    /// A pool of at most so many connections, none of which is made before it is needed. One is waited for no
    /// longer than `wait`, and may take as long to be made.
    pub(crate) fn new(session: SessionSettings, connections: usize, wait: Duration) -> Self {
        let pool = managed::Pool::builder(Manager {
            session,
            found_dead: Mutex::default(),
            made: AtomicU64::new(0),
        })
        .max_size(connections)
        // The latest first: under little load few connections are used, and those are warm.
        .queue_mode(QueueMode::Lifo)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(wait))
        .create_timeout(Some(wait))
        .build()
        .expect("there is a runtime for the time-outs");
        Self { connections: pool, reply: wait + REPLY }
    }

    /// A connection that is alive, as far as is known.
    pub(crate) async fn get(&self) -> Result<Connection, Error> {
        match self.connections.get().await {
            Ok(object) => Ok(Connection(Some(object))),
            Err(PoolError::Backend(error)) => Err(error),
            Err(PoolError::Timeout(_)) => Err(Error::PoolTimedOut),
            Err(PoolError::Closed) => Err(Error::PoolClosed),
            Err(error) => Err(Error::Configuration(error.to_string().into())),
        }
    }

    /// How long a reply is waited for, until its connection is taken for dead. The server ends a statement
    /// earlier, if it can be reached.
    pub(crate) fn reply(&self) -> Duration {
        self.reply
    }

    /// The rows of one statement.
    pub(crate) async fn fetch(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, Error> {
        let mut connection = self.get().await?;
        match timeout(self.reply, query.fetch_all(&mut *connection)).await {
            Ok(rows) => connection.finish(rows),
            Err(_) => Err(connection.abandon()),
        }
    }

    /// Ends all connections, those in use when they are given back.
    pub(crate) fn close(&self) {
        self.connections.close();
    }
}

/// A connection in use. Its drop closes it, since it is not known in what state it is; so does an error that
/// is not the statement's alone.
pub(crate) struct Connection(Option<Object<Manager>>);

impl Connection {
    /// Its number among those of the pool: no other has it, nor ever had it. One connection is one session.
    pub(crate) fn number(&self) -> u64 {
        self.idle().number
    }

    fn idle(&self) -> &Idle {
        self.0.as_ref().expect("it is in use until it is given back")
    }

    /// Gives the connection back after a statement with this result, or closes it if that says that it is
    /// broken.
    pub(crate) fn finish<T>(mut self, result: Result<T, Error>) -> Result<T, Error> {
        if result.as_ref().is_err_and(is_read_only) {
            // So are the others, to a server that is the primary no more.
            self.abandon();
            return result;
        }
        if result.as_ref().map_or_else(|error| is_definite(error) && !is_outdated(error), |_| true)
            && let Some(mut object) = self.0.take()
        {
            object.since = Instant::now();
        }
        result
    }

    /// Closes the connection, whose server has not answered in time, and says so. Those that were idle
    /// meanwhile are not relied on any more: what has come over one may have come over all.
    pub(crate) fn abandon(self) -> Error {
        if let Some(pool) = self.0.as_ref().and_then(Object::pool) {
            pool.manager().is_dead();
        }
        no_answer()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

impl Deref for Connection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.idle().connection
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0.as_mut().expect("it is in use until it is given back").connection
    }
}
