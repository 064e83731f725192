//! A private PgBouncer: a pool of connections in front of PostgreSQL.

use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{Uid, User};
use tokio::net::TcpStream;

use crate::launch::{ServerError, free_port, on_fresh_ports};
use crate::postgres::SERVER_USER;
use crate::user::as_user;
use crate::{Lab, Postgres, Process};

/// How long it may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Where it is.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// The command that installs it.
const INSTALL_PGBOUNCER: &str = "apt-get install pgbouncer";

/// A PgBouncer on a free port, in front of one server. It ends with the value.
#[derive(Debug)]
pub struct Pgbouncer {
    _process: Process,
    port: u16,
    _lab: Lab,
}

impl Pgbouncer {
    /// Starts one that gives a client a session of `server` for as long as `pool_mode` says: `session`,
    /// `transaction` or `statement`. All else is as the program has it by default.
    pub async fn start(server: &Postgres, pool_mode: &str) -> Result<Self, ServerError> {
        if !Path::new(PROGRAM).is_file() {
            return Err(ServerError::NotInstalled { program: "pgbouncer", install: INSTALL_PGBOUNCER });
        }
        let lab = Lab::new().map_err(ServerError::prepare("a directory"))?;
        let address = server.address();
        let (host, server_port) = address.rsplit_once(':').expect("an address has a port");
        // It refuses to run as root.
        let user = Uid::effective().is_root().then(|| User::from_name(SERVER_USER).ok().flatten()).flatten();
        if let Some(user) = &user {
            chown(lab.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .map_err(ServerError::prepare("the directory's owner"))?;
        }
        let serve_on_free_port = || async {
            let port = free_port()?;
            let settings = format!(
                "[databases]\n* = host={host} port={server_port} user=stocklock\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = any\npool_mode = {pool_mode}\n"
            );
            let file = lab.file("pgbouncer.ini");
            std::fs::write(&file, settings).map_err(ServerError::prepare("pgbouncer.ini"))?;
            let mut command = as_user(user.as_ref(), Path::new(PROGRAM));
            command.arg(&file).current_dir(lab.path());
            let is_ready = |_| async move { TcpStream::connect(("127.0.0.1", port)).await.is_ok() };
            let log = lab.file("pgbouncer.log");
            let process =
                Process::start_and_probe("PgBouncer", command, log, START_TIMEOUT, is_ready).await?;
            Ok((process, port))
        };
        let (process, port) = on_fresh_ports(serve_on_free_port).await?;
        Ok(Self { _process: process, port, _lab: lab })
    }

    /// What its clients are configured with.
    pub fn url(&self) -> String {
        format!("postgres://stocklock@127.0.0.1:{}/postgres", self.port)
    }
}
