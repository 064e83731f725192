//! A Redis server that speaks TLS.

use std::path::PathBuf;

use super::Redis;
use crate::ServerError;
use crate::launch::{free_port, on_fresh_ports};

/// What a server with TLS is given, in PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Its certificate.
    pub cert: PathBuf,
    /// The private key of that.
    pub key: PathBuf,
    /// The authority whose clients it trusts.
    pub ca: PathBuf,
    /// Whether it asks clients for a certificate.
    pub asks_clients: bool,
}

/// A Redis server that speaks TLS on a port of its own, beside the one without that the laboratory uses.
#[derive(Debug)]
pub struct RedisTls {
    redis: Redis,
    port: u16,
}

impl RedisTls {
    /// Makes a fresh server and waits until it answers.
    pub async fn start(files: &TlsFiles) -> Result<Self, ServerError> {
        let (redis, port) = on_fresh_ports(|| start(files)).await?;
        Ok(Self { redis, port })
    }

    /// The port on which it speaks TLS, at 127.0.0.1 and localhost.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same server without TLS.
    pub fn redis(&self) -> &Redis {
        &self.redis
    }
}

async fn start(files: &TlsFiles) -> Result<(Redis, u16), ServerError> {
    let port = free_port()?;
    let options = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", files.cert.display().to_string()),
        ("--tls-key-file", files.key.display().to_string()),
        ("--tls-ca-cert-file", files.ca.display().to_string()),
        ("--tls-auth-clients", if files.asks_clients { "yes" } else { "no" }.to_owned()),
    ];
    let options: Vec<_> = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    Ok((Redis::start_as(None, false, &options).await?, port))
}
