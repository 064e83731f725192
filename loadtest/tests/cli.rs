//! The program as a person meets it: what it prints, writes and exits with.

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use loadtest::report::{Report, RunReport};
use loadtest::verdict::{Status, Verdict};
use order_service::config::{Config, Sources};

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(support::program()).args(arguments).output().expect("the program runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn run_of<'a>(report: &'a Report, strategy: &str) -> &'a RunReport {
    report.runs.iter().find(|run| run.strategy == strategy).expect("a run of the strategy")
}

#[test]
fn the_demonstration_shows_who_oversells_and_who_does_not() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = loadtest(&["demo", "--json", file.path().to_str().unwrap()]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    for strategy in ["none", "local"] {
        let run = run_of(&report, strategy);
        assert_eq!(run.verdict, Verdict::Violated);
        assert!(run.oversold_units > 0, "{strategy}");
        let witness = &run.failed("no-duplicate-reads").expect("a witness").detail;
        assert!(witness.contains("both read"), "{witness}");
        assert!(printed.contains(witness.as_str()), "the witness is printed");
    }
    for strategy in ["database", "redis", "zookeeper", "row", "optimistic"] {
        let run = run_of(&report, strategy);
        assert_eq!(run.verdict, Verdict::Correct, "{strategy}: {:?}", run.checks);
        assert_eq!((run.units_sold, run.oversold_units), (run.stock, 0), "{strategy}");
        assert!(run.checks.iter().all(|check| matches!(check.status, Status::Pass | Status::NotApplicable)));
        assert!(run.replays > 0 && run.replica_share.len() == 3, "{strategy}: {:?}", run.replica_share);
    }
    assert_eq!(report.not_run, []);
}

#[test]
fn all_seven_strategies_are_judged_on_postgresql() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments =
        ["compare", "--store", "postgres", "--buyers", "128", "--orders", "1500", "--stock", "700"];
    let output = loadtest(&[&arguments[..], &["--json", file.path().to_str().unwrap()]].concat());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    assert_eq!((report.runs.len(), report.not_run.len()), (7, 0));
    for run in &report.runs {
        assert_eq!(run.store, "postgres");
        assert_eq!(run.oversold_units > 0, ["none", "local"].contains(&run.strategy.as_str()), "{printed}");
        assert!(run.checks.iter().all(|check| check.status != Status::Unknown), "{:?}", run.checks);
    }
}

#[test]
fn mixed_quantities_leave_less_than_anybody_wanted() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments =
        ["compare", "--strategies", "none,database,optimistic", "--quantity", "2..5", "--stock", "1001"];
    let output =
        loadtest(&[&arguments[..], &["--orders", "1000", "--json", file.path().to_str().unwrap()]].concat());
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
    let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    for run in &report.runs[1..] {
        assert!((1000..=1001).contains(&run.units_sold), "{} sold {}", run.strategy, run.units_sold);
    }
}

#[test]
fn a_control_that_does_not_oversell_proves_nothing() {
    // One buyer after the other cannot oversell, lock or no lock.
    let arguments =
        ["compare", "--strategies", "none,row", "--buyers", "1", "--orders", "20", "--stock", "10"];
    let output = loadtest(&arguments);
    assert_eq!(code(&output), 2, "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("not proven"));
}

/// Replicas of one strategy, each on a store of its own or all on one.
async fn deployment(strategy: &str, files: &[&str], lab: &lab::Lab) -> (Vec<lab::Process>, Vec<String>) {
    let mut replicas = Vec::new();
    let mut targets = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let url = format!("sqlite://{}", lab.file(file).display());
        let mut command = tokio::process::Command::new(support::program());
        command.args(["serve", "--die-with-parent", "--server.listen", "127.0.0.1:0", "--admin.token", "t"]);
        command.args(["--lock.strategy", strategy, "--store.url", &url]);
        let log = lab.file(&format!("{i}.log"));
        let patience = std::time::Duration::from_secs(20);
        let started = lab::Process::start("replica", command, log, "listening on ", patience).await;
        let (replica, address) = started.expect("the replica starts");
        replicas.push(replica);
        targets.push(address);
    }
    (replicas, targets)
}

