//! The proxy's faults, as both of its sides see them.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use stocklock_lab::{Direction, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long what should come may take.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long what should not come is waited for.
const SILENCE: Duration = Duration::from_millis(200);

/// A server that answers what it is sent, and tells how each of its connections ended.
struct Echo {
    address: SocketAddr,
    ends: UnboundedReceiver<Result<(), ErrorKind>>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (sender, ends) = unbounded_channel();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let sender = sender.clone();
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let end = tokio::io::copy(&mut from, &mut to).await;
                    sender.send(end.map(drop).map_err(|error| error.kind())).ok();
                });
            }
        });
        Self { address, ends }
    }

    async fn end(&mut self) -> Result<(), ErrorKind> {
        timeout(START_TIMEOUT, self.ends.recv()).await.expect("a connection ends").expect("the server runs")
    }

    async fn nothing_ends(&mut self) -> bool {
        timeout(SILENCE, self.ends.recv()).await.is_err()
    }
}

async fn echo_and_proxy() -> (Echo, Proxy) {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address.to_string()).await.expect("the proxy starts");
    (echo, proxy)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    stream.set_nodelay(true).expect("the stream is open");
    stream
}

/// A connection that goes all the way to the server, as an answer has shown.
async fn established(proxy: &Proxy) -> TcpStream {
    let mut stream = connect(proxy).await;
    assert_eq!(ask(&mut stream, "hello").await, "hello");
    stream
}

async fn ask(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.expect("the stream is open");
    read(stream, text.len()).await
}

async fn read(stream: &mut TcpStream, length: usize) -> String {
    let mut answer = vec![0; length];
    timeout(START_TIMEOUT, stream.read_exact(&mut answer))
        .await
        .expect("an answer in time")
        .expect("an answer");
    String::from_utf8(answer).expect("the answer is text")
}

