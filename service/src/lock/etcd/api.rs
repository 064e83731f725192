//! A client of etcd's JSON interface, as far as the lock needs it.

mod access;
mod message;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

pub(super) use self::access::Access;
use self::access::{HttpClient, Login};
#[cfg(test)]
pub(super) use self::message::Text;
use self::message::{Authenticate, Grant, LeaseAnswer, LeaseId, RangeAnswer, Refusal, Streamed};
pub(super) use self::message::{Compare, Header, KeyValue, Number, Op, Range, Term, Txn, Watch};
use self::message::{Token, TxnAnswer, WatchAnswer};

/// How long one request may take at the most.
pub(super) const REQUEST: Duration = Duration::from_secs(2);

/// A request that is given up unanswered after so long says that its server does not answer.
const SLOW: Duration = Duration::from_millis(500);

/// How many requests may be in flight, each on a connection of its own.
const IN_FLIGHT: usize = 64;

/// gRPC's code of what is wrong in the request, and never right.
const INVALID_ARGUMENT: i32 = 3;

/// gRPC's code of what is not there.
const NOT_FOUND: i32 = 5;

/// gRPC's code of what others may do.
const PERMISSION_DENIED: i32 = 7;

/// gRPC's code of what cannot be done as things are.
const FAILED_PRECONDITION: i32 = 9;

/// gRPC's code of what cannot be done just now, as without a leader.
const UNAVAILABLE: i32 = 14;

/// gRPC's code of who is not known.
const UNAUTHENTICATED: i32 = 16;

/// A client of one server, or of the next one of its cluster when that does not answer, with a pool of
/// connections.
pub(super) struct Api {
    access: Arc<Access>,
    /// Which server it is.
    current: AtomicUsize,
    /// `None` when it is closed.
    client: Mutex<Option<HttpClient>>,
    /// How long one request may take.
    request: Duration,
    in_flight: Semaphore,
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// The server refused it.
    #[error("{message}")]
    Refused {
        /// gRPC's code.
        code: i32,
        message: String,
    },
    /// Its answer did not come. It may be carried out all the same.
    #[error("{0}")]
    Connection(String),
    #[error("no answer in time")]
    TimedOut,
    #[error("an answer that cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the lock was shut down")]
    Closed,
}

impl ApiError {
    /// Whether the same request may be answered soon: over another connection, or by another leader.
    pub(super) fn may_heal(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::TimedOut | Self::Refused { code: UNAVAILABLE, .. })
    }

    /// Whether the lease is not there that was named.
    pub(super) fn is_no_lease(&self) -> bool {
        self.is(NOT_FOUND, "lease not found")
    }

    /// Whether the token is not good any more that was sent.
    fn is_stale_token(&self) -> bool {
        self.is(UNAUTHENTICATED, "") || self.is(INVALID_ARGUMENT, "revision of auth store is old")
    }

    /// Whether the user may not do that, or there is none.
    fn is_denied(&self) -> bool {
        self.is(PERMISSION_DENIED, "") || self.is(INVALID_ARGUMENT, "user name is empty")
    }

    fn is(&self, number: i32, what: &str) -> bool {
        matches!(self, Self::Refused { code, message } if *code == number && message.contains(what))
    }
}

impl From<hyper::Error> for ApiError {
    fn from(error: hyper::Error) -> Self {
        Self::Connection(root_of(&error))
    }
}

impl From<Refusal> for ApiError {
    fn from(Refusal { code, message }: Refusal) -> Self {
        Self::Refused { code, message }
    }
}