/// Runs a load against a deployment.
async fn run_against(targets: &[String], arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(support::program());
    command.args(["run", "--token", "t"]).args(arguments);
    for target in targets {
        command.args(["--target", target]);
    }
    command.output().await.expect("the program runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_against_a_deployment_judges_what_it_finds() {
    let lab = lab::Lab::new().unwrap();
    for (strategy, expected, words) in [("none", 1, "OVERSOLD by"), ("row", 0, "CORRECT")] {
        let file = format!("{strategy}.db");
        let (_replicas, targets) = deployment(strategy, &[&file, &file], &lab).await;
        let load = ["--orders", "400", "--stock", "200", "--fault", "slow-clients"];
        let output = run_against(&targets, &load).await;
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(code(&output), expected, "{printed}");
        assert!(printed.contains(words), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_do_not_share_a_store_are_no_deployment() {
    let lab = lab::Lab::new().unwrap();
    let (_replicas, targets) = deployment("row", &["a.db", "b.db"], &lab).await;
    let output = run_against(&targets, &["--orders", "10"]).await;
    assert_eq!(code(&output), 64);
    assert!(String::from_utf8_lossy(&output.stderr).contains("do not share a store"), "{output:?}");
}

#[test]
fn a_missed_threshold_is_exit_code_99() {
    let arguments =
        ["compare", "--strategies", "row", "--orders", "50", "--stock", "100", "--max-p99", "1us"];
    assert_eq!(code(&loadtest(&arguments)), 99);
}

#[test]
fn a_command_line_that_cannot_be_carried_out_is_exit_code_64() {
    for (arguments, named) in [
        (&["fly"][..], "fly"),
        (&["compare", "--strategies", "paxos"], "paxos"),
        (&["compare", "--replicas", "0"], "--replicas"),
        (&["compare", "--quantity", "3..1"], "--quantity"),
        (&["compare", "--set", "lock.stratgy=none"], "lock.stratgy"),
        (&["compare", "--set", "lock.strategy=none"], "lock.strategy"),
        (&["compare", "--strategies", "row", "--set", "checkout.max_batch=0"], "checkout.max_batch"),
        (&["demo", "--rate", "-1"], "--rate"),
        (&["run"], "--target"),
        (&["run", "--target", "http://127.0.0.1:1", "--fault", "kill@1s"], "laboratory"),
        (&["compare", "--fault", "kil@1s"], "kil@1s"),
        (&["run", "--target", "ftp://127.0.0.1"], "http://"),
        (&["run", "--target", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (&["experiment", "perpetual-motion"], "perpetual-motion"),
        (&["bench", "--only", "cold"], "cold"),
        (&["serve", "--lock.strategy", "redis"], "lock.redis"),
        (&["serve", "--lock.strategy", "redis", "--lock.redis.url", "http://x"], "Redis"),
    ] {
        let output = loadtest(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(&output), 64, "{arguments:?}: {said}");
        assert!(said.contains(named), "{arguments:?}: {said}");
    }
}

#[test]
fn a_laboratory_says_how_to_use_it_and_is_used_so() {
    let mut lab = Command::new(support::program())
        .args(["lab", "--strategy", "redis", "--replicas", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(lab.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let said: Vec<_> = lines.take_while(|line| !line.starts_with("Ctrl-C")).collect();
    for server in ["PostgreSQL", "Redis", "ZooKeeper", "replica"] {
        assert!(said.iter().any(|line| line.starts_with(server)), "{said:#?}");
    }
    let toml: Vec<_> = said.iter().skip_while(|line| *line != "[store]").collect();
    let toml: Vec<_> = toml.into_iter().take_while(|line| !line.starts_with("To fire")).cloned().collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("order-service.toml");
    std::fs::write(&file, toml.join("\n")).unwrap();
    let config = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
    assert_eq!(config.lock.strategy.as_str(), "redis");
    let fire = said.iter().find_map(|line| line.strip_prefix("    loadtest ")).unwrap();
    let output = loadtest(&fire.split(' ').collect::<Vec<_>>());
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let pid = nix::unistd::Pid::from_raw(lab.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(lab.wait().unwrap().code(), Some(130));
}

#[test]
fn restocks_cancellations_and_looks_take_their_place_in_one_history() {
    for store in ["sqlite", "postgres"] {
        let file = tempfile::NamedTempFile::new().unwrap();
        let load = ["--quantity", "1..3", "--cancels", "0.2", "--restocks", "0.05", "--looks", "0.3"];
        let arguments =
            ["compare", "--strategies", "none,database,redis,row", "--store", store, "--orders", "1500"];
        let rest = ["--stock", "1000", "--json", file.path().to_str().unwrap()];
        let output = loadtest(&[&arguments[..], &load, &rest].concat());
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
        let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
        for run in report.runs.iter().filter(|run| run.strategy != "none") {
            for name in ["linearizable", "adjustments-kept", "balanced"] {
                let check = run.checks.iter().find(|check| check.name == name).unwrap();
                assert_eq!(check.status, Status::Pass, "{store}, {}: {check:?}", run.strategy);
            }
        }
    }
}
