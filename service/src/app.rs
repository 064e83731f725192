//! Builds the service from its configuration, and runs it until it is signalled to stop.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{OptionFuture, join, join_all};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::api::Info;
use crate::checkout::Checkout;
use crate::combine::{FlightLimits, Requests};
use crate::config::{Config, ConfigError};
use crate::http::server::ConnectionLimits;
use crate::http::{self, Access, AccessLog, AppState, Listener, RateLimit};
use crate::lock::{self, Generation, TokenGenerations};
use crate::readiness::{NotReady, Readiness};
use crate::store::{self, CommitError, OpenError, Store, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::otlp::{Exporter, Origin};
use crate::token::GenerationRequest;

/// How long a write and a lock may take at the start.
const FIRST: Duration = Duration::from_secs(5);

/// How long the releases of locks may take at the end.
const LOCK_SHUTDOWN: Duration = Duration::from_secs(2);

/// How long the store's connections may take at the end.
const STORE_SHUTDOWN: Duration = Duration::from_secs(2);

/// How long the export of the last traces may take at the end.
const EXPORT_SHUTDOWN: Duration = Duration::from_secs(2);

/// How many keys' generations are asked for in one statement, and how many statements may be in flight. One
/// may read a thousand orders of each key.
const GENERATIONS: FlightLimits = FlightLimits { flights: 4, jobs: 32 };

/// A replica of the service that listens and has not begun to answer.
pub struct App {
    listener: TcpListener,
    address: SocketAddr,
    /// Where the admin's calls are, if they have an address of their own.
    admin: Option<(TcpListener, SocketAddr)>,
    shared: Arc<AppState>,
    exporter: Option<Exporter>,
    limits: ConnectionLimits,
    rate: Option<Arc<RateLimit>>,
    /// How long a stop waits for the requests in flight.
    request_timeout: Duration,
    drain: Duration,
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration does not allow it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be opened.
    #[error("store.url: {0}")]
    Open(OpenError),
    /// The lock cannot be connected to.
    #[error(transparent)]
    Lock(#[from] lock::ConnectError),
    /// The catalogue cannot be written.
    #[error("catalog: {0}")]
    Catalog(CommitError),
    /// No order could be taken.
    #[error("no order could be taken: {0}")]
    NotReady(NotReady),
    /// The address cannot be listened on.
    #[error("{0}: cannot listen on {1}: {2}")]
    Listen(&'static str, SocketAddr, std::io::Error),
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Config(error) => Self::Config(error),
            error @ OpenError::Unavailable { .. } => Self::Open(error),
        }
    }
}

/// Whether an error, one of a chain, is that of a configuration, or of what it was given with: it would be
/// the same another time.
pub fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let of_config = StartError::is_of_config;
    error.is::<ConfigError>() || error.downcast_ref().is_some_and(of_config)
}

impl StartError {
    fn is_of_config(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Lock(lock::ConnectError::Config(_)))
    }
}

/// The runtime for a replica with this configuration. Fails when the system gives no threads.
pub fn runtime(config: &Config) -> std::io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = config.server.worker_threads.unwrap_or(processors.div_ceil(2));
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

