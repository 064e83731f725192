//! A private Redis server.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::{ServerError, as_user, free_port};
use crate::{Lab, Process, ProcessError};

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// The command that installs the server.
pub const INSTALL_REDIS: &str = "apt-get install redis-server";

/// A Redis server on a free port. It keeps nothing on the disk: one that is killed has lost its data.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    lab: Lab,
}

impl Redis {
    /// Whether the server is installed.
    pub fn is_installed() -> bool {
        program().is_some()
    }

    /// Makes a fresh server and waits until it answers.
    pub async fn start() -> Result<Self, ServerError> {
        let prepare = |what: &str| {
            let what = what.to_owned();
            move |source| ServerError::Prepare { what, source }
        };
        let lab = Lab::new().map_err(prepare("a directory"))?;
        let port = free_port().map_err(prepare("a free port"))?;
        let process = serve(&lab, port).await?;
        Ok(Self { process, port, lab })
    }

    /// The server's address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends the server at once: SIGKILL.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        self.process.kill().await
    }

    /// Starts the server again that was killed, empty, on the same port.
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
    let missing = ServerError::NotInstalled { program: "redis-server", install: INSTALL_REDIS };
    let mut server = as_user(None, &program().ok_or(missing)?);
    server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    server.arg("--dir").arg(lab.path()).current_dir(lab.path());
    let log = lab.file("redis.log");
    Ok(Process::start_and_probe("Redis", server, log, PATIENCE, async || answers(port).await).await?)
}

async fn answers(port: u16) -> bool {
    let ping = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"PING\r\n").await.ok()?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.ok()?;
        (answer == *b"+PONG").then_some(())
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ping).await, Ok(Some(())))
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("redis-server")).find(|file| file.is_file())
}
