//! Redis servers: alone, as a pair, and through a proxy.

use std::time::Duration;

use stocklock_lab::{Direction, Proxy, Redis, Server as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

const START_TIMEOUT: Duration = Duration::from_secs(20);

async fn until_it_has(redis: &Redis, key: &str, value: &str) {
    let give_up = Instant::now() + START_TIMEOUT;
    while redis.command(&["GET", key]).await.expect("a value") != value {
        assert!(Instant::now() < give_up, "{key} has not become {value}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_command_answers_text_and_its_error_is_an_error() {
    let redis = Redis::start().await.unwrap();
    assert_eq!(redis.command(&["SET", "key", "two\r\nlines"]).await.unwrap(), "OK");
    assert_eq!(redis.command(&["GET", "key"]).await.unwrap(), "two\r\nlines");
    assert_eq!(redis.command(&["MGET", "key", "none"]).await.unwrap(), "two\r\nlines\n(nil)");
    assert_eq!(redis.command(&["INCR", "count"]).await.unwrap(), "1");
    let error = redis.command(&["INCR", "key"]).await.unwrap_err();
    assert!(error.to_string().contains("not an integer"), "{error}");
}

#[tokio::test]
async fn a_replica_follows_its_primary_and_can_be_promoted() {
    let mut primary = Redis::start().await.unwrap();
    primary.command(&["SET", "before", "1"]).await.unwrap();
    let replica = Redis::start_replica_of(&primary).await.unwrap();
    assert_eq!(replica.command(&["GET", "before"]).await.unwrap(), "1");
    primary.command(&["SET", "after", "2"]).await.unwrap();
    until_it_has(&replica, "after", "2").await;
    let error = replica.command(&["SET", "key", "value"]).await.unwrap_err();
    assert!(error.to_string().starts_with("READONLY"), "{error}");

    primary.kill().await.unwrap();
    replica.promote().await.unwrap();
    assert_eq!(replica.command(&["SET", "key", "value"]).await.unwrap(), "OK");
    assert_eq!(replica.command(&["GET", "before"]).await.unwrap(), "1");
}

#[tokio::test]
async fn a_replica_that_is_restarted_follows_again() {
    let primary = Redis::start().await.unwrap();
    let mut replica = Redis::start_replica_of(&primary).await.unwrap();
    replica.kill().await.unwrap();
    primary.command(&["SET", "meanwhile", "1"]).await.unwrap();
    replica.restart().await.unwrap();
    until_it_has(&replica, "meanwhile", "1").await;
}

#[tokio::test]
async fn a_server_answers_when_it_is_resumed_what_it_was_asked_while_it_was_paused() {
    let redis = Redis::start().await.unwrap();
    redis.pause().unwrap();
    let mut answer = std::pin::pin!(redis.command(&["PING"]));
    assert!(timeout(Duration::from_millis(200), &mut answer).await.is_err());
    redis.resume().unwrap();
    assert_eq!(answer.await.unwrap(), "PONG");
}

#[tokio::test]
async fn a_server_is_there_through_a_proxy_and_again_after_its_restart() {
    let mut redis = Redis::start().await.unwrap();
    let proxy = Proxy::start(&redis.address()).await.unwrap();
    assert_eq!(redis.url_at(&[proxy.address().to_string()]), format!("redis://{}", proxy.address()));
    for _ in 0..2 {
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_all(b"PING\r\n").await.unwrap();
        let mut answer = [0; 7];
        timeout(START_TIMEOUT, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"+PONG\r\n");
        redis.kill().await.unwrap();
        assert!(matches!(stream.read(&mut answer).await, Ok(0) | Err(_)), "the connection has ended");
        redis.restart().await.unwrap();
    }
    assert!(proxy.bytes(Direction::ToServer) >= 12);
}

#[tokio::test]
async fn a_key_expires_early_when_the_time_of_day_is_stepped() {
    let redis = Redis::start_breakable().await.unwrap();
    redis.command(&["SET", "key", "value", "EX", "100"]).await.unwrap();
    assert!(redis.set_clock(90).unwrap(), "libfaketime is installed");
    let left: i64 = redis.command(&["TTL", "key"]).await.unwrap().parse().unwrap();
    assert!((1..=10).contains(&left), "{left} seconds");
    redis.set_clock(110).unwrap();
    assert_eq!(redis.command(&["GET", "key"]).await.unwrap(), "(nil)");
}
