//! A replica in a process of its own, on a port of its own, with a store of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;

/// The bearer token of its admin calls.
pub const TOKEN: &str = "the-token-of-the-admin-calls-that-nobody-may-see";

/// The product that it sells.
pub const SKU: &str = "hair-dryer";

/// A replica; its drop kills it.
pub struct Process {
    /// Where it listens.
    pub url: String,
    /// A client for it.
    pub http: reqwest::Client,
    child: Child,
    log: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Process {
    /// Starts a replica with ten hair dryers and further keys of the configuration.
    pub async fn start(keys: &[(&str, &str)]) -> Self {
        let mut replica = Self::start_unread(keys).await;
        replica.read_log();
        replica
    }

    /// The same, and its log is not read.
    pub async fn start_unread(keys: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = "[[catalog]]\nsku = \"hair-dryer\"\nname = \"Hair dryer\"\nstock = 10\n";
        std::fs::write(directory.path().join("order-service.toml"), file).expect("a file");
        let mut program = Command::new(env!("CARGO_BIN_EXE_order-service"));
        program
            .current_dir(directory.path())
            .env_remove("RUST_LOG")
            .args(["--server.listen", "127.0.0.1:0", "--admin.token", TOKEN])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (key, value) in keys {
            program.arg(format!("--{key}")).arg(value);
        }
        let mut child = program.spawn().expect("it can be run");
        let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").expect("it listens").to_owned();
        rustls::crypto::ring::default_provider().install_default().ok();
        Self {
            url,
            http: reqwest::Client::builder().tls_certs_only([]).build().expect("a client"),
            child,
            log: Arc::default(),
            reading: None,
            _directory: directory,
        }
    }

    /// Reads its log from now on.
    pub fn read_log(&mut self) {
        let log = self.child.stderr.take().expect("it is piped, and read once");
        let read = Arc::clone(&self.log);
        self.reading = Some(std::thread::spawn(move || {
            for line in BufReader::new(log).lines() {
                let mut read = read.lock().expect("nothing panics while it holds this");
                read.push_str(&line.expect("a log is text"));
                read.push('\n');
            }
        }));
    }

    /// A GET of this path.
    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(format!("{}{path}", self.url)).send().await.expect("an answer")
    }

    /// An order that is still to be sent, for further headers.
    pub fn order(&self, quantity: i64) -> reqwest::RequestBuilder {
        let body = json!({"sku": SKU, "quantity": quantity, "buyer": "A"});
        self.http.post(format!("{}/v1/orders", self.url)).json(&body)
    }

    /// Has it stop, as SIGTERM does.
    pub fn stop(&self) {
        let id = i32::try_from(self.child.id()).expect("an identity of a process");
        kill(Pid::from_raw(id), Signal::SIGTERM).expect("it is there");
    }

    /// Stops it, and returns its whole log.
    pub fn log(mut self) -> String {
        self.stop();
        let log = self.whole_log();
        assert!(self.child.wait().expect("its end").success(), "{log}");
        log
    }

    /// Kills it when its log has this text, and returns its log.
    pub async fn kill_when_logged(mut self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.log.lock().expect("nothing panics while it holds this").contains(text) {
            assert!(Instant::now() < deadline, "it is not logged: {text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.child.kill().expect("it is there");
        self.whole_log()
    }

    /// The log until its end.
    fn whole_log(&mut self) -> String {
        self.reading.take().expect("it is read, and ends once").join().expect("the log is read");
        self.log.lock().expect("nothing panics while it holds this").clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
