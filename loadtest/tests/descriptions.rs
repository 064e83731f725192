//! Wrong descriptions of shops: each gets a message that says what is wrong with it, and none a verdict.

#[path = "support/shops.rs"]
mod shops;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use loadtest::shop::rehearse;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use shops::{Shop, describe, forms, load, serve};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// How that shop's last answer is read.
const RULES: &str =
    "ok = [{ status = 302, location = \"/thanks\" }]\nrefused = [{ status = 302, location = \"sold-out\" }]";

/// Where that shop says what was sold, and what else may stand there.
const COUNT: &str = "path = \"/count\"\njsonpath = \"$.orders[*].units\"";
const NO_TABLE: &str = "sql = { database = \"sqlite::memory:\", statement = \"select 1 from nowhere\" }";
const NULL: &str = "sql = { database = \"sqlite::memory:\", statement = \"select null\" }";
const TWO_ROWS: &str = "sql = { database = \"sqlite::memory:\", statement = \"select 1 union select 2\" }";
const SYNTAX: &str = "sql = { database = \"sqlite::memory:\", statement = \"selekt 1\" }";

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_description_is_told_what_is_wrong_with_it() {
    let url = Shop::serve(true).await;
    let right = forms(&url);
    // What is changed, into what, and what the message has to name.
    let wrong: [(&str, &str, &[&str]); 42] = [
        ("name = \"forms\"", "nmae = \"forms\"", &["nmae"]),
        ("[[purchase]]", "[[purchases]]", &["purchases"]),
        ("targets = [", "targets = [\"ftp://x\", ", &["targets", "ftp"]),
        ("{{csrf}}", "{{token}}", &["purchase, step 2: buy", "{{token}}", "csrf"]),
        ("{{stock}}", "{{stock", &["setup, step 1"]),
        ("input[name=csrf]", "input[[", &["captures.csrf", "input[["]),
        ("$.orders[*].units", "$.orders[", &["truth.sold", "JSONPath"]),
        ("status = 302, location = \"/thanks\"", "status = \"30x\"", &["purchase, step 2: buy", "ok", "30x"]),
        (
            "{ css = \"input[name=csrf]\" }",
            "{ css = \"a\", header = \"b\" }",
            &["captures.csrf", "exactly one"],
        ),
        (
            "path = \"/count\"",
            "sql = { database = \"oracle://x\", statement = \"select 1\" }",
            &["truth.sold", "postgres", "mysql", "sqlite"],
        ),
        ("input[name=csrf]", "input[name=none]", &["cart", "captures.csrf", "finds nothing"]),
        ("path = \"/cart\"", "path = \"/kart\"", &["cart", "404"]),
        ("path = \"/cart\"", "path = \"/login\"", &["cart", "302", "/login"]),
        (
            "path = \"/cart\"",
            "path = \"/login\"\nfollow = true",
            &["cart", "more than 10 redirections", "/login"],
        ),
        ("name = \"cart\"", "name = \"cart\"\ndecides = true\nsql.x = 1", &["sql"]),
        ("[[setup]]", "[[setup]]\ndecides = true", &["setup, step 1", "decides"]),
        ("location = \"/thanks\"", "location = \"/danke\"", &["buy", "neither ok nor refused", "/thanks"]),
        ("location = \"sold-out\"", "location = \"empty\"", &["a refusal is not recognised", "sold-out"]),
        (
            "location = \"sold-out\" }",
            "location = \"empty\" }, { status = 403 }",
            &["a refusal is not recognised"],
        ),
        ("path = \"/stock/", "path = \"/stok/", &["setup, step 1", "404", "sent: POST http"]),
        ("path = \"/stock/{{stock}}", "path = \"/add/20", &["setup", "a restock that adds"]),
        ("$.orders[*].units", "$.carts", &["truth.sold", "such as carts"]),
        (
            "path = \"/count\"",
            "path = \"/count\"\nheaders.a = \"{{csrf}}\"",
            &["truth.sold", "headers.a", "{{csrf}}"],
        ),
        ("[[setup]]", "[[setup]]\nrefused = []", &["setup, step 1", "refused"]),
        ("$.orders[*].units", "$.left", &["truth.sold", "before a purchase"]),
        ("path = \"/count\"", "path = \"/thanks\"", &["truth.sold", "not JSON"]),
        (&url, "http://127.0.0.1:1", &["127.0.0.1:1", "refused"]),
        (&url, "http://nobody.invalid", &["nobody.invalid", "--i-own-this-target"]),
        (&url, "{{env.NO_SUCH_SHOP}}", &["targets", "NO_SUCH_SHOP"]),
        ("path = \"/cart\"", "path = \"http://192.0.2.1/cart\"", &["cart", "192.0.2.1", "--i-own"]),
        ("$.orders[*].units", "$.restless", &["truth.sold", "does not come to rest"]),
        ("$.orders[*].units", "$.half", &["truth.sold", "0.5", "no whole number"]),
        ("$.orders[*].units", "$.orders", &["truth.sold", "no whole number"]),
        ("$.orders[*].units", "$.total", &["truth.sold", "$.total", "finds nothing"]),
        (COUNT, NO_TABLE, &["truth.sold", "no such table", "nowhere"]),
        (COUNT, NULL, &["truth.sold", "NULL", "coalesce"]),
        (COUNT, TWO_ROWS, &["truth.sold", "2 rows"]),
        (COUNT, SYNTAX, &["truth.sold", "syntax"]),
        ("name = \"cart\"", "name = \"cart\"\nidempotent = true", &["step 1: cart", "idempotent", "last"]),
        ("quantity = \"{{quantity}}\"", "number = \"{{env.NO_SUCH}}\"", &["buy", "form.number", "NO_SUCH"]),
        ("[truth.sold]", "[truth.orders]\npath = \"/count\"\njsonpath = \"$\"\n[truth.sold]", &["order"]),
        (RULES, "ok = [{ status = 302 }]", &["found nothing in stock", "rules under ok"]),
    ];
    for (right_part, wrong_part, named) in wrong {
        let text = right.replacen(right_part, wrong_part, 1);
        assert_ne!(text, right, "{right_part} is not there");
        let said = said_of(&text).await;
        assert!(!said.is_empty(), "{wrong_part} is taken for right");
        for part in named {
            assert!(said.contains(part), "{wrong_part}: {part:?} is not named: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_fails_is_told_from_one_that_is_described_wrongly() {
    let routes = Router::new()
        .route("/stock/{units}", post(|| async {}))
        .route("/cart", get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "it broke") }))
        .route("/hang", get(std::future::pending::<StatusCode>))
        .route("/count", get(|| async { r#"{"orders": []}"# }));
    let right = forms(&serve(routes).await);
    for (change, named) in [
        (("", ""), ["cart", "500", "it broke"]),
        (("path = \"/cart\"", "path = \"/hang\""), ["cart", "no answer within", "/hang"]),
    ] {
        let said = said_of(&right.replacen(change.0, change.1, 1)).await;
        assert!(named.iter().all(|part| said.contains(part)), "{named:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_is_refused_and_one_of_the_ca_file_is_not() {
    let shop = Shop::serve(true).await;
    let (url, certificate) = behind_tls(&shop).await;
    let text = forms(&url);
    let refused = said_of(&text).await;
    assert!(refused.contains(&url) && refused.to_lowercase().contains("certificate"), "{refused}");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ca.pem");
    let with_ca = format!("ca_file = \"{}\"\n{text}", file.display());
    let missing = said_of(&with_ca).await;
    assert!(missing.contains("ca_file: cannot read"), "{missing}");
    std::fs::write(&file, "no certificate").expect("it is written");
    let empty = said_of(&with_ca).await;
    assert!(empty.contains("has no certificate"), "{empty}");
    std::fs::write(&file, certificate).expect("it is written");
    assert_eq!(said_of(&with_ca).await, "");
    // HTTPS where HTTP is spoken.
    let spoken = said_of(&forms(&shop.replace("http:", "https:"))).await;
    assert!(spoken.contains("https://127.0.0.1"), "{spoken}");
}

/// What is said of a description and the shop that it is of; nothing, when it fits.
async fn said_of(text: &str) -> String {
    let mut load = load(&[2]);
    (load.door.timeout, load.settle) = (Duration::from_secs(2), Duration::from_secs(2));
    match describe(text) {
        Err(error) => format!("{error:#}"),
        Ok(shop) => match rehearse(&shop, &load).await {
            Err(error) => format!("{error:#}"),
            Ok(rehearsal) => rehearsal.faults.join("\n"),
        },
    }
}

/// The same shop behind TLS, with a certificate of its own, in PEM.
async fn behind_tls(shop: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("there are versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("they belong together");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let shop = shop.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, shop) = (acceptor.clone(), shop.clone());
            tokio::spawn(async move {
                let Ok(mut inside) = acceptor.accept(stream).await else { return };
                let Ok(mut outside) = TcpStream::connect(shop).await else { return };
                tokio::io::copy_bidirectional(&mut inside, &mut outside).await.ok();
            });
        }
    });
    (format!("https://{address}"), made.cert.pem())
}
