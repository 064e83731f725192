//! What of a connection is kept in files: the password, and what TLS needs.

use std::path::Path;

use deadpool_redis::redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates};
use rustls::crypto::ring;

use super::RedisSection;
use crate::config::ConfigError;

/// Completes connections with what the files hold. Fails where one cannot be read, or does not hold what it
/// should.
pub(super) fn complete(
    section: &RedisSection,
    connections: Vec<ConnectionInfo>,
) -> Result<Vec<ConnectionInfo>, ConfigError> {
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
    // Whatever else is compiled in; a process that has chosen already keeps its choice.
    ring::default_provider().install_default().ok();
    let client = |certificates| Client::build_with_tls(info.clone(), certificates);
    let refuse =
        |key: &str, error: deadpool_redis::redis::RedisError| ConfigError::new(key, error.to_string());
    let authorities = TlsCertificates { client_tls: None, root_cert: certificates.root_cert.clone() };
    client(authorities).map_err(|error| refuse("lock.redis.ca_file", error))?;
    let client = client(certificates.clone()).map_err(|error| refuse("lock.redis.key_file", error))?;
    Ok(client.get_connection_info().clone())
}

fn certificates(section: &RedisSection) -> Result<TlsCertificates, ConfigError> {
    let pem = |key: &str, file: &Path, what: &str| {
        let text = read(key, file)?;
        let holds = |label: &str| text.contains(&format!("{label}-----"));
        match text.contains("-----BEGIN ") && holds(what) {
            true => Ok(text.into_bytes()),
            false => Err(ConfigError::new(key, format!("{} holds no {what} in PEM", file.display()))),
        }
    };
    let root_cert = section.ca_file.as_deref();
    let root_cert = root_cert.map(|file| pem("lock.redis.ca_file", file, "CERTIFICATE")).transpose()?;
    let client_tls = match (&section.cert_file, &section.key_file) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig {
            client_cert: pem("lock.redis.cert_file", cert, "CERTIFICATE")?,
            client_key: pem("lock.redis.key_file", key, "PRIVATE KEY")?,
        }),
        _ => None,
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

/// The password in a file, without the end of its line.
fn password(file: &Path) -> Result<String, ConfigError> {
    const KEY: &str = "lock.redis.password_file";
    let text = read(KEY, file)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let password = text.strip_suffix('\r').unwrap_or(text);
    match password.is_empty() {
        true => Err(ConfigError::new(KEY, format!("{} is empty", file.display()))),
        false => Ok(password.to_owned()),
    }
}

fn read(key: &str, file: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(file)
        .map_err(|error| ConfigError::new(key, format!("{} cannot be read: {error}", file.display())))
}

#[cfg(test)]
mod tests {
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
