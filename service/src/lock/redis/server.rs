//! One Redis server: the connection to it, and what every lock asks of a server alike.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{self, ConnectionInfo, PushInfo, PushKind, RedisResult, Value};
use deadpool_redis::{Manager, Pool, Runtime};
use prometheus_client::metrics::counter::Counter;
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::dialer::{Dialed, Dialer};
use super::protocol::{COMMAND, key_of, other};
use super::session::{Loss, Session};

/// How long to wait before the next attempt to connect, in milliseconds.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 50..=100;

/// After so many attempts, another one is made after a longer pause.
const MANY: u64 = 20;

/// How often the sentinels are asked whether there is another primary, which the old one need not know of.
const SENTINELS_ASKED: Duration = Duration::from_secs(2);

/// A server that is connected to, and connected to again whenever the connection is lost: another one may be
/// reached then.
pub(super) struct RedisServer {
    states: watch::Receiver<State>,
    /// How many more attempts to connect a request waits for.
    retries: u64,
    task: JoinHandle<()>,
}

enum State {
    /// A connection is being made.
    Connecting,
    /// So many attempts have failed, the last one with this error; another one follows.
    Failed(u64, redis::RedisError),
    Connected(Arc<Session>),
}

/// What a server says on its own.
pub(super) enum Announcement<'a> {
    /// That a lock has been released.
    Released(&'a str),
    /// That others may have been missed.
    Interrupted,
}

/// Who is told what a server says.
type Announced = Arc<dyn Fn(Announcement<'_>) + Send + Sync>;

/// Who has a lock on a server and who waits for it, by their owners.
#[derive(Debug, Default)]
pub(super) struct ServerState {
    /// The writer: its owner, its replica and its token.
    pub(super) writer: Option<(String, Option<String>, i64)>,
    pub(super) readers: Vec<String>,
    pub(super) waiting: Vec<String>,
}

impl RedisServer {
    /// Connects to a server, which need not be there: a request waits for so many more attempts than one.
    /// `announced` is told what the server says. The drop ends the connection.
    pub(super) fn new(
        dialer: Dialer,
        retries: u64,
        round_trips: Counter,
        announced: impl Fn(Announcement<'_>) + Send + Sync + 'static,
    ) -> Self {
        let (sender, states) = watch::channel(State::Connecting);
        let task = tokio::spawn(keep_connected(sender, dialer, round_trips, Arc::new(announced)));
        Self { states, retries, task }
    }

    /// The connection, as soon as there is one, which is subscribed to announcements. Fails with the reason
    /// when the attempts have failed that a request waits for.
    pub(super) async fn session(&self) -> RedisResult<Arc<Session>> {
        if let State::Connected(session) = &*self.states.borrow()
            && !session.loss.is_noticed()
        {
            return Ok(Arc::clone(session));
        }
        let mut states = self.states.clone();
        let mut most = None;
        loop {
            match &*states.borrow_and_update() {
                State::Connected(session) if !session.loss.is_noticed() => return Ok(Arc::clone(session)),
                // It is made, or about to be.
                State::Connecting | State::Connected(_) => {}
                State::Failed(failed, error) => {
                    // Of one that is pausing, the last failure counts.
                    let most = most.get_or_insert(failed + self.retries);
                    if *failed >= *most {
                        return Err(error.clone());
                    }
                }
            }
            states.changed().await.map_err(other)?;
        }
    }

    /// Who has the lock on a key there, and who waits.
    pub(super) async fn state(&self, key: &str) -> RedisResult<ServerState> {
        let mut connection = self.session().await?.pool.get().await.map_err(other)?;
        let [lock, readers, waiting] =
            ["lock", "readers", "waiting"].map(|part| key_of!(key, part).to_string());
        let ((owner, holder, token), readers, waiting): (WriterFields, Vec<String>, Vec<String>) =
            redis::pipe()
                .cmd("HMGET")
                .arg(lock)
                .arg(&["owner", "holder", "token"])
                .cmd("ZRANGE")
                .arg(readers)
                .arg(0)
                .arg(-1)
                .cmd("ZRANGE")
                .arg(waiting)
                .arg(0)
                .arg(-1)
                .query_async(&mut connection)
                .await?;
        let writer = owner.zip(token).map(|(owner, token)| (owner, holder, token));
        Ok(ServerState { writer, readers, waiting })
    }

    /// Ends the connections for everything but the lock.
    pub(super) fn close(&self) {
        if let State::Connected(session) = &*self.states.borrow() {
            session.pool.close();
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is kept of a writer: its owner, its replica and its token.
type WriterFields = (Option<String>, Option<String>, Option<i64>);

/// Connects again and again, for as long as the server is wanted.
async fn keep_connected(
    states: watch::Sender<State>,
    dialer: Dialer,
    round_trips: Counter,
    announced: Announced,
) {
    let mut failed = 0;
    for number in 0.. {
        let loss = Arc::<Loss>::default();
        let dialed = dialer.dial(listener(&loss, &announced)).await;
        let dialed = dialed.and_then(|dialed| Ok((pool(&dialed.info)?, dialed)));
        let (pool, dialed) = match dialed {
            Ok(dialed) => dialed,
            Err(error) => {
                failed += 1;
                states.send_replace(State::Failed(failed, error));
                let pause = rand::rng().random_range(PAUSE_MS);
                sleep(Duration::from_millis(if failed < MANY { pause } else { pause * 4 })).await;
                continue;
            }
        };
        failed = 0;
        warn(&dialed);
        let session = Session::new(number, dialed, pool, loss, round_trips.clone());
        states.send_replace(State::Connected(Arc::clone(&session)));
        // What was announced before is missed.
        announced(Announcement::Interrupted);
        let connected = Instant::now();
        until_lost(&session, &dialer).await;
        session.pool.close();
        states.send_replace(State::Connecting);
        announced(Announcement::Interrupted);
        // One that is lost at once may be lost again and again.
        if connected.elapsed() < Duration::from_secs(1) {
            let pause = rand::rng().random_range(PAUSE_MS);
            sleep(Duration::from_millis(pause)).await;
        }
    }
}

/// Says what is wrong with a server, if something is.
fn warn(dialed: &Dialed) {
    if let Some(risk) = &dialed.identity.risk {
        tracing::warn!(server = %dialed.info.addr(), "{risk}");
    }
}

/// Waits until the connection is given up, by whoever notices, or since sentinels name another primary.
async fn until_lost(session: &Session, dialer: &Dialer) {
    let pause = if dialer.has_sentinels() { SENTINELS_ASKED } else { Duration::MAX };
    while timeout(pause, session.loss.noticed()).await.is_err() {
        if dialer.is_replaced(session.info.addr()).await {
            session.loss.notice();
        }
    }
}

/// What passes on what a server says over one connection.
fn listener(
    loss: &Arc<Loss>,
    announced: &Announced,
) -> impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static {
    let (loss, announced) = (Arc::clone(loss), Arc::clone(announced));
    move |push| {
        match (&push.kind, push.data.as_slice()) {
            (PushKind::Disconnection, _) => loss.notice(),
            (PushKind::Message, [_, Value::BulkString(text)]) => {
                announced(Announcement::Released(&String::from_utf8_lossy(text)));
            }
            _ => {}
        }
        Ok(())
    }
}

fn pool(info: &ConnectionInfo) -> RedisResult<Pool> {
    let pool = Pool::builder(Manager::new(info.clone())?).max_size(2).runtime(Runtime::Tokio1);
    let pool = pool.wait_timeout(Some(COMMAND)).create_timeout(Some(COMMAND)).recycle_timeout(Some(COMMAND));
    pool.build().map_err(other)
}
