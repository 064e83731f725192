//! The program as a person meets it: what it prints, writes and exits with.

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use loadtest::report::{Report, RunReport};
use loadtest::verdict::{CheckName, Status, Verdict};
use order_service::config::{Config, Sources, StrategyName};

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(support::program()).args(arguments).output().expect("the program runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn run_of(report: &Report, strategy: StrategyName) -> &RunReport {
    report.runs.iter().find(|run| run.strategy == strategy).expect("a run of the strategy")
}

#[test]
fn the_demonstration_shows_who_oversells_and_who_does_not() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = loadtest(&["demo", "--json", file.path().to_str().unwrap()]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    for strategy in [StrategyName::None, StrategyName::Local] {
        let run = run_of(&report, strategy);
        assert_eq!(run.verdict, Verdict::Violated);
        assert!(run.oversold() > 0, "{strategy}");
        let witness = &run.failed(CheckName::NoDuplicateReads).expect("a witness").detail;
        assert!(witness.contains("both read"), "{witness}");
        assert!(printed.contains(witness.as_str()), "the witness is printed");
    }
    let is_safe = |strategy: &StrategyName| !matches!(strategy, StrategyName::None | StrategyName::Local);
    for strategy in StrategyName::ALL.into_iter().filter(is_safe) {
        let run = run_of(&report, strategy);
        assert_eq!(run.verdict, Verdict::Correct, "{strategy}: {:?}", run.checks);
        assert_eq!((run.units_sold, run.oversold_units), (Some(run.stock), Some(0)), "{strategy}");
        assert!(run.checks.iter().all(|check| matches!(check.status, Status::Pass | Status::NotApplicable)));
        assert!(run.replays > 0 && run.replica_share.len() == 3, "{strategy}: {:?}", run.replica_share);
    }
    assert_eq!(report.not_run, []);
}

#[test]
fn every_strategy_is_judged_on_postgresql() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments =
        ["compare", "--store", "postgres", "--buyers", "128", "--orders", "1500", "--stock", "700"];
    let output = loadtest(&[&arguments[..], &["--json", file.path().to_str().unwrap()]].concat());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    assert_eq!((report.runs.len(), report.not_run.len()), (StrategyName::ALL.len(), 0));
    for run in &report.runs {
        assert_eq!(run.store, "postgres");
        let is_broken = run.strategy == StrategyName::None || run.strategy == StrategyName::Local;
        assert_eq!(run.oversold() > 0, is_broken, "{printed}");
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
        assert!(
            (Some(1000)..=Some(1001)).contains(&run.units_sold),
            "{} sold {:?}",
            run.strategy,
            run.units_sold
        );
    }
}

#[test]
fn a_control_that_does_not_oversell_proves_nothing() {
    // One buyer after the other cannot oversell, lock or no lock.
    let arguments =
        ["compare", "--strategies", "none,row", "--buyers", "1", "--orders", "20", "--stock", "10"];
    let output = loadtest(&arguments);
    assert_eq!(code(&output), 2, "{}", String::from_utf8_lossy(&output.stdout));
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("sensitive: not proven"), "{printed}");
    // And of the one without a lock, too, it is said why that is not what it is for.
    assert!(printed.contains("this load proves nothing"), "{printed}");
}

/// Runs strategies side by side; answers the exit code, what was printed, and the report.
fn compared(arguments: &[&str]) -> (i32, String, Report) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let json = ["--json", file.path().to_str().expect("its name is text")];
    let output = loadtest(&[&["compare"], arguments, &json].concat());
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_slice(&std::fs::read(file.path()).expect("a report"))
        .unwrap_or_else(|error| panic!("{error}: {printed}{}", String::from_utf8_lossy(&output.stderr)));
    (code(&output), printed, report)
}

fn status(run: &RunReport, name: CheckName) -> Status {
    run.check(name).expect("the check").status
}

#[test]
fn a_control_is_run_that_was_not_asked_for() {
    let alone = ["--strategies", "row", "--buyers", "1", "--orders", "20"];
    let (code, printed, report) = compared(&alone);
    assert_eq!((code, report.runs.len()), (2, 2), "{printed}");
    assert_eq!(status(&report.runs[0], CheckName::Sensitive), Status::Unknown);
    assert!(report.runs[1].is_control && printed.contains("none (control)"), "{printed}");
    // A stock that is too large to be oversold shows as well that updates are lost.
    let large = ["--strategies", "row", "--orders", "500", "--stock", "100000"];
    let (code, printed, report) = compared(&large);
    assert_eq!(code, 0, "{printed}");
    assert_eq!(status(&report.runs[0], CheckName::Sensitive), Status::Pass);
    let control = &report.runs[1];
    assert_eq!((control.oversold_units, control.verdict), (Some(0), Verdict::Violated), "{printed}");
    let (code, printed, report) = compared(&[&large[..], &["--no-control"]].concat());
    assert_eq!((code, report.runs.len()), (0, 1), "{printed}");
    assert_eq!(status(&report.runs[0], CheckName::Sensitive), Status::NotApplicable);
}

