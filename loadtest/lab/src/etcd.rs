//! A private etcd server.

mod tls;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use tls::EtcdTls;

use crate::launch::{ServerError, free_ports, on_fresh_ports};
use crate::user::as_user;
use crate::{Lab, Process, ProcessError, Server, ServerKind, TlsFiles};

/// How long the server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it may take to answer a call.
const ANSWER: Duration = Duration::from_secs(10);

/// The command that installs the server.
pub(crate) const INSTALL_ETCD: &str = "apt-get install etcd-server";

/// An etcd server on free ports, which keeps its data over a restart. It elects itself quickly, so that
/// leases of a second are granted.
#[derive(Debug)]
pub struct Etcd {
    process: Process,
    ports: Ports,
    /// What it speaks TLS with, where it does.
    tls: Option<TlsFiles>,
    lab: Lab,
}

/// Where it listens for clients, and for other servers, of which there are none.
#[derive(Debug, Clone, Copy)]
struct Ports {
    clients: u16,
    peers: u16,
    /// For clients that speak TLS.
    tls: u16,
}

impl Etcd {
    /// Whether the server is installed.
    pub fn is_installed() -> bool {
        program().is_some()
    }

    /// Makes a fresh server and waits until it answers.
    pub async fn start() -> Result<Self, ServerError> {
        Self::start_with(None).await
    }

    async fn start_with(tls: Option<&TlsFiles>) -> Result<Self, ServerError> {
        let lab = Lab::new().map_err(ServerError::prepare("a directory"))?;
        let serve_on_free_ports = || async {
            let free = free_ports(3)?;
            let ports = Ports { clients: free[0], peers: free[1], tls: free[2] };
            Ok((serve(&lab, ports, tls).await?, ports))
        };
        let (process, ports) = on_fresh_ports(serve_on_free_ports).await?;
        Ok(Self { process, ports, tls: tls.cloned(), lab })
    }

    /// Where the server listens: host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.clients)
    }

    /// Posts `body` to a path of its JSON interface, such as `/v3/kv/range`, over a connection of its own,
    /// and returns what it answers. An answer other than 200, or none within ten seconds, is an error here.
    pub async fn call(&self, path: &str, body: &str) -> io::Result<String> {
        request(self.ports.clients, "POST", path, body).await
    }

    /// How often each of its methods was called, by their names in gRPC, such as `LeaseGrant`.
    pub async fn requests(&self) -> io::Result<BTreeMap<String, u64>> {
        let metrics = request(self.ports.clients, "GET", "/metrics", "").await?;
        let mut requests = BTreeMap::new();
        for line in metrics.lines().filter_map(|line| line.strip_prefix("grpc_server_started_total{")) {
            let method = line.split("grpc_method=\"").nth(1).and_then(|rest| rest.split('"').next());
            let count = line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
            if let Some((method, count)) = method.zip(count) {
                *requests.entry(method.to_owned()).or_default() += count;
            }
        }
        Ok(requests)
    }

    /// Where it keeps its data; to be changed only while it does not run.
    pub fn data(&self) -> PathBuf {
        data(&self.lab)
    }

    /// Ends the server at once: SIGKILL. Its data, and the leases in it, are kept.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        self.process.kill().await
    }

    /// Stops the server in its tracks: SIGSTOP.
    pub fn pause(&self) -> Result<(), ProcessError> {
        self.process.pause()
    }

    /// Lets it go on: SIGCONT.
    pub fn resume(&self) -> Result<(), ProcessError> {
        self.process.resume()
    }

    /// Starts the server again that was killed, on the same data and ports.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.process = serve(&self.lab, self.ports, self.tls.as_ref()).await?;
        Ok(())
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

#[async_trait]
impl Server for Etcd {
    fn kind(&self) -> ServerKind {
        ServerKind::Etcd
    }

    fn addresses(&self) -> Vec<String> {
        vec![self.address()]
    }

    fn url_at(&self, addresses: &[String]) -> String {
        format!("http://{}", addresses[0])
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

fn data(lab: &Lab) -> PathBuf {
    lab.file("data")
}

/// Starts the server and waits until it answers.
async fn serve(lab: &Lab, ports: Ports, tls: Option<&TlsFiles>) -> Result<Process, ServerError> {
    let missing = ServerError::NotInstalled { program: "etcd", install: INSTALL_ETCD };
    let mut server = as_user(None, &program().ok_or(missing)?);
    // What is set outside is for another server, and in conflict with what is said here.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("ETCD_") {
            server.env_remove(variable);
        }
    }
    // Another server that has the port has another name.
    let name = lab.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (clients, peers) =
        (format!("http://127.0.0.1:{}", ports.clients), format!("http://127.0.0.1:{}", ports.peers));
    server.args(["--name", &name, "--initial-cluster", &format!("{name}={peers}")]);
    let listens = match tls {
        Some(_) => format!("{clients},https://127.0.0.1:{}", ports.tls),
        None => clients.clone(),
    };
    server.args(["--listen-client-urls", &listens, "--advertise-client-urls", &clients]);
    if let Some(files) = tls {
        server.arg("--cert-file").arg(&files.cert).arg("--key-file").arg(&files.key);
        if files.asks_clients {
            server.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&files.ca);
        }
    }
    server.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    // The shortest lease is one and a half times as long as an election.
    server.args(["--heartbeat-interval", "20", "--election-timeout", "100"]);
    server.args(["--logger", "zap", "--log-outputs", "stderr", "--log-level", "warn"]);
    server.arg("--data-dir").arg(data(lab)).current_dir(lab.path());
    let wanted = &format!("\"name\":\"{name}\"");
    let is_ready = |_id| async move {
        let members = request(ports.clients, "POST", "/v3/cluster/member/list", "{}").await;
        let health = request(ports.clients, "GET", "/health", "").await;
        members.is_ok_and(|members| members.contains(wanted))
            && health.is_ok_and(|health| health.contains("\"true\""))
    };
    Ok(Process::start_and_probe("etcd", server, lab.file("etcd.log"), START_TIMEOUT, is_ready).await?)
}

/// Asks the server on `port`, in HTTP 1.0, so that the answer ends with the connection.
async fn request(port: u16, method: &str, path: &str, body: &str) -> io::Result<String> {
    let answer = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(ANSWER, answer).await??;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(answer)),
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("etcd")).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_taken_address_is_recognised_even_when_another_etcd_answers_there() {
        let another = Etcd::start().await.unwrap();
        let lab = Lab::new().unwrap();
        let peers = free_ports(1).unwrap()[0];
        let error = serve(&lab, Ports { peers, ..another.ports }, None).await.unwrap_err();
        assert!(error.is_address_in_use(), "{error}");
    }

    #[tokio::test]
    async fn a_taken_address_is_recognised_when_nobody_answers_there() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let (peers, clients) = (taken.local_addr().unwrap().port(), free_ports(1).unwrap()[0]);
        let ports = Ports { clients, peers, tls: 0 };
        let error = serve(&Lab::new().unwrap(), ports, None).await.unwrap_err();
        assert!(error.is_address_in_use(), "{error}");
    }
}
