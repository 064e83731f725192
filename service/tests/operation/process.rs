//! A replica in a process of its own, on a port of its own, with a store of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

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
    log: Option<std::thread::JoinHandle<String>>,
    _directory: TempDir,
}

impl Process {
    /// Starts a replica with ten hair dryers and further keys of the configuration.
    pub async fn start(keys: &[(&str, &str)]) -> Self {
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
        let mut log = child.stderr.take().expect("it is piped");
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            log.read_to_string(&mut text).expect("a log is text");
            text
        });
        let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").expect("it listens").to_owned();
        rustls::crypto::ring::default_provider().install_default().ok();
        Self { url, http: reqwest::Client::new(), child, log: Some(log), _directory: directory }
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
        let log = self.log.take().expect("it is taken once").join().expect("the log is read");
        assert!(self.child.wait().expect("its end").success(), "{log}");
        log
    }

    /// Kills it, and returns its log.
    pub fn kill(mut self) -> String {
        self.child.kill().expect("it is there");
        self.log.take().expect("it is taken once").join().expect("the log is read")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