impl App {
    /// Opens the store, connects the lock, creates the products of the catalogue and listens.
    pub async fn build(config: &Config) -> Result<Self, StartError> {
        if config.failpoints.any() {
            tracing::warn!("failpoints are set: this replica fails on purpose");
        }
        let metrics = Metrics::new(config.lock.strategy);
        let store = store::connect(&config.store).await?;
        let lock = lock::connect(config, token_generations(&store), &metrics).await?;
        for entry in &config.catalog {
            store.create_product(&entry.parse()?).await.map_err(StartError::Catalog)?;
        }
        for key in config.weak_tokens() {
            tracing::warn!("{key}: has less than 32 bytes, and this replica can be reached from elsewhere");
        }
        let (listener, address) = listen("server.listen", config.server.listen).await?;
        let admin = match config.admin.listen {
            Some(address) => Some(listen("admin.listen", address).await?),
            None => None,
        };
        let readiness =
            Readiness::new(Arc::clone(&store), Arc::clone(&lock), metrics.checkout.commits.clone());
        readiness.try_out(Instant::now() + FIRST).await.map_err(StartError::NotReady)?;
        let origin = Origin { replica: config.replica(), strategy: config.lock.strategy.as_str() };
        let exporter = Exporter::start(&config.telemetry, origin, &metrics.spans);
        let shared = AppState {
            readiness,
            info: info(config, store.kind()),
            lock: Arc::clone(&lock),
            checkout: Checkout::new(config, Arc::clone(&store), lock, &metrics),
            store,
            lock_wait: config.lock.wait,
            request_timeout: config.server.request_timeout,
            access: Access::new(config),
            locked_reads: Semaphore::new(config.server.locked_reads),
            metrics,
            tracer: exporter.as_ref().map(|exporter| Arc::clone(exporter.tracer())),
            access_log: AccessLog::new(&config.log),
            stopping: CancellationToken::new(),
        };
        let (request_timeout, drain) = (config.server.request_timeout, config.server.drain);
        let limits = connection_limits(config);
        let rate = config.server.rate().map(|(rate, burst)| Arc::new(RateLimit::new(rate, burst)));
        let shared = Arc::new(shared);
        Ok(Self { listener, address, admin, shared, exporter, limits, rate, request_timeout, drain })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address at which the admin's calls are, if they have one of their own.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    /// What this replica is.
    pub fn info(&self) -> &Info {
        &self.shared.info
    }

    /// Answers requests until `stop` completes, and for `server.drain` after it; then takes no more, finishes
    /// what waits, releases the locks and returns. What cannot be finished within the request time-out is
    /// refused as `shutting-down`.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            shared.stopping.run_until_cancelled(shared.checkout.expire_unpaid()).await;
        });
        let drained = CancellationToken::new();
        let part = if self.admin.is_some() { Listener::Public } else { Listener::Only };
        let router = http::router(Arc::clone(&self.shared), part);
        let accepting = http::server::accept(self.listener, router, self.limits, self.rate, drained.clone());
        let for_admin = OptionFuture::from(self.admin.map(|(listener, _)| {
            let router = http::router(Arc::clone(&self.shared), Listener::Admin);
            let limits = ConnectionLimits { connections: ADMIN_CONNECTIONS, ..self.limits };
            http::server::accept(listener, router, limits, None, drained.clone())
        }));
        let (connections, for_admin, ()) = tokio::join!(accepting, for_admin, async {
            stop.await;
            tracing::info!("stopping");
            self.shared.stopping.cancel();
            tokio::time::sleep(self.drain).await;
            drained.cancel();
        });
        let deadline = Instant::now() + self.request_timeout;
        let ended = join(connections.shutdown(), OptionFuture::from(for_admin.map(|all| all.shutdown())));
        let (_, in_time) = tokio::join!(
            self.shared.checkout.close(deadline),
            timeout_at(deadline + Duration::from_secs(1), ended)
        );
        if in_time.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        if timeout(LOCK_SHUTDOWN, self.shared.lock.shutdown()).await.is_err() {
            tracing::warn!("some locks could not be released and are left to their expiry");
        }
        if timeout(STORE_SHUTDOWN, self.shared.store.close()).await.is_err() {
            tracing::warn!("the store did not close in time");
        }
        if let Some(exporter) = self.exporter {
            exporter.close(EXPORT_SHUTDOWN).await;
        }
    }
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let refuse = |error| StartError::Listen(key, address, error);
    let listener = TcpListener::bind(address).await.map_err(refuse)?;
    let bound = listener.local_addr().map_err(refuse)?;
    Ok((listener, bound))
}

/// How many file handles are kept for what is no client's connection: those to the store and the lock, the
/// store's files, the log.
const OWN_HANDLES: u64 = 128;

/// The most connections at the same time at the admin's address, if there is one.
const ADMIN_CONNECTIONS: usize = 32;

/// What connections may take. Asks for as many file handles as the process may have, and leaves enough of
/// them for all else.
fn connection_limits(config: &Config) -> ConnectionLimits {
    let server = &config.server;
    let admin = if config.admin.listen.is_some() { ADMIN_CONNECTIONS as u64 } else { 0 };
    let most = usize::try_from(file_handles().saturating_sub(OWN_HANDLES + admin)).unwrap_or(usize::MAX);
    let connections = server.max_connections.min(most.max(1));
    if connections < server.max_connections {
        tracing::warn!(
            connections,
            "server.max_connections: there are file handles for {connections} connections only (ulimit -n)"
        );
    }
    ConnectionLimits {
        connections,
        keep_alive: server.keep_alive,
        head: server.head_timeout,
        write: server.write_timeout,
    }
}

