//! What somebody tries who means no good: the service seen from outside, byte by byte.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::helpers::{Replica, SKU, Shop, TOKEN, problem};

const SERVER_TOKEN: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// Longer than anything takes that comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connections of this shop end soon, so that all can be read that comes.
async fn shop() -> Shop {
    let keys = [
        ("server.keep_alive", "500ms"),
        ("server.head_timeout", "1s"),
        ("server.request_timeout", "1s"),
        ("server.token", SERVER_TOKEN),
    ];
    Shop::with(1, "database", 100, &keys).await
}

async fn connect(replica: &Replica) -> TcpStream {
    let address = replica.url.trim_start_matches("http://");
    TcpStream::connect(address).await.expect("a connection")
}

/// All that comes in answer to these bytes until the connection ends.
async fn send(replica: &Replica, bytes: &[u8]) -> String {
    let mut stream = connect(replica).await;
    // It may have had enough before all is sent.
    stream.write_all(bytes).await.ok();
    let mut text = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the connection ends").ok();
    String::from_utf8_lossy(&text).into_owned()
}

/// The statuses of the answers in a text; no body here has a line that begins like one.
fn statuses(answers: &str) -> Vec<u16> {
    let lines = answers.split("HTTP/1.").skip(1);
    lines.map(|line| line[2..5].parse().expect("a status")).collect()
}

