//! A network that can be slow, broken or gone.

mod connection;
mod route;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use connection::Connection;
pub use route::Direction;
use route::{Passed, Route};

/// A TCP proxy in front of a server, with faults on demand. It passes on bytes and knows no protocol; each
/// connection to it is a connection to the server.
///
/// Every change applies at once, to connections that are there as well as to those that come; bytes that the
/// operating system has been given already arrive. A connection that the proxy has not accepted yet counts as
/// one that comes. The drop ends the proxy and all its connections, as soon as the runtime gets to it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    upstream: Arc<Mutex<Arc<str>>>,
    route: watch::Sender<Route>,
    passed: Arc<Passed>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy on a free port of 127.0.0.1, in front of the server at `upstream`: host and port. The
    /// server need not be there: a connection that it does not take is reset.
    pub async fn start(upstream: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (route, watched) = watch::channel(Route::default());
        let passed = Arc::new(Passed::default());
        let upstream = Arc::new(Mutex::new(upstream.into()));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&upstream), watched, Arc::clone(&passed)));
        Ok(Self { address, upstream, route, passed, accepting })
    }

    /// Where the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stands in front of another server from now on, as a name does that is given another address:
    /// connections that are there stay where they are, unless they are [cut](Self::cut).
    pub fn lead_to(&self, upstream: &str) {
        *self.upstream.lock().expect("nothing panics while it holds this") = upstream.into();
    }

    /// Delivers everything that goes in a direction so much later than it comes. As much passes as without a
    /// delay, up to four mebibytes on their way per connection. A delay of zero ends it, also for what is on
    /// its way.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.route.send_modify(|route| route.lane_mut(direction).delay = delay);
    }

    /// Lets nothing pass any more in a direction, without a sign of it: connections stay open, also when the
    /// other side closes them, and new ones are accepted. What is sent is kept, up to four mebibytes per
    /// connection, after which no more is read. It is delivered when the route is [healed](Self::heal), as
    /// TCP would send it again, unless its connection is [cut](Self::cut) before.
    pub fn blackhole(&self, direction: Direction) {
        self.route.send_modify(|route| route.lane_mut(direction).blackholed = true);
    }

    /// Resets all connections on both sides, with what is on its way on them. New ones are accepted as
    /// before.
    pub fn cut(&self) {
        self.route.send_modify(|route| route.cuts += 1);
    }

    /// Lets nothing pass any more on the connections that there are, without a sign of it, as when a balancer
    /// has forgotten them: what is on its way is lost, and healing brings nothing back. New ones are accepted
    /// as before.
    pub fn strand(&self) {
        self.route.send_modify(|route| route.strands += 1);
    }

    /// [Cuts](Self::cut), and from now on resets every new connection.
    pub fn refuse(&self) {
        self.route.send_modify(|route| {
            route.cuts += 1;
            route.refuses = true;
        });
    }

    /// Ends delays, blackholes and refusal.
    pub fn heal(&self) {
        self.route.send_modify(Route::heal);
    }

    /// How many connections there are. One that is cut counts until it is closed, a moment later.
    pub fn connections(&self) -> usize {
        self.passed.connections.load(Ordering::SeqCst)
    }

    /// How many chunks have been passed on in a direction, each of which is what one read has found.
    pub fn chunks(&self, direction: Direction) -> u64 {
        self.passed.chunks[direction as usize].load(Ordering::SeqCst)
    }

    /// How many bytes have been passed on in a direction.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.passed.bytes[direction as usize].load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its connections are tasks of that one's.
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: Arc<Mutex<Arc<str>>>,
    route: watch::Receiver<Route>,
    passed: Arc<Passed>,
) {
    let mut connections = JoinSet::new();
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            // Nothing to be done: what has ended is forgotten.
            Some(_) = connections.join_next() => continue,
        };
        let Ok((client, _)) = client else {
            // Out of file descriptors, at the worst: some may be closed soon.
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (refuses, since) = {
            let route = route.borrow();
            (route.refuses, route.ends())
        };
        if refuses {
            // One that cannot be reset is closed.
            client.set_zero_linger().ok();
            continue;
        }
        let connection =
            Connection { client, server: None, route: route.clone(), since, passed: Arc::clone(&passed) };
        let open = passed.open();
        let upstream = Arc::clone(&upstream.lock().expect("nothing panics while it holds this"));
        connections.spawn(async move {
            connection.serve(&upstream).await;
            drop(open);
        });
    }
}
