//! etcd over TLS, with certificates that are made here, and with users.

use lab::{Etcd, EtcdTls, Server as _};
use order_service::config::StrategyName;

use crate::authority::Authority;
use crate::backend::Backend;

fn url_of(server: &EtcdTls) -> String {
    format!("https://localhost:{}", server.port())
}

async fn backend(keys: &[(&str, &str)]) -> Backend {
    let lease = [("lock.etcd.lease", "5s")];
    Backend::elsewhere(StrategyName::Etcd, "etcd over TLS", &[&lease[..], keys].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_authority_is_trusted_has_the_lock() {
    let authority = Authority::new();
    let server = EtcdTls::start(&authority.certify("localhost", false)).await.expect("it starts");
    let (url, ca) = (url_of(&server), authority.path("ca.pem"));
    let backend = backend(&[("lock.etcd.url", &url), ("lock.etcd.ca_file", &ca)]).await;
    let (counted, tokens) = crate::count_with(&backend, 2, 4).await;
    assert_eq!(counted, 80);
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
    backend.assert_free(&*backend.participant().await).await;
    backend.sell_one().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_prove_who_it_is_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = EtcdTls::start(&authority.certify("localhost", false)).await.expect("it starts");
    let elsewhere = EtcdTls::start(&authority.certify("elsewhere.example", false)).await.expect("it starts");
    let plain = Etcd::start().await.expect("it starts");
    let backend = backend(&[]).await;
    let (ca, other_ca) = (authority.path("ca.pem"), other.path("ca.pem"));
    for (url, ca_file, why) in [
        (url_of(&server), None, "its authority is not trusted; lock.etcd.ca_file"),
        (url_of(&server), Some(&*other_ca), "its authority is not trusted; lock.etcd.ca_file"),
        (url_of(&elsewhere), Some(&*ca), "elsewhere.example"),
        (format!("https://{}", plain.address()), Some(&*ca), "it may not speak TLS"),
        (format!("http://localhost:{}", server.port()), None, "https:// instead of http://"),
        (plain.url(), Some(&*ca), "lock.etcd.ca_file: is for https:// addresses"),
    ] {
        let mut keys = vec![("lock.etcd.url", url.as_str())];
        keys.extend(ca_file.map(|file| ("lock.etcd.ca_file", file)));
        let refused = backend.refused(&keys).await;
        assert!(refused.contains(why), "{url}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_asks_for_a_certificate_gets_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = EtcdTls::start(&authority.certify("localhost", true)).await.expect("it starts");
    authority.certify("shop", false);
    other.certify("shop", false);
    let (url, ca) = (url_of(&server), authority.path("ca.pem"));
    let reach = [("lock.etcd.url", &*url), ("lock.etcd.ca_file", &*ca)];
    let without = backend(&reach).await;
    let (cert, key) = (authority.path("shop.pem"), authority.path("shop.key"));
    let (other_cert, other_key) = (other.path("shop.pem"), other.path("shop.key"));
    for (cert_file, key_file, why) in [
        (None, None, "lock.etcd.cert_file"),
        (Some(&*cert), None, "lock.etcd.cert_file: needs lock.etcd.key_file"),
        (Some(&*cert), Some(&*other_key), "lock.etcd.key_file: "),
        (Some(&*other_cert), Some(&*other_key), "lock.etcd.cert_file"),
    ] {
        let cert_file = cert_file.map(|file| ("lock.etcd.cert_file", file));
        let keys: Vec<_> =
            cert_file.into_iter().chain(key_file.map(|file| ("lock.etcd.key_file", file))).collect();
        let refused = without.refused(&keys).await;
        assert!(refused.contains(why), "{keys:?}: {refused}");
    }
    let certificate = [("lock.etcd.cert_file", &*cert), ("lock.etcd.key_file", &*key)];
    let backend = backend(&[reach, certificate].concat()).await;
    backend.assert_free(&*backend.participant().await).await;
}

const PASSWORD: &str = "hair dryer";

/// Makes a user who may do with the locks' keys what the lock does, and has everybody be one.
async fn make_user(etcd: &Etcd) {
    // From "/stocklock" to before "/stocklocl": all that begins with it.
    let keys = r#""key": "L3N0b2NrbG9jaw==", "range_end": "L3N0b2NrbG9jbA==""#;
    for (path, body) in [
        ("user/add", r#"{"name": "root", "password": "root"}"#.to_owned()),
        ("role/add", r#"{"name": "root"}"#.to_owned()),
        ("user/grant", r#"{"user": "root", "role": "root"}"#.to_owned()),
        ("user/add", format!(r#"{{"name": "shop", "password": "{PASSWORD}"}}"#)),
        ("role/add", r#"{"name": "locks"}"#.to_owned()),
        ("role/grant", format!(r#"{{"name": "locks", "perm": {{"permType": "READWRITE", {keys}}}}}"#)),
        ("user/grant", r#"{"user": "shop", "role": "locks"}"#.to_owned()),
        ("enable", "{}".to_owned()),
    ] {
        etcd.call(&format!("/v3/auth/{path}"), &body).await.expect("an answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_users_knows_the_one_that_is_configured_also_after_a_restart() {
    let authority = Authority::new();
    let mut server = EtcdTls::start(&authority.certify("localhost", true)).await.expect("it starts");
    make_user(server.etcd()).await;
    authority.certify("shop", false);
    authority.certify_namelessly("nobody");
    let file = |name: &str| authority.path(name);
    let (url, ca, cert, key) = (url_of(&server), file("ca.pem"), file("nobody.pem"), file("nobody.key"));
    let reach = [
        ("lock.etcd.url", &*url),
        ("lock.etcd.ca_file", &*ca),
        ("lock.etcd.cert_file", &*cert),
        ("lock.etcd.key_file", &*key),
    ];
    let without = backend(&reach).await;
    let (named_cert, named_key) = (file("shop.pem"), file("shop.key"));
    let user = [("lock.etcd.user", "shop"), ("lock.etcd.password", PASSWORD)];
    for (keys, why) in [
        (vec![], "it has users: lock.etcd.user"),
        (vec![user[0], ("lock.etcd.password", "wrong")], "authentication failed"),
        (vec![user[0]], "lock.etcd.user: needs lock.etcd.password"),
        (vec![user[1]], "lock.etcd.password: needs lock.etcd.user"),
        (
            [&user[..], &[("lock.etcd.cert_file", &named_cert), ("lock.etcd.key_file", &named_key)]].concat(),
            "CommonName",
        ),
    ] {
        let refused = without.refused(&keys).await;
        assert!(refused.contains(why), "{keys:?}: {refused}");
        assert!(!refused.contains(PASSWORD), "{refused}");
    }
    std::fs::write(file("password"), format!("{PASSWORD}\n")).expect("a file");
    let password_file = file("password");
    let user = [user[0], ("lock.etcd.password_file", &password_file)];
    let backend = backend(&[&reach[..], &user].concat()).await;
    let lock = backend.participant().await;
    backend.assert_free(&*lock).await;
    // It forgets whom it knew, and knows them again by their passwords.
    server.etcd_mut().kill().await.expect("it is killed");
    server.etcd_mut().restart().await.expect("it starts again");
    backend.assert_free(&*lock).await;
    let (counted, _) = crate::count_with(&backend, 2, 4).await;
    assert_eq!(counted, 80);
}