/// How a connection ends on which nothing comes any more.
async fn end(stream: &mut TcpStream) -> Result<usize, ErrorKind> {
    let read = timeout(START_TIMEOUT, stream.read(&mut [0])).await.expect("an end in time");
    read.map_err(|error| error.kind())
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(SILENCE, stream.read(&mut [0])).await.is_err()
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let give_up = Instant::now() + START_TIMEOUT;
    while !holds().await {
        assert!(Instant::now() < give_up, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn passes_on_both_ways_and_counts() {
    let (mut echo, proxy) = echo_and_proxy().await;
    let mut stream = established(&proxy).await;
    assert_eq!(ask(&mut stream, "world").await, "world");
    assert_eq!(proxy.connections(), 1);
    for direction in [Direction::ToServer, Direction::ToClient] {
        eventually("both chunks are counted", async || proxy.chunks(direction) == 2).await;
        assert_eq!(proxy.bytes(direction), 10);
    }
    stream.shutdown().await.unwrap();
    assert_eq!((end(&mut stream).await, echo.end().await), (Ok(0), Ok(())));
    eventually("the connection is forgotten", async || proxy.connections() == 0).await;
}

#[tokio::test]
async fn each_side_can_close_its_half() {
    let (mut echo, proxy) = echo_and_proxy().await;
    let mut stream = connect(&proxy).await;
    stream.write_all(b"last words").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read(&mut stream, 10).await, "last words");
    assert_eq!((end(&mut stream).await, echo.end().await), (Ok(0), Ok(())));
}

#[tokio::test]
async fn a_delay_applies_to_existing_connections_and_in_each_direction() {
    let (_echo, proxy) = echo_and_proxy().await;
    let mut stream = established(&proxy).await;
    proxy.delay(Direction::ToServer, Duration::from_millis(100));
    proxy.delay(Direction::ToClient, Duration::from_millis(150));
    let begin = Instant::now();
    ask(&mut stream, "late").await;
    assert!(begin.elapsed() >= Duration::from_millis(250), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn what_is_delayed_comes_when_the_delay_ends() {
    let (_echo, proxy) = echo_and_proxy().await;
    let mut stream = established(&proxy).await;
    for lift in [|proxy: &Proxy| proxy.delay(Direction::ToServer, Duration::ZERO), Proxy::heal] {
        proxy.delay(Direction::ToServer, Duration::MAX);
        stream.write_all(b"late").await.unwrap();
        assert!(is_silent(&mut stream).await);
        lift(&proxy);
        assert_eq!(read(&mut stream, 4).await, "late");
    }
}

#[tokio::test]
async fn a_delay_does_not_limit_how_much_passes() {
    let (_echo, proxy) = echo_and_proxy().await;
    let mut stream = established(&proxy).await;
    let (delay, text) = (Duration::from_millis(500), "x".repeat(1 << 20));
    let before = proxy.chunks(Direction::ToServer);
    proxy.delay(Direction::ToServer, delay);
    let begin = Instant::now();
    let (mut from, mut to) = stream.split();
    let mut answer = vec![0; text.len()];
    let (sent, received) = tokio::join!(to.write_all(text.as_bytes()), from.read_exact(&mut answer));
    sent.and(received.map(drop)).unwrap();
    let (elapsed, chunks) = (begin.elapsed(), proxy.chunks(Direction::ToServer) - before);
    assert!(answer == text.as_bytes(), "the text comes unharmed");
    assert!(elapsed >= delay, "{elapsed:?}");
    let one_by_one = delay * u32::try_from(chunks).unwrap();
    assert!(elapsed < one_by_one / 2, "{chunks} chunks in {elapsed:?}");
}

#[tokio::test]
async fn a_blackhole_keeps_what_it_is_given_until_it_is_healed() {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let (_echo, proxy) = echo_and_proxy().await;
        let mut stream = established(&proxy).await;
        proxy.blackhole(direction);
        let passed = proxy.bytes(direction);
        stream.write_all(b"kept ").await.unwrap();
        stream.write_all(b"in order").await.unwrap();
        assert!(is_silent(&mut stream).await);
        assert_eq!((proxy.bytes(direction), proxy.connections()), (passed, 1));
        proxy.heal();
        assert_eq!(read(&mut stream, 13).await, "kept in order");
    }
}

#[tokio::test]
async fn a_blackhole_takes_no_more_than_it_can_keep_and_loses_nothing() {
    let (_echo, proxy) = echo_and_proxy().await;
    let stream = established(&proxy).await;
    proxy.blackhole(Direction::ToServer);
    let length = 64 << 20;
    let (mut from, mut to) = stream.into_split();
    let (written, mut progress) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        let chunk = vec![b'x'; 1 << 16];
        while *written.borrow() < length {
            to.write_all(&chunk).await.expect("the connection stays");
            written.send_modify(|written| *written += chunk.len());
        }
        to.shutdown().await.expect("the connection stays");
    });
    while timeout(SILENCE, progress.changed()).await.is_ok() {}
    let taken = *progress.borrow();
    assert!((4 << 20..length).contains(&taken), "{taken} bytes were taken");
    proxy.heal();
    let mut answer = Vec::new();
    timeout(START_TIMEOUT, from.read_to_end(&mut answer)).await.expect("an end in time").unwrap();
    assert_eq!(answer.len(), length);
}

#[tokio::test]
async fn the_server_does_not_learn_of_a_clients_end_through_a_blackhole() {
    let (mut echo, proxy) = echo_and_proxy().await;
    let closed = established(&proxy).await;
    let reset = established(&proxy).await;
    proxy.blackhole(Direction::ToServer);
    drop(closed);
    assert!(echo.nothing_ends().await);
    proxy.heal();
    assert_eq!(echo.end().await, Ok(()));

    proxy.blackhole(Direction::ToServer);
    reset.set_zero_linger().unwrap();
    drop(reset);
    assert!(echo.nothing_ends().await);
    proxy.heal();
    assert_eq!(echo.end().await, Err(ErrorKind::ConnectionReset));
    eventually("both connections are gone", async || proxy.connections() == 0).await;
}

#[tokio::test]
async fn the_client_does_not_learn_of_a_servers_end_through_a_blackhole() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = Proxy::start(&listener.local_addr().unwrap().to_string()).await.unwrap();
    for resets in [false, true] {
        let mut client = connect(&proxy).await;
        let (server, _) =
            timeout(START_TIMEOUT, listener.accept()).await.expect("the proxy connects").unwrap();
        proxy.blackhole(Direction::ToClient);
        if resets {
            server.set_zero_linger().unwrap();
        }
        drop(server);
        assert!(is_silent(&mut client).await);
        proxy.heal();
        let expected = if resets { Err(ErrorKind::ConnectionReset) } else { Ok(0) };
        assert_eq!(end(&mut client).await, expected);
    }
}