#[test]
fn faults_strike_while_orders_are_sold_and_the_report_says_what_they_cost() {
    // No length is given: it goes on until the faults are over. Holds last, so that whoever is seen to have
    // the lock has it when it is stopped.
    let slow = ["--set", "checkout.think_time=50ms", "--set", "lock.wait=5s"];
    let faults = ["--strategies", "redis", "--fault", "pause:2xlease@1s,restart:redis@6s"];
    let (code, printed, report) = compared(&[&faults[..], &slow].concat());
    assert_eq!(code, 0, "{printed}");
    let run = run_of(&report, StrategyName::Redis);
    assert_eq!((status(run, CheckName::FaultsStruck), run.faults.len()), (Status::Pass, 2), "{printed}");
    let intervals = &run.series.as_ref().unwrap().intervals;
    let sold_after = |ms: f64| intervals.iter().any(|i| i.until_ms > ms && i.accepted > 0);
    let over = run.faults.iter().filter_map(|fault| fault.until_ms).fold(0.0, f64::max);
    assert!(sold_after(over), "{printed}");
    assert!(run.supply > Some(run.stock), "there were always some to sell: {printed}");
    // The replica that is stopped has the lock, until its lease of two seconds ends; or, where it has just
    // given it back, a place in the queue, for a second.
    let after = run.availability.after(0).expect("what came after the pause");
    assert!(after.without_sale_ms > 500.0 && !after.is_final, "{after:?}");
    assert!(run.availability.longest_gap.ms >= after.without_sale_ms, "{:?}", run.availability);
    let line = printed.lines().find(|line| line.contains("is stopped")).expect("the fault is listed");
    assert!(line.contains("no sale for"), "{line}");
}

#[test]
fn a_shop_is_topped_up_for_ever_if_that_is_asked_for() {
    let load = ["--strategies", "row", "--no-control", "--orders", "3000", "--stock", "100"];
    let (code, printed, report) = compared(&[&load[..], &["--top-up", "always"]].concat());
    assert_eq!(code, 0, "{printed}");
    let run = &report.runs[0];
    assert!(run.accepted > 2_000 && run.supply >= run.units_sold, "{printed}");
}

#[test]
fn a_replica_that_ends_by_itself_under_faults_is_a_violation() {
    let (code, printed, report) = compared(&[
        "--strategies",
        "database",
        "--no-control",
        "--fault",
        "pause:100ms@500ms",
        "--set",
        "failpoints.before_release=5% abort",
    ]);
    assert_eq!(code, 1, "{printed}");
    assert_eq!(status(&report.runs[0], CheckName::ReplicasSurvived), Status::Fail);
    assert!(printed.contains("was not killed, and ended with"), "{printed}");
}

#[test]
fn what_servers_can_suffer_is_survived() {
    let everything = "clock:redis:+3s@1s,flush:redis@2s,pause:redis:500ms@3s,clock:postgres:-2s@4s,\
                      terminate:postgres@5s,disk-full:postgres:500ms@6s,no-handles:500ms@7s,kill@8s";
    let ensemble = "split:zookeeper:1xlease@1s,pause:zookeeper:500ms@5s,restart:zookeeper@7s";
    let etcd = "latency:etcd:5ms@1s,pause:etcd:500ms@2s,partition:etcd:1xlease@3s,restart:etcd@6s";
    // One of three each time.
    let majority = "restart:redis@1s,clock:redis:+3s@2s,flush:redis@3s,pause:redis:500ms@4s";
    for (strategy, redis_servers, faults) in [
        (StrategyName::Redis, "1", everything),
        (StrategyName::Redis, "3", majority),
        (StrategyName::Zookeeper, "1", ensemble),
        (StrategyName::Etcd, "1", etcd),
    ] {
        let load = ["--store", "postgres", "--rate", "200", "--fault", faults];
        let under = ["--strategies", strategy.as_str(), "--redis-servers", redis_servers];
        let (code, printed, report) = compared(&[&load[..], &under].concat());
        assert_eq!(code, 0, "{printed}");
        assert_eq!(printed.contains("one of 3 redis"), redis_servers == "3", "{printed}");
        let run = run_of(&report, strategy);
        assert_eq!(
            (run.verdict, run.faults.len()),
            (Verdict::Correct, faults.split(',').count()),
            "{printed}"
        );
    }
}

