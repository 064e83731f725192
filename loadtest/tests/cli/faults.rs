//! Faults while orders are sold.

use loadtest::verdict::{CheckName, Status, Verdict};
use order_service::config::StrategyName;

use crate::program::{code, compared, loadtest, run_of, said, status};

#[test]
fn faults_strike_while_orders_are_sold_and_the_report_says_what_they_cost() {
    // No length is given: it goes on until the faults are over. Holds last, so that whoever is seen to have
    // the lock has it when it is stopped.
    let slow = ["--set", "checkout.think_time=50ms", "--set", "lock.wait=5s"];
    // Also a machine that sells slowly comes to the end of the stock.
    let faults = ["--strategies", "redis", "--stock", "400", "--fault", "pause:2xlease@1s,restart:redis@6s"];
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
fn a_fault_is_told_when_it_is_injected() {
    let faults = ["--fault", "pause:300ms@500ms,restart:redis@1s", "--duration", "3s", "--no-control"];
    let output = loadtest(&[&["compare", "--strategies", "redis", "--quiet"], &faults[..]].concat());
    assert_eq!(said(&output), "", "unless quiet is wanted");
    let output = loadtest(&[&["compare", "--strategies", "redis"], &faults[..]].concat());
    let said = said(&output);
    let lines: Vec<_> = said.lines().collect();
    let line = |what: &str| lines.iter().rposition(|line| line.starts_with("redis: ") && line.contains(what));
    let (paused, restarted) = (line(" is stopped"), line(" is killed and started again"));
    assert!(paused.is_some() && paused < restarted && restarted < line(" sold of "), "{said}");
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
    assert_eq!(code(&output), 0, "{}", said(&output));
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
