//! A ZooKeeper server that speaks TLS.

use std::fs::read_to_string;
use std::io;

use super::Zookeeper;
use crate::launch::{free_port, on_fresh_ports};
use crate::{Lab, ServerError, TlsFiles};

/// A ZooKeeper server that speaks TLS on a port of its own, beside the one without that the laboratory uses.
#[derive(Debug)]
pub struct ZookeeperTls {
    zookeeper: Zookeeper,
    port: u16,
    _lab: Lab,
}

impl ZookeeperTls {
    /// Makes a fresh server and waits until it answers.
    pub async fn start(files: &TlsFiles) -> Result<Self, ServerError> {
        let lab = Lab::new().map_err(ServerError::prepare("a directory"))?;
        write_key_store(&lab, files).map_err(ServerError::prepare("a key store"))?;
        let (zookeeper, port) = on_fresh_ports(|| start(&lab, files)).await?;
        Ok(Self { zookeeper, port, _lab: lab })
    }

    /// The port on which it speaks TLS, at 127.0.0.1 and localhost.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same server without TLS.
    pub fn zookeeper(&self) -> &Zookeeper {
        &self.zookeeper
    }
}

const KEY_STORE: &str = "server.pem";

/// The server has its key and its certificate in one file.
fn write_key_store(lab: &Lab, files: &TlsFiles) -> io::Result<()> {
    std::fs::write(lab.file(KEY_STORE), read_to_string(&files.key)? + &read_to_string(&files.cert)?)
}

async fn start(lab: &Lab, files: &TlsFiles) -> Result<(Zookeeper, u16), ServerError> {
    let port = free_port()?;
    // Only Netty, of the two ways to have clients, has TLS.
    let configuration = format!(
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\nsecureClientPort={port}\n\
         secureClientPortAddress=127.0.0.1\nssl.keyStore.type=PEM\nssl.keyStore.location={}\n\
         ssl.trustStore.type=PEM\nssl.trustStore.location={}\nssl.clientAuth={}\n",
        lab.file(KEY_STORE).display(),
        files.ca.display(),
        if files.asks_clients { "need" } else { "none" },
    );
    Ok((Zookeeper::start_with(&configuration).await?, port))
}
