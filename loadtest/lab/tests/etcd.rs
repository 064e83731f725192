//! An etcd server: alone, started again, and through a proxy.

use std::time::Duration;

use stocklock_lab::{Direction, Etcd, Proxy, Server as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The key `key` with the value `1`, in base64.
const PUT: &str = r#"{"key":"a2V5","value":"MQ=="}"#;
const GET: &str = r#"{"key":"a2V5"}"#;

#[tokio::test]
async fn what_is_put_is_there_after_a_restart_and_gone_with_the_data() {
    let mut etcd = Etcd::start().await.unwrap();
    etcd.call("/v3/kv/put", PUT).await.unwrap();
    etcd.kill().await.unwrap();
    etcd.restart().await.unwrap();
    assert!(etcd.call("/v3/kv/range", GET).await.unwrap().contains("MQ=="));
    etcd.kill().await.unwrap();
    std::fs::remove_dir_all(etcd.data()).unwrap();
    etcd.restart().await.unwrap();
    assert!(!etcd.call("/v3/kv/range", GET).await.unwrap().contains("MQ=="));
    let error = etcd.call("/v3/lease/revoke", r#"{"ID":"4711"}"#).await.unwrap_err();
    assert!(error.to_string().contains("lease not found"), "{error}");
}

#[tokio::test]
async fn a_lease_of_a_second_is_granted() {
    let etcd = Etcd::start().await.unwrap();
    let granted = etcd.call("/v3/lease/grant", r#"{"TTL":"1"}"#).await.unwrap();
    assert!(granted.contains(r#""TTL":"1""#), "{granted}");
}

#[tokio::test]
async fn a_server_answers_through_a_proxy_when_it_is_resumed() {
    let etcd = Etcd::start().await.unwrap();
    let proxy = Proxy::start(&etcd.address()).await.unwrap();
    assert_eq!(etcd.url_at(&[proxy.address().to_string()]), format!("http://{}", proxy.address()));
    etcd.pause().unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let read = timeout(Duration::from_millis(200), stream.read_to_string(&mut answer)).await;
    assert!(read.is_err(), "{answer}");
    etcd.resume().unwrap();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\"true\""), "{answer}");
    assert!(proxy.bytes(Direction::ToClient) > 0);
}