#[test]
fn a_soak_ends_when_there_were_enough_orders_and_faults() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let load =
        ["--strategies", "database", "--orders", "1500", "--round", "1200", "--rate", "150", "--faults", "6"];
    let markdown = ["--markdown", file.path().to_str().unwrap()];
    let output = loadtest(&[&["soak"], &load[..], &markdown].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(&output), 0, "{said}");
    let table = std::fs::read_to_string(file.path()).unwrap();
    for row in ["units oversold", "order lost", "order invented", "order doubled"] {
        let line = table.lines().find(|line| line.contains(row)).unwrap();
        assert_eq!(line.split('|').nth(2).unwrap().trim(), "0", "{table}");
    }
    assert!(table.contains("Seed 2026, commit "), "{table}");
}

#[test]
fn a_fault_that_does_not_strike_proves_nothing() {
    for (fault, why) in [
        ("kill@30s", "kill@30s: the run had ended before"),
        ("restart:redis@0s", "restart:redis@0s: there is no such server"),
        ("kill@1s", "when nothing was to be sold any more"),
    ] {
        let load = match fault {
            "kill@1s" => &["--duration", "3s", "--stock", "20", "--top-up", "0s"][..],
            _ => &["--orders", "300"],
        };
        let (code, printed, _) =
            compared(&[&["--strategies", "row", "--no-control", "--fault", fault], load].concat());
        assert_eq!(code, 2, "{fault}: {printed}");
        assert!(printed.contains("INCONCLUSIVE · faults-struck"), "{fault}: {printed}");
        assert!(printed.contains(why), "{fault}: {printed}");
    }
}

#[test]
fn the_rate_is_that_of_the_time_in_which_there_was_something_to_sell() {
    let (_, printed, report) =
        compared(&["--strategies", "row", "--no-control", "--duration", "6s", "--stock", "300"]);
    let run = &report.runs[0];
    assert_eq!(run.units_sold, Some(300), "{printed}");
    assert!(run.seconds >= 6.0 && run.availability.selling_ms < 5_000.0, "{:?}", run.availability);
    let rate = 300.0 / (run.availability.selling_ms / 1e3);
    assert!((run.accepted_per_second - rate).abs() < 0.01, "{} and {rate}", run.accepted_per_second);
    // Where no stock is given, there is something to sell for most of a given time.
    let (_, printed, report) =
        compared(&["--strategies", "row", "--no-control", "--duration", "3s", "--quantity", "100"]);
    assert!(report.runs[0].availability.selling_ms >= 2_400.0, "{printed}");
    assert!(report.runs[0].supply > Some(2_000), "{printed}");
}

