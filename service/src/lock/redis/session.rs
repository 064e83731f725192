//! One connection to a server, from when it is ready until it is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use deadpool_redis::Pool;
use deadpool_redis::redis::aio::{ConnectionLike, MultiplexedConnection};
use deadpool_redis::redis::{Cmd, ConnectionInfo, Pipeline, RedisError, RedisFuture, RedisResult, Value};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dialer::{Dialed, Identity};
use super::protocol::{COMMAND, is_of_a_replica};

/// A connection to a server that could be written to when it was made.
///
/// What was learnt over one is not good for another: there may be another server. Whoever has one keeps it
/// for as long as one thing depends on another.
pub(super) struct Session {
    /// Which connection it is, since the start.
    pub(super) number: u64,
    /// For the lock, and for its messages.
    connection: MultiplexedConnection,
    /// For everything else, so that it never waits behind the lock.
    pub(super) pool: Pool,
    pub(super) info: ConnectionInfo,
    pub(super) identity: Identity,
    /// Since when requests have had no reply, if the last ones had none.
    silent_since: Mutex<Option<Instant>>,
    is_silent: AtomicBool,
    round_trips: Counter,
    pub(super) loss: Arc<Loss>,
}

/// Whether a connection is lost, which is noticed by whoever uses it, or by itself.
#[derive(Default)]
pub(super) struct Loss {
    is_lost: AtomicBool,
    noticed: Notify,
}

impl Loss {
    /// Gives the connection up: the next request goes over another.
    pub(super) fn notice(&self) {
        self.is_lost.store(true, Ordering::Release);
        self.noticed.notify_one();
    }

    pub(super) fn is_noticed(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// Returns when it is lost.
    pub(super) async fn noticed(&self) {
        while !self.is_noticed() {
            self.noticed.notified().await;
        }
    }
}

impl Session {
    pub(super) fn new(
        number: u64,
        dialed: Dialed,
        pool: Pool,
        loss: Arc<Loss>,
        round_trips: Counter,
    ) -> Arc<Self> {
        let Dialed { connection, info, identity } = dialed;
        let (silent_since, is_silent) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self {
            number,
            connection,
            pool,
            info,
            identity,
            silent_since,
            is_silent,
            round_trips,
            loss,
        })
    }

    /// The connection of the lock, for one request, which is counted: all go over one, in order.
    pub(super) fn request(self: &Arc<Self>) -> Request {
        self.round_trips.inc();
        Request(Arc::clone(self))
    }

    /// Notes that the answer to a request that was sent at this time is not waited for any more. A server
    /// that has not answered for long is left.
    pub(super) fn unheard(&self, sent: Instant) {
        let mut since = self.silent_since.lock().expect("nothing panics while it holds this");
        let since = *since.get_or_insert(sent);
        self.is_silent.store(true, Ordering::Release);
        // It may be busy, or gone without a word, with a kernel that takes whatever is sent.
        if since.elapsed() >= COMMAND * 2 {
            self.loss.notice();
        }
    }

    /// Notes what came of a request that was sent at this time.
    fn heard<'a>(&self, sent: Instant, error: Option<&RedisError>, values: impl Iterator<Item = &'a Value>) {
        match error {
            Some(error) if error.is_unrecoverable_error() => self.loss.notice(),
            Some(error) if error.is_timeout() => self.unheard(sent),
            Some(_) => {}
            None => {
                if self.is_silent.swap(false, Ordering::AcqRel) {
                    *self.silent_since.lock().expect("nothing panics while it holds this") = None;
                }
                let mut errors = values.filter_map(|value| match value {
                    Value::ServerError(error) => Some(error),
                    _ => None,
                });
                if errors.any(is_of_a_replica) {
                    self.loss.notice();
                }
            }
        }
    }
}

/// The connection of the lock, for one request.
pub(super) struct Request(Arc<Session>);

impl ConnectionLike for Request {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let sent = Instant::now();
            let result = self.0.connection.clone().send_packed_command(cmd).await;
            self.0.heard(sent, result.as_ref().err(), result.iter());
            result
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let sent = Instant::now();
            let result: RedisResult<Vec<Value>> =
                self.0.connection.clone().send_packed_commands(pipeline, offset, count).await;
            self.0.heard(sent, result.as_ref().err(), result.iter().flatten());
            result
        })
    }

    fn get_db(&self) -> i64 {
        self.0.connection.get_db()
    }
}
