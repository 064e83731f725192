//! Redis over TLS, with certificates that are made here.

use lab::{Redis, RedisCluster, RedisSentinels, RedisTls, Server as _};
use order_service::lock::Mode;

use crate::authority::Authority;
use crate::backend::{Backend, after};
use crate::redis_failover::until_healed;

fn url_of(server: &RedisTls) -> String {
    format!("rediss://localhost:{}", server.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_authority_is_trusted_has_the_lock() {
    let authority = Authority::new();
    let files = authority.certify("localhost", false);
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(RedisTls::start(&files).await.expect("the server starts"));
    }
    let urls: Vec<_> = servers.iter().map(url_of).collect();
    // One server, and a majority of several.
    for url in [urls[0].clone(), urls.join(",")] {
        let keys = [("lock.redis.url", url.as_str()), ("lock.redis.ca_file", &authority.path("ca.pem"))];
        let backend = Backend::of_redis("redis over TLS", &keys).await;
        let (counted, tokens) = crate::count_together(&backend).await;
        assert_eq!(counted, 320);
        assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
        backend.assert_free(&*backend.participant().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_prove_who_it_is_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = RedisTls::start(&authority.certify("localhost", false)).await.expect("it starts");
    let elsewhere = RedisTls::start(&authority.certify("elsewhere.example", false)).await.expect("it starts");
    let plain = Redis::start().await.expect("it starts");
    let backend = Backend::of_redis("redis over TLS", &[]).await;
    let ca = authority.path("ca.pem");
    for (url, ca_file, why) in [
        (url_of(&server), None, "lock.redis.ca_file"),
        (url_of(&server), Some(other.path("ca.pem")), "lock.redis.ca_file"),
        (url_of(&elsewhere), Some(ca.clone()), "elsewhere.example"),
        (format!("rediss://{}", plain.address()), Some(ca.clone()), "redis:// instead of rediss://"),
        (format!("redis://localhost:{}", server.port()), None, "rediss:// instead of redis://"),
        // Verification cannot be turned off.
        (format!("{}/#insecure", url_of(&server)), None, "lock.redis.url"),
        (plain.url(), Some(ca), "lock.redis.ca_file"),
    ] {
        let mut keys = vec![("lock.redis.url", url.as_str())];
        keys.extend(ca_file.as_deref().map(|file| ("lock.redis.ca_file", file)));
        let refused = backend.refused(&keys).await;
        assert!(refused.contains(why), "{url}: {refused}");
        assert!(
            refused.contains("localhost") || refused.contains("127.0.0.1") || refused.contains("lock.redis")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_a_certificate_gets_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = RedisTls::start(&authority.certify("localhost", true)).await.expect("it starts");
    authority.certify("shop", false);
    other.certify("shop", false);
    let (url, ca) = (url_of(&server), authority.path("ca.pem"));
    let reach = [("lock.redis.url", url.as_str()), ("lock.redis.ca_file", &ca)];
    let backend = Backend::of_redis("redis over TLS", &reach).await;
    let (cert, key) = (authority.path("shop.pem"), authority.path("shop.key"));
    let (other_cert, other_key) = (other.path("shop.pem"), other.path("shop.key"));
    for (cert_file, key_file, why) in [
        (None, None, "lock.redis.cert_file"),
        (Some(&cert), None, "lock.redis.key_file"),
        (None, Some(&key), "lock.redis.cert_file"),
        (Some(&cert), Some(&cert), "lock.redis.key_file: "),
        (Some(&other_cert), Some(&other_key), "certificate"),
        (Some(&cert), Some(&"no/such/file".to_owned()), "lock.redis.key_file: no/such/file cannot be read"),
    ] {
        let mut keys = Vec::new();
        keys.extend(cert_file.map(|file| ("lock.redis.cert_file", file.as_str())));
        keys.extend(key_file.map(|file| ("lock.redis.key_file", file.as_str())));
        let refused = backend.refused(&keys).await;
        assert!(refused.contains(why), "{keys:?}: {refused}");
    }
    let with_certificate = [("lock.redis.cert_file", cert.as_str()), ("lock.redis.key_file", key.as_str())];
    let backend = Backend::of_redis("redis over TLS", &[reach, with_certificate].concat()).await;
    backend.assert_free(&*backend.participant().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_the_servers_that_they_name_are_all_spoken_to_over_tls() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = authority.certify("127.0.0.1", false);
    let mut sentinels = RedisSentinels::start_with_tls("shop", &files).await.expect("they start");
    let (url, ca) = (sentinels.url(), authority.path("ca.pem"));
    let keys = [("lock.redis.url", &*url), ("lock.redis.sentinel", "shop"), ("lock.redis.ca_file", &*ca)];
    let backend = Backend::of_redis("redis with sentinels over TLS", &keys).await;
    let refused = backend.refused(&[("lock.redis.ca_file", &other.path("ca.pem"))]).await;
    assert!(refused.contains("lock.redis.ca_file"), "{refused}");
    let lock = backend.participant().await;
    let last = until_healed(&*lock).await;
    sentinels.servers()[0].kill().await.expect("it is killed");
    let token = until_healed(&*lock).await;
    assert!(token > last, "{token} after {last}");
    backend.assert_free(&*lock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_of_a_cluster_are_spoken_to_over_tls() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = authority.certify("127.0.0.1", false);
    let cluster = RedisCluster::start_with_tls(&files).await.expect("it starts");
    let (url, ca) = (cluster.url(), authority.path("ca.pem"));
    // The others are found by the first.
    let first = url.split(',').next().expect("a node");
    let keys = [("lock.redis.url", first), ("lock.redis.cluster", "true"), ("lock.redis.ca_file", &*ca)];
    let backend = Backend::of_redis("redis cluster over TLS", &keys).await;
    let refused = backend.refused(&[("lock.redis.ca_file", &other.path("ca.pem"))]).await;
    assert!(refused.contains("lock.redis.ca_file"), "{refused}");
    let lock = backend.participant().await;
    let mut nodes = [0; 3];
    for number in 0..24 {
        let key = format!("key-{number}");
        let lease = lock.acquire(&key, Mode::Exclusive, after(10_000)).await.expect("a lease");
        let slot = cluster.slot_of(&format!("stocklock:{{{key}}}:lock")).await.expect("a slot");
        nodes[cluster.owner_of(slot).await.expect("a node")] += 1;
        lease.release().await;
    }
    assert!(nodes.iter().all(|locks| *locks > 0), "{nodes:?}");
}
