//! A Redis server that speaks TLS.

use super::Redis;
use crate::{ServerError, TlsFiles};

/// A Redis server that speaks TLS on a port of its own, beside the one without that the laboratory uses.
#[derive(Debug)]
pub struct RedisTls {
    redis: Redis,
}

impl RedisTls {
    /// Makes a fresh server and waits until it answers.
    pub async fn start(files: &TlsFiles) -> Result<Self, ServerError> {
        Ok(Self { redis: Redis::start_as(None, false, &[], Some(files)).await? })
    }

    /// The port on which it speaks TLS, at 127.0.0.1 and localhost.
    pub fn port(&self) -> u16 {
        self.redis.known_port()
    }

    /// The same server without TLS.
    pub fn redis(&self) -> &Redis {
        &self.redis
    }
}

/// What makes a server speak TLS on a port, with its clients and with others that it replicates.
pub(super) fn tls_options(tls: Option<&(TlsFiles, u16)>) -> Vec<String> {
    let settings = settings(tls);
    settings.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
}

/// The same as lines of a configuration.
pub(super) fn tls_lines(tls: Option<&(TlsFiles, u16)>) -> String {
    settings(tls).into_iter().map(|(name, value)| format!("{name} {value}\n")).collect()
}

fn settings(tls: Option<&(TlsFiles, u16)>) -> Vec<(&'static str, String)> {
    let Some((files, port)) = tls else { return Vec::new() };
    vec![
        ("tls-port", port.to_string()),
        ("tls-cert-file", files.cert.display().to_string()),
        ("tls-key-file", files.key.display().to_string()),
        ("tls-ca-cert-file", files.ca.display().to_string()),
        ("tls-auth-clients", if files.asks_clients { "yes" } else { "no" }.to_owned()),
        ("tls-replication", "yes".to_owned()),
    ]
}
