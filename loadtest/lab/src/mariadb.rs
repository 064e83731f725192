//! A private MariaDB server, for shops that keep their stock in MySQL.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::unistd::Uid;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::launch::{ServerError, free_port, on_fresh_ports};
use crate::user::as_user;
use crate::{Lab, Process};

/// How long the server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The database that every server has.
const DATABASE: &str = "stocklock";

/// The command that installs the server.
const INSTALL_MARIADB: &str = "apt-get install mariadb-server";

/// Where the server is, and what makes its data.
const SERVER: &str = "/usr/sbin/mariadbd";
const INSTALL_DB: &str = "/usr/bin/mariadb-install-db";

/// A MariaDB server on a free port, with its data in a directory of its own. It ends with the value.
#[derive(Debug)]
pub struct Mariadb {
    _process: Process,
    port: u16,
    _lab: Lab,
}

impl Mariadb {
    /// Makes a fresh server and waits until it answers.
    pub async fn start() -> Result<Self, ServerError> {
        if !Path::new(SERVER).is_file() || !Path::new(INSTALL_DB).is_file() {
            return Err(ServerError::NotInstalled { program: "mariadbd", install: INSTALL_MARIADB });
        }
        let lab = Lab::new().map_err(ServerError::prepare("a directory"))?;
        let mut install = as_user(None, Path::new(INSTALL_DB));
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", lab.file("data").display())).args(as_root());
        let output = install.stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.map_err(ServerError::prepare("mariadb-install-db"))?;
        if !output.status.success() {
            return Err(ServerError::Init(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        // Users are known by their addresses; the one that the installation makes has none.
        let first = format!(
            "CREATE DATABASE IF NOT EXISTS {DATABASE};\n\
             CREATE USER IF NOT EXISTS stocklock@'127.0.0.1' IDENTIFIED BY 'stocklock';\n\
             GRANT ALL ON *.* TO stocklock@'127.0.0.1';\n"
        );
        std::fs::write(lab.file("first.sql"), first).map_err(ServerError::prepare("the first statements"))?;
        let serve_on_free_port = || async {
            let port = free_port()?;
            Ok((serve(&lab, port).await?, port))
        };
        let (process, port) = on_fresh_ports(serve_on_free_port).await?;
        Ok(Self { _process: process, port, _lab: lab })
    }

    /// What its clients are configured with.
    pub fn url(&self) -> String {
        format!("mysql://stocklock:stocklock@127.0.0.1:{}/{DATABASE}", self.port)
    }
}

/// The server runs as root only when it is told so.
fn as_root() -> Option<&'static str> {
    Uid::effective().is_root().then_some("--user=root")
}

async fn serve(lab: &Lab, port: u16) -> Result<Process, ServerError> {
    let mut server: Command = as_user(None, Path::new(SERVER));
    server.arg("--no-defaults").args(as_root());
    server.arg(format!("--datadir={}", lab.file("data").display()));
    server.arg(format!("--socket={}", lab.file("socket").display()));
    server.arg(format!("--pid-file={}", lab.file("pid").display()));
    server.arg(format!("--init-file={}", lab.file("first.sql").display()));
    server.args(["--bind-address=127.0.0.1", "--skip-name-resolve", &format!("--port={port}")]);
    let is_ready = |_| async move { TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() };
    let log = lab.file("mariadb.log");
    Ok(Process::start_and_probe("MariaDB", server, log, START_TIMEOUT, is_ready).await?)
}
