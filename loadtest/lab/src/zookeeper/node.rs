//! One server, on its own or one of several.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::launch::ServerError;
use crate::user::as_user;
use crate::{Lab, Process};

/// How long the server may take to start: it is Java.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long it may take to answer a four-letter word.
const ANSWER: Duration = Duration::from_secs(1);

/// Where Debian puts the server, and Java.
const SERVER: &str = "/usr/share/java/zookeeper.jar";
const JAVA: &str = "/usr/bin/java";

/// What makes its log appear. It comes with the interface to it, without which the server does not run.
const LOG: &str = "/usr/share/java/slf4j-simple.jar";

/// What it has its clients with, over TLS or not, where it is configured so, beside what its package names.
const NETTY: &str = "/usr/share/java/netty-codec.jar:/usr/share/java/netty-resolver.jar:\
                     /usr/share/java/netty-transport-native-unix-common.jar";

/// The command that installs the server.
pub(crate) const INSTALL_ZOOKEEPER: &str = "apt-get install zookeeper";

/// What a start waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// Nothing: the process is there.
    Runs,
    /// It answers, which it also does when it is one of too few.
    Answers,
    /// It has its data, and serves sessions.
    Serves,
}

/// A server's place among several.
#[derive(Debug)]
pub(super) struct Membership {
    /// Its number, from 1.
    pub id: usize,
    /// The lines of the configuration that are the same for all.
    pub configuration: String,
}

/// A server with its data in a directory of its own.
#[derive(Debug)]
pub(super) struct Node {
    pub process: Process,
    pub port: u16,
    lab: Lab,
}

impl Node {
    /// Makes a fresh server that has its clients on `port`, with further lines of configuration.
    pub async fn start(
        port: u16,
        membership: Option<&Membership>,
        more: &str,
        until: Until,
    ) -> Result<Self, ServerError> {
        let lab = Lab::new().map_err(ServerError::prepare("a directory"))?;
        let data = lab.file("data");
        let mut configuration = format!(
            "tickTime=200\nminSessionTimeout=400\nmaxSessionTimeout=60000\ndataDir={}\nclientPort={port}\n\
             clientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\n\
             4lw.commands.whitelist=conf,mntr,ruok,srvr\n{more}",
            data.display()
        );
        if let Some(membership) = membership {
            configuration.push_str(&membership.configuration);
            std::fs::create_dir(&data).map_err(ServerError::prepare("the data directory"))?;
            std::fs::write(data.join("myid"), membership.id.to_string())
                .map_err(ServerError::prepare("the server's number"))?;
        }
        std::fs::write(lab.file("zoo.cfg"), configuration)
            .map_err(ServerError::prepare("the configuration"))?;
        let process = serve(&lab, port, until).await?;
        Ok(Self { process, port, lab })
    }

    /// Starts it again after its end, on the same data and port.
    pub async fn restart(&mut self, until: Until) -> Result<(), ServerError> {
        self.process = serve(&self.lab, self.port, until).await?;
        Ok(())
    }

    /// Where it keeps its data.
    pub fn data(&self) -> PathBuf {
        self.lab.file("data")
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub async fn monitor(&self) -> io::Result<BTreeMap<String, String>> {
        let answer = ask(self.port, "mntr").await?;
        let values: BTreeMap<_, _> = answer
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        match values.is_empty() {
            // A sentence, where it has no quorum.
            true => Err(io::Error::other(answer.trim().to_owned())),
            false => Ok(values),
        }
    }
}

/// Asks the server on `port` with a four-letter word.
pub(super) async fn ask(port: u16, word: &str) -> io::Result<String> {
    let answer = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    timeout(ANSWER, answer).await?
}

pub(super) fn is_installed() -> bool {
    Path::new(SERVER).is_file() && Path::new(JAVA).is_file()
}

async fn serve(lab: &Lab, port: u16, until: Until) -> Result<Process, ServerError> {
    if !is_installed() {
        return Err(ServerError::NotInstalled { program: "zookeeper", install: INSTALL_ZOOKEEPER });
    }
    let mut server = as_user(None, Path::new(JAVA));
    server.args(["-Xmx256m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
    server.args(["-cp", &format!("{SERVER}:{LOG}:{NETTY}")]);
    server.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(lab.file("zoo.cfg"));
    server.current_dir(lab.path());
    // Another server that has the port has other data.
    let ours = &format!("dataDir={}", lab.file("data").display());
    let is_ready = |_id| async move {
        match until {
            Until::Runs => true,
            Until::Answers => ask(port, "ruok").await.is_ok_and(|answer| answer == "imok"),
            Until::Serves => ask(port, "conf").await.is_ok_and(|answer| answer.contains(ours)),
        }
    };
    Ok(Process::start_and_probe("ZooKeeper", server, lab.file("zookeeper.log"), START_TIMEOUT, is_ready)
        .await?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_taken_address_is_recognised() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Node::start(port, None, "", Until::Serves).await.unwrap_err();
        assert!(error.is_address_in_use(), "{error}");
    }
}
