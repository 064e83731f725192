//! A private ZooKeeper server.

mod ensemble;
mod node;
mod snapshot;
mod tls;

use std::collections::BTreeMap;

use async_trait::async_trait;

pub use ensemble::Ensemble;
pub(crate) use node::INSTALL_ZOOKEEPER;
pub use tls::ZookeeperTls;

use crate::launch::{ServerError, free_port, on_fresh_ports};
use crate::{Process, ProcessError, Server, ServerKind};
use node::{Node, Until};

/// A ZooKeeper server on a free port. Its tick is short, so that sessions of half a second are allowed.
#[derive(Debug)]
pub struct Zookeeper {
    node: Node,
}

impl Zookeeper {
    /// Whether the server is installed.
    pub fn is_installed() -> bool {
        node::is_installed()
    }

    /// Makes a fresh server and waits until it answers.
    pub async fn start() -> Result<Self, ServerError> {
        on_fresh_ports(|| Self::start_with("")).await
    }

    /// The same with further lines of configuration.
    async fn start_with(more: &str) -> Result<Self, ServerError> {
        Ok(Self { node: Node::start(free_port()?, None, more, Until::Serves).await? })
    }

    /// Where the server listens: host and port.
    pub fn address(&self) -> String {
        self.node.address()
    }

    /// What the server says about itself: the answer to the four-letter word `mntr`. A server that does not
    /// answer within a second is an error.
    pub async fn monitor(&self) -> std::io::Result<BTreeMap<String, String>> {
        self.node.monitor().await
    }

    /// Ends the server at once: SIGKILL. Its data, and the sessions in it, are kept.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        self.node.process.kill().await
    }

    /// Stops the server in its tracks: SIGSTOP.
    pub fn pause(&self) -> Result<(), ProcessError> {
        self.node.process.pause()
    }

    /// Lets it go on: SIGCONT.
    pub fn resume(&self) -> Result<(), ProcessError> {
        self.node.process.resume()
    }

    /// Starts the server again that was killed, on the same data and port.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.node.restart(Until::Serves).await
    }

    /// Ends the server, lets the next sequential child of an empty `node` have the number `counter`, and
    /// starts the server again on the same data and port.
    pub async fn restart_with_counter(&mut self, node: &str, counter: i32) -> Result<(), ServerError> {
        // What has happened is in the snapshot that is made at the start.
        self.kill().await?;
        self.restart().await?;
        self.kill().await?;
        let data = self.node.data();
        snapshot::set_child_counter(&data, node, counter).map_err(ServerError::prepare("the snapshot"))?;
        self.restart().await
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.node.process
    }
}

#[async_trait]
impl Server for Zookeeper {
    fn kind(&self) -> ServerKind {
        ServerKind::Zookeeper
    }

    fn addresses(&self) -> Vec<String> {
        vec![self.address()]
    }

    fn url_at(&self, addresses: &[String]) -> String {
        addresses[0].clone()
    }

    async fn kill(&mut self) -> Result<(), ServerError> {
        Ok(self.kill().await?)
    }

    async fn restart(&mut self) -> Result<(), ServerError> {
        match self.process().exited() {
            Some(_) => self.restart().await,
            None => Ok(()),
        }
    }

    async fn pause(&self) -> Result<(), ServerError> {
        Ok(self.pause()?)
    }

    fn resume(&self) -> Result<(), ServerError> {
        Ok(self.resume()?)
    }
}