#[tokio::test]
async fn a_connection_made_in_a_blackhole_is_accepted_and_works_once_it_is_healed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = Proxy::start(&listener.local_addr().unwrap().to_string()).await.unwrap();
    proxy.blackhole(Direction::ToServer);
    let mut client = connect(&proxy).await;
    client.write_all(b"hello").await.unwrap();
    eventually("the connection is accepted", async || proxy.connections() == 1).await;
    assert!(timeout(SILENCE, listener.accept()).await.is_err(), "the server has not heard of it");
    proxy.heal();
    let (mut server, _) =
        timeout(START_TIMEOUT, listener.accept()).await.expect("the proxy connects").unwrap();
    assert_eq!(read(&mut server, 5).await, "hello");
}

#[tokio::test]
async fn a_cut_resets_both_sides_and_new_connections_work() {
    let (mut echo, proxy) = echo_and_proxy().await;
    let mut streams = [established(&proxy).await, established(&proxy).await];
    proxy.cut();
    for stream in &mut streams {
        assert_eq!(end(stream).await, Err(ErrorKind::ConnectionReset));
        assert_eq!(echo.end().await, Err(ErrorKind::ConnectionReset));
    }
    eventually("the connections are gone", async || proxy.connections() == 0).await;
    established(&proxy).await;
}

#[tokio::test]
async fn a_cut_drops_what_a_blackhole_or_a_delay_keeps() {
    let (mut echo, proxy) = echo_and_proxy().await;
    for fault in [Proxy::blackhole, |proxy: &Proxy, direction| proxy.delay(direction, START_TIMEOUT)] {
        let mut stream = established(&proxy).await;
        fault(&proxy, Direction::ToServer);
        let passed = proxy.bytes(Direction::ToServer);
        stream.write_all(b"lost").await.unwrap();
        assert!(is_silent(&mut stream).await);
        proxy.cut();
        assert_eq!(end(&mut stream).await, Err(ErrorKind::ConnectionReset));
        assert_eq!(echo.end().await, Err(ErrorKind::ConnectionReset));
        proxy.heal();
        assert_eq!(proxy.bytes(Direction::ToServer), passed);
    }
}

#[tokio::test]
async fn a_refusal_cuts_and_resets_new_connections_until_it_is_healed() {
    let (mut echo, proxy) = echo_and_proxy().await;
    let mut stream = established(&proxy).await;
    proxy.refuse();
    assert_eq!(end(&mut stream).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(echo.end().await, Err(ErrorKind::ConnectionReset));
    for _ in 0..3 {
        assert_eq!(end(&mut connect(&proxy).await).await, Err(ErrorKind::ConnectionReset));
    }
    assert!(echo.nothing_ends().await, "the server has heard of none of them");
    proxy.heal();
    established(&proxy).await;
}

#[tokio::test]
async fn a_client_is_reset_when_the_server_does_not_take_its_connection() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(&nobody.to_string()).await.unwrap();
    assert_eq!(end(&mut connect(&proxy).await).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_proxy_that_is_dropped_is_gone_with_its_connections() {
    let (mut echo, proxy) = echo_and_proxy().await;
    let mut stream = established(&proxy).await;
    let address = proxy.address();
    drop(proxy);
    assert!(matches!(end(&mut stream).await, Ok(0) | Err(ErrorKind::ConnectionReset)));
    assert!(matches!(echo.end().await, Ok(()) | Err(ErrorKind::ConnectionReset)));
    eventually("nobody listens", async || TcpStream::connect(address).await.is_err()).await;
}

#[tokio::test]
async fn stranded_connections_are_silent_for_ever_and_new_ones_are_not() {
    let (mut echo, proxy) = echo_and_proxy().await;
    let mut old = connect(&proxy).await;
    assert_eq!(ask(&mut old, "before").await, "before");
    proxy.strand();
    old.write_all(b"into the void").await.expect("it is taken");
    let mut new = connect(&proxy).await;
    assert_eq!(ask(&mut new, "after").await, "after");
    proxy.heal();
    assert!(is_silent(&mut old).await, "something comes back");
    assert!(echo.nothing_ends().await, "the server learns of it");
    proxy.cut();
    assert_eq!(end(&mut old).await, Err(ErrorKind::ConnectionReset));
}
