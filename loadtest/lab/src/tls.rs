//! What a server with TLS is given.

use std::path::PathBuf;

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