/// How many file handles there are.
#[cfg(unix)]
fn file_handles() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    getrlimit(Resource::RLIMIT_NOFILE).map_or(hard, |(soft, _)| soft)
}

/// How many file handles there are.
#[cfg(not(unix))]
fn file_handles() -> u64 {
    u64::MAX
}

/// Where a lock goes on counting whose backend has lost its data: in a generation that is kept in `store`.
/// What is asked for at the same time goes into one statement.
pub fn token_generations(store: &Arc<dyn Store>) -> Arc<dyn TokenGenerations> {
    struct Kept(Requests<GenerationRequest, Result<Generation, StoreError>, StoreError>);

    #[async_trait]
    impl TokenGenerations for Kept {
        async fn generation(&self, key: &str, server: &str, lost: Option<i64>) -> Result<Generation, String> {
            let request = GenerationRequest { key: key.into(), server: server.into(), lost };
            self.0.submit(request).await.flatten().map_err(|error| error.to_string())
        }
    }

    let store = Arc::clone(store);
    Arc::new(Kept(Requests::new(GENERATIONS, move |wanted| {
        let store = Arc::clone(&store);
        async move { Ok(generations(&*store, wanted).await) }
    })))
}

/// The generations that are wanted, also where several want that of one key: one after the other then.
async fn generations(
    store: &dyn Store,
    wanted: Vec<GenerationRequest>,
) -> Vec<Result<Generation, StoreError>> {
    let mut told = vec![None; wanted.len()];
    let mut left: Vec<_> = wanted.into_iter().enumerate().collect();
    while !left.is_empty() {
        let mut keys = HashSet::new();
        let (now, later): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(_, request)| keys.insert(request.key.clone()));
        let (places, requests): (Vec<_>, Vec<_>) = now.into_iter().unzip();
        for (place, generation) in places.into_iter().zip(together_or_alone(store, &requests).await) {
            told[place] = Some(generation);
        }
        left = later;
    }
    told.into_iter().map(|told| told.expect("each has been asked for")).collect()
}

/// Asks for all of them together; where that fails, perhaps for being too much at once, for each alone.
async fn together_or_alone(
    store: &dyn Store,
    wanted: &[GenerationRequest],
) -> Vec<Result<Generation, StoreError>> {
    match store.token_generations(wanted).await {
        Ok(generations) => generations.into_iter().map(Ok).collect(),
        Err(error) if wanted.len() == 1 => vec![Err(error)],
        Err(_) => {
            let alone = async |wanted: &GenerationRequest| {
                let generations = store.token_generations(std::slice::from_ref(wanted)).await?;
                Ok(generations[0])
            };
            join_all(wanted.iter().map(alone)).await
        }
    }
}

/// Completes when the process is signalled to stop, by SIGTERM or Ctrl-C. From the call on, neither ends the
/// process by itself: to be called before the process says that it is there.
#[cfg(unix)]
pub fn stop_signal() -> impl Future<Output = ()> + Send {
    use tokio::signal::unix::{Signal, SignalKind, signal};
    async fn received(signal: std::io::Result<Signal>) {
        match signal {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    }
    let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async move {
        tokio::select! {
            () = received(interrupt) => {}
            () = received(terminate) => {}
        }
    }
}

/// Completes when the process is signalled to stop, by Ctrl-C.
#[cfg(not(unix))]
pub fn stop_signal() -> impl Future<Output = ()> + Send {
    async { drop(tokio::signal::ctrl_c().await) }
}

/// What does not change while the replica runs.
fn info(config: &Config, store: &str) -> Info {
    Info {
        version: env!("CARGO_PKG_VERSION").into(),
        commit: option_env!("STOCKLOCK_COMMIT").map(Into::into),
        replica: config.replica(),
        strategy: config.lock.strategy.as_str().into(),
        guard: config.guard().as_str().into(),
        max_batch: if config.lock.strategy.combines() { config.checkout.max_batch } else { 1 },
        store: store.into(),
        lease_ms: None,
        allow_reset: config.admin.allow_reset,
        decide_by: config.checkout.decide_by.as_str().into(),
        payment_window_ms: config.checkout.payment_window.map(|window| window.as_millis() as u64),
    }
}