/// An order that nobody has sent, inside a request.
fn hidden_order() -> String {
    let body = format!(r#"{{"sku": "{SKU}", "quantity": 1, "buyer": "smuggler"}}"#);
    let length = body.len();
    format!(
        "POST /v1/orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_end_can_be_seen_in_two_ways_hide_no_other() {
    let shop = shop().await;
    let order = hidden_order();
    let post = |headers: &str| format!("POST /v1/orders HTTP/1.1\r\nhost: a\r\n{headers}\r\n\r\n");
    let length = format!("content-length: {}", order.len() + 5);
    for (name, request) in [
        ("length, then chunks", post(&format!("{length}\r\ntransfer-encoding: chunked")) + "0\r\n\r\n"),
        ("chunks, then length", post(&format!("transfer-encoding: chunked\r\n{length}")) + "0\r\n\r\n"),
        ("no length, then chunks", post("content-length: 0\r\ntransfer-encoding: chunked") + "0\r\n\r\n"),
        ("two lengths", post("content-length: 0\r\ncontent-length: 5")),
        ("two lengths in one", post("content-length: 0, 5")),
        ("a length with a sign", post("content-length: +0")),
        ("a negative length", post("content-length: -1")),
        ("a hexadecimal length", post("content-length: 0x0")),
        ("no length at all in its header", post("content-length:")),
        ("a length beyond all", post("content-length: 99999999999999999999")),
        ("an encoding that does not end", post("transfer-encoding: identity")),
        ("chunks that are not the last encoding", post("transfer-encoding: chunked, identity")),
        ("almost chunks", post("transfer-encoding: xchunked")),
        ("a name with a space behind it", post("transfer-encoding : chunked")),
        ("a name with a space before it", post(" transfer-encoding: chunked")),
        ("a folded header", post("x: a\r\n transfer-encoding: chunked")),
        ("a bare CR in a header", post("x: a\rtransfer-encoding: chunked")),
        ("a NUL in a header", post("x: a\0b")),
        ("a chunk without end", post("transfer-encoding: chunked") + "fffffffffffffffff\r\n"),
        ("a chunk of no number", post("transfer-encoding: chunked") + "zz\r\n\r\n"),
        (
            "chunks in an old version",
            post("transfer-encoding: chunked").replace("HTTP/1.1", "HTTP/1.0") + "0\r\n\r\n",
        ),
        ("two hosts", "GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n".into()),
        ("no host", "GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n".into()),
        ("no version", "POST /v1/orders\r\nhost: a\r\n\r\n".into()),
        ("a version that is not", "POST /v1/orders HTTP/1.2\r\nhost: a\r\n\r\n".into()),
        ("a target with a space", "POST /v1/orders x HTTP/1.1\r\nhost: a\r\n\r\n".into()),
    ] {
        let answers = send(shop.replica(), (request + &order).as_bytes()).await;
        let seen = statuses(&answers);
        assert!(seen.len() <= 1, "{name}: more than one request was seen: {answers}");
        assert!(seen.iter().all(|status| (400..500).contains(status)), "{name}: {answers}");
        assert_eq!(shop.audit().await.orders, 0, "{name}: {answers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_end_is_certain_are_answered_one_by_one() {
    let shop = shop().await;
    let order = hidden_order();
    for (name, requests, statuses_seen) in [
        ("two in a row", order.repeat(2), vec![201, 201]),
        (
            "one whose lengths are the same",
            order.replace("\r\n\r\n{", "\r\ncontent-length: 57\r\n\r\n{"),
            vec![201],
        ),
        // RFC 9112, 2.2, lets a server take a line that ends like this for a line.
        ("lines that end in LF", order.replace("\r\n", "\n"), vec![201]),
        ("empty lines before", format!("\r\n\r\n{order}"), vec![201]),
    ] {
        assert_eq!(order.split("\r\n\r\n").nth(1).map(str::len), Some(57));
        let answers = send(shop.replica(), requests.as_bytes()).await;
        assert_eq!(statuses(&answers), statuses_seen, "{name}: {answers}");
    }
    // Chunks are an order, too.
    let body = order.split("\r\n\r\n").nth(1).expect("a body");
    let chunked = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let answers = send(shop.replica(), (chunked + &order).as_bytes()).await;
    assert_eq!(statuses(&answers), [201, 201], "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_bounds() {
    let shop = shop().await;
    let get = |headers: &str| format!("GET /livez HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
    for (name, request) in [
        ("a long header", get(&format!("x: {}\r\n", "y".repeat(200_000)))),
        ("many headers", get(&"x: y\r\n".repeat(500))),
        ("many headers of many names", get(&(0..500).map(|i| format!("x{i}: y\r\n")).collect::<String>())),
        ("a long name", get(&format!("{}: y\r\n", "x".repeat(200_000)))),
    ] {
        let answers = send(shop.replica(), request.as_bytes()).await;
        // Whoever is still sending may find the connection closed before the answer is read.
        assert!(answers.is_empty() || answers.starts_with("HTTP/1.1 431"), "{name}: {answers}");
    }
    let many = send(shop.replica(), get(&"x: y\r\n".repeat(500)).as_bytes()).await;
    assert!(many.starts_with("HTTP/1.1 431"), "{many}");
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(70_000));
    let answers = send(shop.replica(), long.as_bytes()).await;
    assert!(statuses(&answers).iter().all(|status| [400, 414, 431].contains(status)), "{answers}");
    // A header or two less is a request like any other.
    let answers = send(shop.replica(), get(&"x: y\r\n".repeat(90)).as_bytes()).await;
    assert!(answers.starts_with("HTTP/1.1 200"), "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_send_their_heads_slowly_keep_nobody_out() {
    let shop =
        Shop::with(1, "database", 100, &[("server.head_timeout", "1s"), ("server.max_connections", "20")])
            .await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(shop.replica()).await;
        stream.write_all(b"POST /v1/orders HTTP/1.1\r\nhost: a\r\nx-slow: ").await.expect("it is sent");
        slow.push(tokio::spawn(async move {
            while stream.write_all(b".").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }));
    }
    // They have all places, and lose them.
    let fresh = reqwest::Client::new();
    let body = serde_json::json!({"sku": SKU, "quantity": 1, "buyer": "A"});
    let order = fresh.post(format!("{}/v1/orders", shop.replica().url)).json(&body).send();
    let order = timeout(PATIENCE, order).await.expect("a slow client is not waited for").expect("an answer");
    assert_eq!(order.status(), 201);
    for stream in slow {
        timeout(PATIENCE, stream).await.expect("each slow client is let go").expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_path_leads_where_another_does_not() {
    let shop = shop().await;
    let audit = format!("/v1/admin/products/{SKU}/audit");
    let spelt = [
        "/v1/../v1/admin/products/SKU/audit",
        "/v1/products/../admin/products/SKU/audit",
        "/v1/products/%2e%2e/admin/products/SKU/audit",
        "/v1/products/..%2fadmin%2fproducts%2fSKU%2faudit",
        "/v1/%61dmin/products/SKU/audit",
        "/v1/admin%2fproducts/SKU/audit",
        "/v1%2fadmin/products/SKU/audit",
        "//v1/admin/products/SKU/audit",
        "/v1//admin/products/SKU/audit",
        "/v1/admin/products/SKU/audit/",
        "/v1/admin/products/SKU/audit;x",
        "/v1/admin/products/SKU/./audit",
        "/V1/Admin/products/SKU/audit",
        "/v1/admin\\products\\SKU\\audit",
        "/docs/../v1/admin/products/SKU/audit",
        "/docs/..%2fv1%2fadmin%2fproducts%2fSKU%2faudit",
        "/docs/../../../../../../etc/passwd",
        "/docs/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/v1/admin/products/SKU/audit%00",
        "/v1/admin/products/SKU/audit%0d%0ax:%20y",
        "audit",
        "*",
        "",
    ];
    let get = |target: &str, token: Option<&str>| {
        let token = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
        format!("GET {target} HTTP/1.1\r\nhost: a\r\n{token}connection: close\r\n\r\n")
    };
    for target in spelt.map(|target| target.replace("SKU", SKU)) {
        // Not even for those who may: what a proxy in front forbids by its path is not reached by another.
        for token in [None, Some(TOKEN)] {
            let answers = send(shop.replica(), get(&target, token).as_bytes()).await;
            assert!(statuses(&answers).iter().all(|s| [400, 404, 422].contains(s)), "{target}: {answers}");
            assert!(!answers.contains("oversold_units") && !answers.contains("root:"), "{target}: {answers}");
        }
    }
    // The absolute form is the same path, whatever the host, and needs the same token.
    let absolute = format!("http://elsewhere.example{audit}");
    for (target, token, status) in [
        (&audit, None, 401),
        (&absolute, None, 401),
        (&absolute, Some(SERVER_TOKEN), 401),
        (&absolute, Some(TOKEN), 200),
        (&audit, Some(TOKEN), 200),
    ] {
        let answers = send(shop.replica(), get(target, token).as_bytes()).await;
        assert_eq!(statuses(&answers), [status], "{target}: {answers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_method_does_what_it_should_not() {
    let shop = shop().await;
    for method in ["TRACE", "TRACK", "DEBUG", "PROPFIND", "PATCH", "DELETE", "get", "OPTIONS"] {
        for path in ["/", "/v1/orders", "/livez", "/docs/"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: a\r\nx-mine: echoed\r\nconnection: close\r\n\r\n");
            let answers = send(shop.replica(), request.as_bytes()).await;
            let seen = statuses(&answers);
            assert!(seen.len() == 1 && [404, 405].contains(&seen[0]), "{method} {path}: {answers}");
            assert!(!answers.contains("echoed"), "{method} {path}: {answers}");
        }
    }
    for target in ["elsewhere.example:443", "127.0.0.1:5432", "/v1/orders"] {
        let request = format!("CONNECT {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answers = send(shop.replica(), request.as_bytes()).await;
        assert!(statuses(&answers).iter().all(|status| [400, 404, 405].contains(status)), "{answers}");
    }
    // A head without its body is no way round the token.
    let head =
        format!("HEAD /v1/admin/products/{SKU}/audit HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(statuses(&send(shop.replica(), head.as_bytes()).await), [401]);
}

/// What anybody may call. Whatever is new is here, or needs a token.
const FOR_ANYBODY: [&str; 10] = [
    "getInfo",
    "getLivez",
    "getMetrics",
    "getOrder",
    "getProduct",
    "getReadyz",
    "getStock",
    "listProducts",
    "payOrder",
    "placeOrder",
];

/// An operation of the description.
struct Operation {
    id: String,
    method: Method,
    path: String,
    /// The schemes of which one is enough.
    security: Vec<String>,
}

async fn operations(replica: &Replica) -> Vec<Operation> {
    let description: Value = replica.get("/openapi.json").await.json().await.expect("a description");
    let paths = description["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods").iter();
        methods.map(move |(method, operation)| Operation {
            id: operation["operationId"].as_str().expect("a name").to_owned(),
            method: method.to_uppercase().parse().expect("a method"),
            path: path.replace("{sku}", SKU).replace("{id}", "01a20168-0000-7000-8000-000000000000"),
            security: operation["security"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|scheme| scheme.as_object().expect("a scheme").keys().cloned())
                .collect(),
        })
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_for_anybody_or_needs_its_token() {
    let mut shop = shop().await;
    shop.add_replica("database", &[("server.listen", "0.0.0.0:0"), ("admin.token", "")]).await;
    let [replica, bare] = [&shop.replicas[0], &shop.replicas[1]];
    let call = async |replica: &Replica, operation: &Operation, token: Option<&str>| {
        let url = format!("{}{}", replica.url, operation.path);
        let request = replica.http.request(operation.method.clone(), url);
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.expect("an answer")
    };
    let operations = operations(replica).await;
    assert!(operations.len() > 15, "{}", operations.len());
    for operation in &operations {
        let Operation { id, path, security, .. } = operation;
        let is_admin = path.starts_with("/v1/admin");
        match security.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => assert!(!is_admin && FOR_ANYBODY.contains(&id.as_str()), "{id} needs no token"),
            ["admin"] => assert!(is_admin, "{id}"),
            ["server", "admin"] => assert!(!is_admin, "{id}"),
            _ => panic!("{id} needs {security:?}"),
        }
        let refused = |status: StatusCode| [401, 403].contains(&status.as_u16());
        if security.is_empty() {
            assert!(!refused(call(replica, operation, None).await.status()), "{id}");
            continue;
        }
        for wrong in [None, Some("wrong"), Some(""), Some(&TOKEN[1..]), Some(&SERVER_TOKEN[1..])] {
            let (status, slug, _) = problem(call(replica, operation, wrong).await).await;
            assert_eq!((status, slug.as_str()), (401, "unauthorized"), "{id}, {wrong:?}");
        }
        let with_server = call(replica, operation, Some(SERVER_TOKEN)).await.status();
        assert_eq!(refused(with_server), is_admin, "{id}");
        assert!(!refused(call(replica, operation, Some(TOKEN)).await.status()), "{id}");
        // Where there are no tokens, none is right: not even an empty one.
        for token in [None, Some(""), Some(TOKEN), Some(SERVER_TOKEN)] {
            let (status, ..) = problem(call(bare, operation, token).await).await;
            assert_eq!(status, 403, "{id}, {token:?}");
        }
    }
}