/// The first cause of an error; what it caused says no more.
fn root_of(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

impl Api {
    /// A client of these servers, each of whose requests may take so long. Nothing is connected yet.
    pub(super) fn new(access: &Arc<Access>, request: Duration) -> Self {
        Self {
            access: Arc::clone(access),
            current: AtomicUsize::new(0),
            client: Mutex::new(Some(access.client())),
            request,
            in_flight: Semaphore::new(IN_FLIGHT),
        }
    }

    /// Grants a lease for so many seconds; answers for how many, or `None` where there is one of this number.
    pub(super) async fn grant(&self, lease: i64, seconds: u64) -> Result<Option<u64>, ApiError> {
        let grant = Grant { lease: Number(lease), seconds };
        match self.call::<LeaseAnswer>("lease/grant", &json(&grant)).await {
            Ok(granted) => Ok(Some(granted.seconds.0.unsigned_abs())),
            Err(error) if error.is(FAILED_PRECONDITION, "lease already exists") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Extends leases. For each, in which term of the cluster's leader, or `None` where it is not there.
    ///
    /// A leader extends them by itself, also one that has been deposed and does not know it yet. Whoever
    /// counts on it has to see that an answer of the cluster, to what was asked no earlier, is of the same
    /// term: then the lease was extended by its leader, or the next one has given it all of its time.
    pub(super) async fn keep_alive(&self, leases: &[i64]) -> Result<Vec<Option<Term>>, ApiError> {
        // One request for each in a stream, as in the answer.
        let asked = leases.iter().flat_map(|lease| json(&LeaseId { lease: Number(*lease) }));
        let answers = self.ask("lease/keepalive", asked.collect()).await?;
        let mut kept = Vec::with_capacity(leases.len());
        for answer in serde_json::Deserializer::from_slice(&answers).into_iter::<Streamed<LeaseAnswer>>() {
            let LeaseAnswer { header, seconds } = answer?.result()?;
            kept.push((seconds.0 > 0).then_some(header.term));
        }
        match kept.len() == leases.len() {
            true => Ok(kept),
            false => Err(ApiError::Connection("the stream ended too early".into())),
        }
    }

    /// Ends a lease, and with it the keys that are on it. One that is not there has ended.
    pub(super) async fn revoke(&self, lease: i64) -> Result<(), ApiError> {
        match self.ask("lease/revoke", json(&LeaseId { lease: Number(lease) })).await {
            Err(error) if error.is_no_lease() => Ok(()),
            revoked => revoked.map(drop),
        }
    }

    /// Reads what the cluster agrees on, with everything that was written before.
    pub(super) async fn range(&self, range: &Range) -> Result<RangeAnswer, ApiError> {
        self.call("kv/range", &json(range)).await
    }

    /// Carries out a transaction.
    pub(super) async fn txn(&self, txn: &Txn) -> Result<TxnAnswer, ApiError> {
        self.call("kv/txn", &json(txn)).await
    }

    /// Opens the stream of what happens to keys.
    pub(super) async fn watch(&self, watch: &Watch) -> Result<WatchStream, ApiError> {
        let response = self.try_server(async |server| self.post(server, "watch", json(watch)).await).await?;
        Ok(WatchStream { body: response.into_body(), read: Vec::new() })
    }

    /// Ends all connections that are not in use, and lets no other begin.
    pub(super) fn close(&self) {
        self.client().take();
    }

    async fn call<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, ApiError> {
        Ok(serde_json::from_slice(&self.ask(path, body.to_vec()).await?)?)
    }

    async fn ask(&self, path: &str, body: Vec<u8>) -> Result<Bytes, ApiError> {
        let _permit = self.in_flight.acquire().await.map_err(|_| ApiError::Closed)?;
        self.try_server(async |server| {
            let response = self.post(server, path, body).await?;
            Ok(response.into_body().collect().await?.to_bytes())
        })
        .await
    }

    /// Asks one server. Where that may heal what fails, the next one is asked the next time.
    async fn try_server<T>(
        &self,
        asked: impl AsyncFnOnce(usize) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let server = self.current.load(Ordering::Relaxed);
        let mut pending = Pending { api: self, server, since: Instant::now(), is_answered: false };
        let answer = timeout(self.request, asked(server)).await.map_err(|_| ApiError::TimedOut)?;
        pending.is_answered = true;
        if answer.as_ref().is_err_and(ApiError::may_heal) {
            self.turn_from(server);
        }
        answer
    }

    /// Has the next server asked from now on.
    fn turn_from(&self, server: usize) {
        let next = (server + 1) % self.access.bases.len();
        // An error says that another has turned to the next one.
        self.current.compare_exchange(server, next, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    fn client(&self) -> MutexGuard<'_, Option<HttpClient>> {
        self.client.lock().expect("nothing panics while it holds this")
    }

    async fn post(&self, server: usize, path: &str, body: Vec<u8>) -> Result<Response<Incoming>, ApiError> {
        let body = Bytes::from(body);
        let Some(login) = &self.access.login else { return self.send(server, path, body, None).await };
        let token = self.token(server, login, None).await?;
        match self.send(server, path, body.clone(), Some(&token)).await {
            Err(error) if error.is_stale_token() => {
                let token = self.token(server, login, Some(&token)).await?;
                self.send(server, path, body, Some(&token)).await
            }
            sent => sent,
        }
    }

    /// The token of the user, another one than the one that is stale; asks for it where there is none.
    async fn token(
        &self,
        server: usize,
        login: &Login,
        stale: Option<&Arc<str>>,
    ) -> Result<Arc<str>, ApiError> {
        // Others wait here: the server takes its time over a password.
        let mut current = login.token.lock().await;
        if let Some(token) = current.as_ref().filter(|token| Some(*token) != stale) {
            return Ok(Arc::clone(token));
        }
        *current = None;
        let body = json(&Authenticate { name: &login.user, password: login.password.reveal() });
        let answer = self.send(server, "auth/authenticate", body.into(), None).await?;
        let Token { token } = serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?;
        Ok(Arc::clone(current.insert(token.into())))
    }

    async fn send(
        &self,
        server: usize,
        path: &str,
        body: Bytes,
        token: Option<&str>,
    ) -> Result<Response<Incoming>, ApiError> {
        let client = self.client().clone().ok_or(ApiError::Closed)?;
        let mut request = Request::post(format!("{}/{path}", self.access.bases[server]));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| ApiError::Connection(error.to_string()))?;
        let response = client.request(request).await;
        let response = response.map_err(|error| ApiError::Connection(root_of(&error)))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let unknown = |_| {
            let text = String::from_utf8_lossy(&body);
            Refusal { code: 0, message: format!("{status}: {}", text.trim()) }
        };
        Err(serde_json::from_slice(&body).unwrap_or_else(unknown).into())
    }
}

/// A request without an answer; its drop gives it up.
struct Pending<'a> {
    api: &'a Api,
    server: usize,
    since: Instant,
    is_answered: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.is_answered || self.since.elapsed() < SLOW {
            return;
        }
        self.api.turn_from(self.server);
        if let Some(client) = &mut *self.api.client() {
            // The others of its connections may be dead as well, each of which would cost a time-out.
            *client = self.api.access.client();
        }
    }
}

/// What is asked can always be written.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("its keys are texts")
}

/// What happens to keys, as it comes.
pub(super) struct WatchStream {
    body: Incoming,
    read: Vec<u8>,
}

impl WatchStream {
    /// What comes next; an error where the stream has ended. May be dropped: nothing is lost then.
    pub(super) async fn next(&mut self) -> Result<WatchAnswer, ApiError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.read.drain(..=end).collect();
                return serde_json::from_slice::<Streamed<WatchAnswer>>(&line)?.result();
            }
            let frame = self.body.frame().await;
            let frame = frame.ok_or_else(|| ApiError::Connection("the stream has ended".into()))??;
            self.read.extend(frame.into_data().unwrap_or_default());
        }
    }
}
