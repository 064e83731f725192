//! What of a connection is kept in files: the password, and what TLS needs.

use deadpool_redis::redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates};

use super::RedisSection;
use crate::config::ConfigError;
use crate::config::secrets::read_password;
use crate::config::tls::{TlsPem, install_provider};

/// Completes connections with what the files hold. Fails where one cannot be read, or does not hold what it
/// should.
pub(super) fn complete(
    section: &RedisSection,
    connections: Vec<ConnectionInfo>,
) -> Result<Vec<ConnectionInfo>, ConfigError> {
    let password = |file| read_password("lock.redis.password_file", file);
    let password = section.password_file.as_deref().map(password).transpose()?;
    let certificates = certificates(section)?;
    connections
        .into_iter()
        .map(|mut info| {
            if let Some(password) = &password {
                let settings = info.redis_settings().clone().set_password(password);
                info = info.set_redis_settings(settings);
            }
            match info.addr() {
                ConnectionAddr::TcpTls { .. } => with_tls(info, &certificates),
                _ => Ok(info),
            }
        })
        .collect()
}

fn with_tls(info: ConnectionInfo, certificates: &TlsCertificates) -> Result<ConnectionInfo, ConfigError> {
    install_provider();
    let client = |certificates| Client::build_with_tls(info.clone(), certificates);
    let refuse =
        |key: &str, error: deadpool_redis::redis::RedisError| ConfigError::new(key, error.to_string());
    let authorities = TlsCertificates { client_tls: None, root_cert: certificates.root_cert.clone() };
    client(authorities).map_err(|error| refuse("lock.redis.ca_file", error))?;
    let client = client(certificates.clone()).map_err(|error| refuse("lock.redis.key_file", error))?;
    Ok(client.get_connection_info().clone())
}

fn certificates(section: &RedisSection) -> Result<TlsCertificates, ConfigError> {
    let TlsPem { authorities, identity, .. } = section.tls_files().read()?;
    let client_tls = identity.map(|identity| ClientTlsConfig {
        client_cert: identity.certificate.into_bytes(),
        client_key: identity.key.into_bytes(),
    });
    Ok(TlsCertificates { client_tls, root_cert: authorities.map(String::into_bytes) })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn refused(section: &RedisSection) -> ConfigError {
        section.connections().expect_err("it is refused")
    }

    #[test]
    fn a_password_in_a_file_wins_and_ends_with_its_line() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let section = RedisSection {
            url: "redis://shop:other@a".into(),
            password_file: Some(file.path().into()),
            ..RedisSection::default()
        };
        for (text, password) in
            [("secret", "secret"), ("secret\n", "secret"), ("two\nlines \r\n", "two\nlines ")]
        {
            std::fs::write(file.path(), text).expect("the file");
            let connections = section.connections().expect("a connection");
            let settings = connections[0].redis_settings();
            assert_eq!((settings.username(), settings.password()), (Some("shop"), Some(password)));
        }
        std::fs::write(file.path(), "\n").expect("the file");
        assert_eq!(refused(&section).key, "lock.redis.password_file");
    }

    #[test]
    fn a_file_that_is_not_what_it_should_be_is_refused_with_its_key() {
        let text = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(text.path(), "-----BEGIN NOTHING-----").expect("the file");
        let broken = tempfile::NamedTempFile::new().expect("a file");
        let pem = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        std::fs::write(broken.path(), pem).expect("the file");
        let section = RedisSection { url: "rediss://a".into(), ..RedisSection::default() };
        for (file, why) in [
            (Path::new("no/such/file"), "no/such/file cannot be read"),
            (text.path(), "holds no "),
            (broken.path(), "PEM"),
        ] {
            let file = Some(file.to_owned());
            let cases = [
                ("lock.redis.ca_file", RedisSection { ca_file: file.clone(), ..section.clone() }),
                (
                    "lock.redis.cert_file",
                    RedisSection { cert_file: file.clone(), key_file: file.clone(), ..section.clone() },
                ),
            ];
            for (key, section) in cases {
                let error = refused(&section);
                // A pair is blamed on the one that was looked at last.
                assert!(error.key == key || error.key == "lock.redis.key_file", "{error}");
                assert!(error.why.contains(why), "{error}");
            }
        }
    }
}
