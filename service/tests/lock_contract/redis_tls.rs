//! Redis over TLS, with certificates that are made here.

use std::path::PathBuf;

use lab::{Redis, RedisTls, Server as _, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::backend::Backend;

/// An authority, and the files that it has made.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        // Not the name of those whom it vouches for.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let authority = Self {
            issuer: issuer.expect("a certificate"),
            directory: tempfile::tempdir().expect("a directory"),
        };
        std::fs::write(authority.file("ca.pem"), authority.issuer.pem()).expect("a file");
        authority
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// Makes a certificate for a name, and returns the files of a server that has it.
    fn certify(&self, name: &str, asks_clients: bool) -> TlsFiles {
        let (key, params) =
            (KeyPair::generate().expect("a key"), CertificateParams::new(vec![name.to_owned()]));
        let certificate = params.expect("parameters").signed_by(&key, &self.issuer).expect("a certificate");
        let (cert_file, key_file) = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
        std::fs::write(&cert_file, certificate.pem()).expect("a file");
        std::fs::write(&key_file, key.serialize_pem()).expect("a file");
        TlsFiles { cert: cert_file, key: key_file, ca: self.file("ca.pem"), asks_clients }
    }
}

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
