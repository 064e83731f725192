//! One connection through a proxy: a pump in each direction.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use super::route::{Direction, Ends, Passed, Route, changed, open, passable};

/// How many bytes are kept per direction before no more is read.
const BUFFER: usize = 4 << 20;

/// How many bytes are read at once.
const CHUNK: usize = 16 << 10;

/// How many bytes a chunk counts for beyond its own, since many small ones must not be for free.
const OVERHEAD: usize = 64;

/// A client's connection, and the one to the server that belongs to it.
pub(super) struct Connection {
    pub client: TcpStream,
    pub server: Option<TcpStream>,
    pub route: watch::Receiver<Route>,
    /// How often connections had been ended when the client came.
    pub since: Ends,
    pub passed: Arc<Passed>,
}

/// How a direction ended.
#[derive(PartialEq)]
enum End {
    /// The one side sent all it had, and the other has been told so.
    Passed,
    /// The other side takes no more. The one side learns it from the other direction.
    NotTaken,
}

/// One side has reset the connection, and it is time for the other to know.
struct Reset;

impl Connection {
    /// Passes on what comes until the connection ends or is cut.
    pub async fn serve(mut self, upstream: &str) {
        let (mut route, since) = (self.route.clone(), self.since);
        let ended = tokio::select! {
            biased;
            _ = route.wait_for(|route| route.ends() != since) => None,
            ended = self.forward(upstream) => Some(ended),
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                // Where it is stranded, both sides go on believing in it.
                route.wait_for(|route| route.cuts != since.cuts).await.ok();
                Err(Reset)
            }
        };
        if ended.is_err() {
            for stream in [Some(&self.client), self.server.as_ref()].into_iter().flatten() {
                // One that cannot be reset is closed.
                stream.set_zero_linger().ok();
            }
        }
    }

    async fn forward(&mut self, upstream: &str) -> Result<(), Reset> {
        let Self { client, server, route, passed, .. } = self;
        // The server must not learn of a client that cannot reach it.
        open(route, Direction::ToServer).await;
        let server = match connect(upstream).await {
            Ok(stream) => server.insert(stream),
            Err(_) => {
                passable(route, Direction::ToClient, Instant::now()).await;
                return Err(Reset);
            }
        };
        client.set_nodelay(true).ok();
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let (requests, answers) = tokio::try_join!(
            pump(from_client, to_server, route.clone(), Direction::ToServer, passed),
            pump(from_server, to_client, route.clone(), Direction::ToClient, passed),
        )?;
        match requests == End::Passed && answers == End::Passed {
            true => Ok(()),
            false => Err(Reset),
        }
    }
}

async fn connect(upstream: &str) -> io::Result<TcpStream> {
    let server = TcpStream::connect(upstream).await?;
    server.set_nodelay(true)?;
    Ok(server)
}

/// Something to be delivered, in the order in which it came.
struct Item<'a> {
    came: Instant,
    what: What,
    /// Its place in the buffer.
    _room: Option<SemaphorePermit<'a>>,
}

enum What {
    Chunk(Vec<u8>),
    End,
    Reset,
}

/// Passes on what comes from one side to the other, as the route lets it.
async fn pump(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    route: watch::Receiver<Route>,
    direction: Direction,
    passed: &Passed,
) -> Result<End, Reset> {
    let room = Semaphore::new(BUFFER);
    let (queue, items) = mpsc::unbounded_channel();
    tokio::select! {
        ended = deliver(items, to, route, direction, passed) => ended,
        never = collect(from, queue, &room) => match never {},
    }
}

/// Reads all that comes, for as long as there is room.
async fn collect<'a>(
    mut from: ReadHalf<'_>,
    queue: UnboundedSender<Item<'a>>,
    room: &'a Semaphore,
) -> Infallible {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = from.read(&mut buffer).await;
        let came = Instant::now();
        let (what, room) = match read {
            Ok(0) => (What::End, None),
            Err(_) => (What::Reset, None),
            Ok(length) => {
                let charge =
                    u32::try_from(length + OVERHEAD).expect("a chunk is smaller than four gibibytes");
                let room = room.acquire_many(charge).await.expect("the semaphore is never closed");
                (What::Chunk(buffer[..length].to_vec()), Some(room))
            }
        };
        let is_last = room.is_none();
        // No task takes it any more when the other side has gone, which is the end of this, too.
        queue.send(Item { came, what, _room: room }).ok();
        if is_last {
            return pending().await;
        }
    }
}

/// Writes all that is queued, each when it is time.
async fn deliver(
    mut items: UnboundedReceiver<Item<'_>>,
    mut to: WriteHalf<'_>,
    mut route: watch::Receiver<Route>,
    direction: Direction,
    passed: &Passed,
) -> Result<End, Reset> {
    while let Some(item) = items.recv().await {
        passable(&mut route, direction, item.came).await;
        let chunk = match item.what {
            What::Chunk(chunk) => chunk,
            What::End => break,
            What::Reset => return Err(Reset),
        };
        let mut rest = chunk.as_slice();
        while !rest.is_empty() {
            // The other side may take its time, in which the route may change.
            passable(&mut route, direction, item.came).await;
            let written = tokio::select! {
                biased;
                () = changed(&mut route) => continue,
                written = to.write(rest) => written.unwrap_or(0),
            };
            if written == 0 {
                return Ok(End::NotTaken);
            }
            rest = &rest[written..];
            passed.bytes[direction as usize].fetch_add(written as u64, Ordering::SeqCst);
        }
        passed.chunks[direction as usize].fetch_add(1, Ordering::SeqCst);
    }
    match to.shutdown().await {
        Ok(()) => Ok(End::Passed),
        Err(_) => Ok(End::NotTaken),
    }
}