/// Sends a program what Ctrl-C sends.
fn interrupt(program: u32) {
    let pid = nix::unistd::Pid::from_raw(program.try_into().expect("an id is a number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_interrupted_is_judged_by_what_was_done() {
    let lab = lab::Lab::new().unwrap();
    for (strategy, expected) in [("none", 1), ("row", 0)] {
        let file = format!("{strategy}.db");
        let (_replicas, targets) = deployment(strategy, &[&file, &file], &lab).await;
        let json = lab.file("report.json");
        let mut load = tokio::process::Command::new(support::program());
        load.args(["run", "--token", "t", "--orders", "10000000", "--stock", "50", "--rate", "500"]);
        load.args(["--target", &targets[0], "--target", &targets[1], "--json"]).arg(&json);
        let load = load.stdout(Stdio::piped()).spawn().unwrap();
        // In the middle of it: when more was sold than there is, or was refused.
        let client = loadtest::client::Client::new(&targets[0], "t");
        while orders_at(&client).await < 60 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        interrupt(load.id().unwrap());
        let output = load.wait_with_output().await.unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(code(&output), expected, "{strategy}: {printed}");
        assert!(printed.contains("Stopped before the end"), "{printed}");
        let report: Report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert!(report.stopped && report.runs[0].stopped && report.runs[0].accepted > 0, "{printed}");
        assert_eq!(report.runs[0].oversold() > 0, strategy == "none", "{printed}");
    }
}

/// How many orders a replica has answered.
async fn orders_at(client: &loadtest::client::Client) -> u64 {
    let metrics = client.metrics().await.expect("metrics");
    let counted =
        |line: &&str| line.starts_with("stocklock_http_requests") && line.contains("route=\"/v1/orders\"");
    let counts = metrics.lines().filter(counted);
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn what_had_no_turn_before_the_interruption_is_not_as_expected() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let json = ["--json", file.path().to_str().unwrap()];
    let load = ["compare", "--strategies", "row,optimistic", "--orders", "10000000", "--stock", "50"];
    let load =
        Command::new(support::program()).args([&load[..], &json].concat()).stdout(Stdio::piped()).spawn();
    let load = load.unwrap();
    // When it has begun.
    let children = format!("/proc/{0}/task/{0}/children", load.id());
    let threads = format!("/proc/{}/task", load.id());
    while !std::fs::read_dir(&threads).unwrap().flatten().any(|thread| {
        std::fs::read_to_string(thread.path().join("children")).is_ok_and(|children| !children.is_empty())
    }) {
        assert!(std::path::Path::new(&children).exists(), "it has ended");
        std::thread::yield_now();
    }
    interrupt(load.id());
    let output = load.wait_with_output().unwrap();
    assert_eq!(code(&output), 2, "{output:?}");
    let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    assert!(report.stopped && report.not_run.iter().any(|not_run| not_run.reason.contains("stopped")));
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
        let timeout = std::time::Duration::from_secs(20);
        let started = lab::Process::start("replica", command, log, "listening on ", timeout).await;
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
    let output = loadtest(&arguments);
    assert_eq!(code(&output), 99);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("threshold missed: row: the p99 is"), "{printed}");
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
    for server in ["PostgreSQL", "Redis", "ZooKeeper", "etcd", "replica"] {
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
fn a_laboratory_runs_a_command_and_ends_with_it() {
    let output = loadtest(&["lab", "--only", "redis", "--", "sh", "-c", "echo got $REDIS_URL; exit 7"]);
    assert_eq!(code(&output), 7);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("got redis://127.0.0.1:"), "{output:?}");
    let said = [
        "lab",
        "--store",
        "sqlite",
        "--replicas",
        "2",
        "--",
        "sh",
        "-c",
        "echo $SHOP_1 $SHOP_2 \
     $TOKEN",
    ];
    let output = loadtest(&said);
    let words = String::from_utf8_lossy(&output.stdout).split_whitespace().count();
    assert_eq!((code(&output), words), (0, 3), "{output:?}");
    let missing = loadtest(&["lab", "--only", "redis", "--", "no-such-program"]);
    assert_ne!(code(&missing), 0);
    // A request to stop is passed on, and what the command makes of it is waited for.
    let mut lab = Command::new(support::program())
        .args(["lab", "--only", "redis", "--"])
        .args(["sh", "-c", "trap 'echo asked; exit 3' TERM; echo there; while :; do sleep 0.05; done"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(lab.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert_eq!(lines.next().as_deref(), Some("there"));
    let pid = nix::unistd::Pid::from_raw(lab.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().as_deref(), Some("asked"));
    assert_eq!(lab.wait().unwrap().code(), Some(3));
}

#[test]
fn restocks_cancellations_and_reads_take_their_place_in_one_history() {
    for store in ["sqlite", "postgres"] {
        let file = tempfile::NamedTempFile::new().unwrap();
        // The flags of an earlier version are known for one more.
        let (reads, timeout) =
            if store == "sqlite" { ("--looks", "--patience") } else { ("--reads", "--timeout") };
        let load = ["--quantity", "1..3", "--cancels", "0.2", "--restocks", "0.05"];
        let load = [&load[..], &[reads, "0.3", timeout, "9s"]].concat();
        let arguments =
            ["compare", "--strategies", "none,database,redis,row", "--store", store, "--orders", "1500"];
        let rest = ["--stock", "1000", "--json", file.path().to_str().unwrap()];
        let output = loadtest(&[&arguments[..], &load, &rest].concat());
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
        let report: Report = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
        let command = report.command.as_deref().unwrap_or_default();
        assert!(command.contains("--reads 0.3") && command.contains("--timeout 9s"), "{command}");
        for run in report.runs.iter().filter(|run| run.strategy != StrategyName::None) {
            for name in [CheckName::Linearizable, CheckName::AdjustmentsKept, CheckName::Balanced] {
                let check = run.check(name).unwrap();
                assert_eq!(check.status, Status::Pass, "{store}, {}: {check:?}", run.strategy);
            }
        }
    }
}
