//! Clients that are slow, silent, or half gone.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::helpers::{Replica, SKU, Shop};

/// Longer than anything takes that comes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(replica: &Replica) -> TcpStream {
    let address = replica.url.trim_start_matches("http://");
    TcpStream::connect(address).await.expect("a connection")
}

fn order() -> String {
    let body = format!(r#"{{"sku": "{SKU}", "quantity": 1, "buyer": "A"}}"#);
    let length = body.len();
    format!(
        "POST /v1/orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

const STOCK: &[u8] = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";

/// Everything that comes until the connection ends.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset ends it as well.
    timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the connection ends").ok();
    String::from_utf8_lossy(&text).into_owned()
}

/// What has come when this has.
async fn until(stream: &mut TcpStream, what: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(what) {
        let read =
            timeout(PATIENCE, stream.read(&mut buffer)).await.expect("it comes").expect("a connection");
        assert!(read > 0, "{what} did not come, only {text}");
        text += &String::from_utf8_lossy(&buffer[..read]);
    }
    text
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_is_answered() {
    let shop = Shop::with(1, "database", 5, &[("checkout.think_time", "300ms")]).await;
    let mut client = connect(shop.replica()).await;
    client.write_all(order().as_bytes()).await.expect("it is sent");
    client.shutdown().await.expect("its side is closed");
    let answer = rest(&mut client).await;
    assert!(answer.contains("HTTP/1.1 201 Created") && answer.contains("\"stock_after\":4"), "{answer}");
    // It is not told apart, and gets the same, where it has closed its side before the request is read.
    let mut client = connect(shop.replica()).await;
    let old = order().replace("HTTP/1.1", "HTTP/1.0");
    client.write_all(old.as_bytes()).await.expect("it is sent");
    client.shutdown().await.expect("its side is closed");
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.0 201") || answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(shop.audit().await.units_sold, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_client_has_gone_is_not_executed() {
    let shop = Shop::open("database", 5).await;
    let stranger = shop.lock().await;
    let give_up = tokio::time::Instant::now() + PATIENCE;
    let lease = stranger.acquire(SKU, order_service::lock::Mode::Exclusive, give_up).await.expect("a lease");
    for _ in 0..10 {
        let mut client = connect(shop.replica()).await;
        client.write_all(order().as_bytes()).await.expect("it is sent");
        sleep(Duration::from_millis(20)).await;
        drop(client);
    }
    // Far longer than a reset takes to be seen, which is at most a fifth of a second after it has come.
    sleep(Duration::from_secs(2)).await;
    lease.release().await;
    // One that comes after them, so that their turn is over.
    assert_eq!(shop.replica().order("B", 1).await.status(), 201);
    assert_eq!(shop.audit().await.units_sold, 1);
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_its_time_and_a_slow_head_for_less() {
    let keys = [("server.keep_alive", "4s"), ("server.head_timeout", "300ms")];
    let shop = Shop::with(1, "database", 5, &keys).await;
    let mut client = connect(shop.replica()).await;
    client.write_all(STOCK).await.expect("it is sent");
    until(&mut client, "\"ok\"").await;
    sleep(Duration::from_millis(700)).await;
    client.write_all(STOCK).await.expect("it is sent");
    until(&mut client, "\"ok\"").await;
    let begun = Instant::now();
    assert_eq!(rest(&mut client).await, "");
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    // One byte after the other, so that it is never silent.
    let mut slow = connect(shop.replica()).await;
    let begun = Instant::now();
    for byte in b"GET /livez HTTP/1.1\r\nx-slow: ".iter().cycle().take(2_000) {
        if slow.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "it was listened to for {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let keys = [("server.write_timeout", "500ms"), ("server.max_connections", "2")];
    let shop = Shop::with(1, "database", 5_000, &keys).await;
    for _ in 0..300 {
        assert_eq!(shop.replica().order(&"B".repeat(100), 1).await.status(), 201);
    }
    let list = b"GET /v1/orders?limit=1000 HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut client = connect(shop.replica()).await;
        // More than the kernels keep for it.
        for _ in 0..200 {
            let sent = timeout(Duration::from_millis(200), client.write_all(list)).await;
            if !matches!(sent, Ok(Ok(()))) {
                break;
            }
        }
        deaf.push(client);
    }
    // They have all places, and lose them.
    let begun = Instant::now();
    let mut client = connect(shop.replica()).await;
    client.write_all(STOCK).await.expect("it is sent");
    until(&mut client, "\"ok\"").await;
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn idle_connections_make_room_for_others() {
    let shop = Shop::with(1, "database", 5, &[("server.max_connections", "4")]).await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut client = connect(shop.replica()).await;
        client.write_all(STOCK).await.expect("it is sent");
        until(&mut client, "\"ok\"").await;
        idle.push(client);
    }
    for _ in 0..8 {
        let mut client = connect(shop.replica()).await;
        client.write_all(STOCK).await.expect("it is sent");
        until(&mut client, "\"ok\"").await;
        idle.push(client);
    }
    // The first ones have been closed for the later ones.
    assert_eq!(rest(&mut idle[0]).await, "");
}
