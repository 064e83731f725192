//! The connection loop under the router: as many connections as there are file handles for, none of which can
//! keep its place by doing nothing, and a stop that lets requests in flight be finished.

mod activity;
mod stream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::activity::Activity;
use self::stream::ClientStream;
use super::rate_limit::RateLimit;

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// The most connections at the same time.
    pub connections: usize,
    /// How long a connection is kept that sends no request.
    pub keep_alive: Duration,
    /// How long the head of a request may take, from its first byte.
    pub head: Duration,
    /// How long a client may take to read an answer.
    pub write: Duration,
}

/// The most bytes of a request's head.
const HEAD: usize = 64 * 1024;

/// How much of an answer the kernel keeps for a client that does not read, about.
const SEND_BUFFER: usize = 256 * 1024;

/// How long a connection must have been idle before it is closed for another.
const IDLE: Duration = Duration::from_millis(250);

/// How often it is looked for one, while another waits.
const LOOK: Duration = Duration::from_millis(20);

/// Paths that are asked again and again by those who watch over the service, and are not limited.
const UNLIMITED: [&str; 2] = ["/livez", "/readyz"];

/// Accepts connections until `stop`, and answers what they send through `router`, which is told of what
/// exceeds the `rate`. Returns what has to be [shut down](GracefulShutdown::shutdown) to let the requests in
/// flight be finished.
///
/// When there are as many as there may be, the one that has been idle for the longest is closed for the next.
pub async fn accept(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    rate: Option<Arc<RateLimit>>,
    stop: CancellationToken,
) -> GracefulShutdown {
    let mut http = hyper::server::conn::http1::Builder::new();
    // The time is taken by the stream, which tells a slow head from an idle connection.
    http.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD);
    let connections = GracefulShutdown::new();
    let open = Arc::new(Open::new(limits.connections));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return connections,
        };
        let (stream, client) = match accepted {
            Ok((stream, client)) => (stream, client.ip()),
            Err(error) => {
                // Out of file handles, most likely: it passes when connections end.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = tokio::select! {
            place = open.place() => place,
            () = stop.cancelled() => return connections,
        };
        prepare(&stream);
        let activity = Arc::new(Activity::default());
        let entry = Entry::new(Arc::clone(&open), Arc::clone(&activity), place);
        let router = TowerToHyperService::new(router.clone());
        let stream = ClientStream::new(stream, Arc::clone(&activity), limits);
        let rate = rate.clone();
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            let answering = activity.answer(request.version());
            if let Some(rate) = &rate
                && !UNLIMITED.contains(&request.uri().path())
                && let Err(throttled) = rate.admit(client, Instant::now())
            {
                request.extensions_mut().insert(throttled);
            }
            let response = router.call(request);
            async move {
                let response = response.await;
                drop(answering);
                response
            }
        });
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(entry);
        });
    }
}

fn prepare(stream: &TcpStream) {
    stream.set_nodelay(true).ok();
    #[cfg(unix)]
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::SndBuf, &SEND_BUFFER).ok();
}

/// The connections that are open.
struct Open {
    places: Arc<Semaphore>,
    activities: Mutex<HashMap<usize, Arc<Activity>>>,
}

impl Open {
    fn new(most: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), activities: Mutex::default() }
    }

    /// A place for one more, for which another may have to be closed.
    async fn place(&self) -> OwnedSemaphorePermit {
        loop {
            let place = Arc::clone(&self.places).acquire_owned();
            match tokio::time::timeout(Duration::ZERO, place).await {
                Ok(place) => return place.expect("it is never closed"),
                Err(_) => self.close_idlest(),
            }
            let place = Arc::clone(&self.places).acquire_owned();
            if let Ok(place) = tokio::time::timeout(LOOK, place).await {
                return place.expect("it is never closed");
            }
        }
    }

    fn close_idlest(&self) {
        let activities = self.lock();
        let idle = activities.values().filter_map(|activity| Some((activity.idle_for()?, activity)));
        if let Some((_, activity)) = idle.filter(|(idle, _)| *idle >= IDLE).max_by_key(|(idle, _)| *idle) {
            activity.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Arc<Activity>>> {
        self.activities.lock().expect("nothing panics while it holds this")
    }
}

/// A connection among the open ones, until it is dropped.
struct Entry {
    open: Arc<Open>,
    number: usize,
    _place: OwnedSemaphorePermit,
}

impl Entry {
    fn new(open: Arc<Open>, activity: Arc<Activity>, place: OwnedSemaphorePermit) -> Self {
        let number = Arc::as_ptr(&activity) as usize;
        open.lock().insert(number, activity);
        Self { open, number, _place: place }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.lock().remove(&self.number);
    }
}
