//! ZooKeeper over TLS, with certificates that are made here.

use lab::{Zookeeper, ZookeeperTls};
use order_service::config::StrategyName;

use crate::authority::Authority;
use crate::backend::Backend;

fn servers(server: &ZookeeperTls) -> String {
    format!("localhost:{}", server.port())
}

async fn backend(keys: &[(&str, &str)]) -> Backend {
    // The first handshake of a server in Java takes its time.
    let own = [("lock.zookeeper.tls", "true"), ("lock.zookeeper.session_timeout", "10s")];
    Backend::elsewhere(StrategyName::Zookeeper, "zookeeper over TLS", &[&own[..], keys].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_whose_authority_is_trusted_has_the_lock() {
    let authority = Authority::new();
    let server = ZookeeperTls::start(&authority.certify("localhost", false)).await.expect("it starts");
    let (servers, ca) = (servers(&server), authority.path("ca.pem"));
    let backend = backend(&[("lock.zookeeper.servers", &servers), ("lock.zookeeper.ca_file", &ca)]).await;
    let (counted, tokens) = crate::count_with(&backend, 2, 4).await;
    assert_eq!(counted, 80);
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
    backend.assert_free(&*backend.participant().await).await;
    backend.sell_one().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_that_cannot_prove_who_it_is_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = ZookeeperTls::start(&authority.certify("localhost", false)).await.expect("it starts");
    let elsewhere = authority.certify("elsewhere.example", false);
    let elsewhere = ZookeeperTls::start(&elsewhere).await.expect("it starts");
    let plain = Zookeeper::start().await.expect("it starts");
    let (ca, other_ca) = (authority.path("ca.pem"), other.path("ca.pem"));
    let backend = backend(&[]).await;
    // The client of ZooKeeper goes on trying for so long.
    let without = [("lock.zookeeper.tls", "false"), ("lock.zookeeper.session_timeout", "1s")];
    for (servers, keys, why) in [
        (servers(&server), vec![], "its authority is not trusted; lock.zookeeper.ca_file"),
        (servers(&server), vec![("lock.zookeeper.ca_file", &*other_ca)], "lock.zookeeper.ca_file"),
        (servers(&elsewhere), vec![("lock.zookeeper.ca_file", &*ca)], "elsewhere.example"),
        (
            plain.address(),
            vec![("lock.zookeeper.ca_file", &*ca)],
            "does it speak TLS on this port? lock.zookeeper.tls",
        ),
        (servers(&server), without.to_vec(), "lock.zookeeper.tls = true"),
        (
            servers(&server),
            vec![("lock.zookeeper.tls", "false"), ("lock.zookeeper.ca_file", &*ca)],
            "lock.zookeeper.ca_file: is for TLS",
        ),
    ] {
        let keys = [&[("lock.zookeeper.servers", &*servers)], &keys[..]].concat();
        let refused = backend.refused(&keys).await;
        assert!(refused.contains(why), "{keys:?}: {refused}");
        assert!(refused.contains(&servers) || refused.contains("is for TLS"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_that_asks_for_a_certificate_gets_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = ZookeeperTls::start(&authority.certify("localhost", true)).await.expect("it starts");
    authority.certify("shop", false);
    other.certify("shop", false);
    let (servers, ca) = (servers(&server), authority.path("ca.pem"));
    let reach = [("lock.zookeeper.servers", &*servers), ("lock.zookeeper.ca_file", &*ca)];
    let backend_without = backend(&reach).await;
    let (cert, key) = (authority.path("shop.pem"), authority.path("shop.key"));
    let (other_cert, other_key) = (other.path("shop.pem"), other.path("shop.key"));
    for (cert_file, key_file, why) in [
        (None, None, "lock.zookeeper.cert_file"),
        (Some(&*cert), None, "lock.zookeeper.cert_file: needs lock.zookeeper.key_file"),
        (None, Some(&*key), "lock.zookeeper.key_file: needs lock.zookeeper.cert_file"),
        (Some(&*cert), Some(&*other_key), "lock.zookeeper.key_file: "),
        (Some(&*other_cert), Some(&*other_key), "does not accept the certificate"),
        (Some(&*cert), Some("no/such/file"), "lock.zookeeper.key_file: no/such/file cannot be read"),
    ] {
        let cert_file = cert_file.map(|file| ("lock.zookeeper.cert_file", file));
        let keys: Vec<_> =
            cert_file.into_iter().chain(key_file.map(|file| ("lock.zookeeper.key_file", file))).collect();
        let refused = backend_without.refused(&keys).await;
        assert!(refused.contains(why), "{keys:?}: {refused}");
    }
    let certificate = [("lock.zookeeper.cert_file", &*cert), ("lock.zookeeper.key_file", &*key)];
    let backend = backend(&[reach, certificate].concat()).await;
    backend.assert_free(&*backend.participant().await).await;
}
