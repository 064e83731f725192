//! Participants in processes of their own: this very program, started again to play one part.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::{Lab, Process};
use order_service::app::token_generations;
use order_service::config::{Config, Sources, StoreSection};
use order_service::lock::{self, Mode};
use order_service::store;
use order_service::telemetry::Metrics;
use rand::RngExt as _;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::backend::{KEY, after};

/// The variable in which a part is handed to the program.
const PART: &str = "STOCKLOCK_CONTRACT_PART";

/// The variable in which the configuration is.
const KEYS: &str = "STOCKLOCK_CONTRACT_KEYS";

/// How long a participant may take to say what it was started for. To count lasts, where those who wait poll.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// What a participant is to do.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Part {
    /// Add one to a number in a file, over and over, with several contenders; and write each token down.
    Count { contenders: u32, rounds: u32, number: PathBuf, tokens: PathBuf },
    /// Take the lock, say so, and keep it until it is lost; say that, too.
    Hold,
}

/// A participant in a process of its own.
pub struct Participant {
    pub process: Process,
    lab: Lab,
}

impl Participant {
    async fn start(part: &Part, keys: &[(String, String)], says: &str) -> Self {
        let lab = Lab::new().expect("a directory");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "process::plays_its_part", "--nocapture", "--test-threads=1"]);
        command.env(PART, serde_json::to_string(part).expect("JSON"));
        command.env(KEYS, serde_json::to_string(keys).expect("JSON"));
        let log = lab.file("participant.log");
        let started = Process::start("participant", command, log, says, START_TIMEOUT).await;
        let (process, _) = started.expect("the participant plays its part");
        Self { process, lab }
    }

    /// One that has the lock.
    pub async fn that_holds(keys: &[(String, String)]) -> Self {
        Self::start(&Part::Hold, keys, "held").await
    }

    /// Waits until it says that it has lost the lock.
    pub async fn until_it_has_lost(&self) {
        let give_up = Instant::now() + Duration::from_secs(5);
        while !self.process.log_tail().lines().any(|line| line == "lost") {
            assert!(Instant::now() < give_up, "{}", self.process.log_tail());
            sleep(Duration::from_millis(5)).await;
        }
        assert!(self.lab.path().exists());
    }
}

/// Lets several processes count together; answers what they came to, and the tokens in the order of their
/// holds.
pub async fn count_together(keys: &[(String, String)], processes: u32) -> (u32, Vec<i64>) {
    let lab = Lab::new().expect("a directory");
    let (number, tokens) = (lab.file("number"), lab.file("tokens"));
    std::fs::write(&number, "0").expect("a file");
    let mut parts = JoinSet::new();
    for _ in 0..processes {
        let (number, tokens, keys) = (number.clone(), tokens.clone(), keys.to_vec());
        parts.spawn(async move {
            let part = Part::Count { contenders: 8, rounds: 10, number, tokens };
            Participant::start(&part, &keys, "counted").await
        });
    }
    parts.join_all().await;
    let tokens = std::fs::read_to_string(tokens).expect("tokens");
    (read(&number), tokens.lines().map(|token| token.parse().expect("a token")).collect())
}

fn read(number: &Path) -> u32 {
    std::fs::read_to_string(number).expect("the file").parse().expect("a number")
}

/// A process is started with this test alone, and a part to play; in the suite itself there is none.
#[tokio::test(flavor = "multi_thread")]
async fn plays_its_part() {
    let Ok(part) = std::env::var(PART) else { return };
    lab::die_with_parent();
    let overrides = serde_json::from_str(&std::env::var(KEYS).expect("a configuration")).expect("JSON");
    let config = Config::load(&Sources { overrides, ..Sources::default() }).expect("a configuration");
    let section = StoreSection { url: config.store.url.clone(), ..StoreSection::default() };
    let store = store::connect(&section).await.expect("the store opens");
    let metrics = Metrics::new(config.lock.strategy);
    let lock = lock::connect(&config, token_generations(&store), &metrics).await.expect("the lock connects");
    match serde_json::from_str(&part).expect("a part") {
        Part::Count { contenders, rounds, number, tokens } => {
            let mut counting = JoinSet::new();
            for _ in 0..contenders {
                let (lock, number, tokens) = (lock.clone(), number.clone(), tokens.clone());
                counting.spawn(async move {
                    for _ in 0..rounds {
                        let lease = lock.acquire(KEY, Mode::Exclusive, after(60_000)).await.expect("a lease");
                        let was = read(&number);
                        let pause = rand::rng().random_range(0..300);
                        sleep(Duration::from_micros(pause)).await;
                        std::fs::write(&number, (was + 1).to_string()).expect("the file");
                        let mut tokens =
                            std::fs::File::options().append(true).create(true).open(&tokens).expect("a file");
                        writeln!(tokens, "{}", lease.token().expect("a token").0).expect("the file");
                        lease.release().await;
                    }
                });
            }
            counting.join_all().await;
            lock.shutdown().await;
            // The harness has begun a line of its own.
            println!("\ncounted");
        }
        Part::Hold => {
            let lease = lock.acquire(KEY, Mode::Exclusive, after(10_000)).await.expect("a lease");
            println!("\nheld");
            lease.lost().await;
            println!("lost");
            lease.release().await;
            lock.shutdown().await;
        }
    }
}
