//! A private ZooKeeper server.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::{ServerError, as_user, free_port};
use crate::{Lab, Process, ProcessError};

/// How long the server may take to start: it is Java.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where Debian puts the server, and Java.
const SERVER: &str = "/usr/share/java/zookeeper.jar";
const JAVA: &str = "/usr/bin/java";

/// The command that installs the server.
pub const INSTALL_ZOOKEEPER: &str = "apt-get install zookeeper";

/// A ZooKeeper server on a free port. Its tick is short, so that sessions of half a second are allowed.
#[derive(Debug)]
pub struct Zookeeper {
    process: Process,
    port: u16,
    lab: Lab,
}

impl Zookeeper {
    /// Whether the server is installed.
    pub fn is_installed() -> bool {
        Path::new(SERVER).is_file() && Path::new(JAVA).is_file()
    }

    /// Makes a fresh server and waits until it answers.
    pub async fn start() -> Result<Self, ServerError> {
        let prepare = |what: &str| {
            let what = what.to_owned();
            move |source| ServerError::Prepare { what, source }
        };
        let lab = Lab::new().map_err(prepare("a directory"))?;
        let port = free_port().map_err(prepare("a free port"))?;
        let configuration = format!(
            "tickTime=200\nminSessionTimeout=400\nmaxSessionTimeout=60000\ndataDir={}\nclientPort={port}\n\
             clientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\n\
             4lw.commands.whitelist=ruok,mntr\n",
            lab.file("data").display()
        );
        std::fs::write(lab.file("zoo.cfg"), configuration).map_err(prepare("the configuration"))?;
        let process = serve(&lab, port).await?;
        Ok(Self { process, port, lab })
    }

    /// The server's address.
    pub fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends the server at once: SIGKILL. Its data, and the sessions in it, are kept.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        self.process.kill().await
    }

    /// Starts the server again that was killed, on the same data and port.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.process = serve(&self.lab, self.port).await?;
        Ok(())
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

async fn serve(lab: &Lab, port: u16) -> Result<Process, ServerError> {
    if !Zookeeper::is_installed() {
        return Err(ServerError::NotInstalled { program: "zookeeper", install: INSTALL_ZOOKEEPER });
    }
    let mut server = as_user(None, Path::new(JAVA));
    server.args(["-Xmx256m", "-XX:+UseSerialGC", "-cp", SERVER]);
    server.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(lab.file("zoo.cfg"));
    server.current_dir(lab.path());
    let log = lab.file("zookeeper.log");
    Ok(Process::start_and_probe("ZooKeeper", server, log, PATIENCE, async || answers(port).await).await?)
}

async fn answers(port: u16) -> bool {
    let ruok = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"ruok").await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        (answer == b"imok").then_some(())
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ruok).await, Ok(Some(())))
}
