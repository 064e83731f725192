//! An etcd server that speaks TLS.

use super::Etcd;
use crate::{ServerError, TlsFiles};

/// An etcd server that speaks TLS on a port of its own, beside the one without that the laboratory uses.
#[derive(Debug)]
pub struct EtcdTls {
    etcd: Etcd,
}

impl EtcdTls {
    /// Makes a fresh server and waits until it answers.
    pub async fn start(files: &TlsFiles) -> Result<Self, ServerError> {
        Ok(Self { etcd: Etcd::start_with(Some(files)).await? })
    }

    /// The port on which it speaks TLS, at 127.0.0.1 and localhost.
    pub fn port(&self) -> u16 {
        self.etcd.ports.tls
    }

    /// The same server without TLS.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// The same, to be ended and started again.
    pub fn etcd_mut(&mut self) -> &mut Etcd {
        &mut self.etcd
    }
}
