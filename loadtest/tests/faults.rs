//! Replicas that are killed or stopped at any moment.

mod support;

use std::sync::Arc;
use std::time::Duration;

use loadtest::attempt::OutcomeGroup;
use loadtest::fleet::Fleet;
use loadtest::progress::Progress;
use loadtest::report::RunReport;
use loadtest::run::{self, FaultSource};
use loadtest::scenario::{Amount, Scenario};
use loadtest::verdict::{CheckName, Status, Verdict};
use order_service::config::StrategyName;
use tokio::time::sleep;

/// Sends a load to three replicas and kills one as soon as so many orders are confirmed.
async fn with_a_kill(strategy: StrategyName, victim: usize, after: u64) -> RunReport {
    let plan = support::plan(strategy, 3).with("lock.wait", "4s").with("server.request_timeout", "8s");
    let mut fleet = Fleet::start(plan).await.expect("the replicas start");
    let clients = fleet.clients().to_vec();
    let progress = Arc::new(Progress::default());
    let scenario = Scenario { amount: Amount::Orders(1_500), stock: 1_000, ..Scenario::default() };
    let kill = async {
        while progress.sold() < after {
            sleep(Duration::from_micros(200)).await;
        }
        fleet.replicas()[victim].kill().await.expect("the replica is killed");
        progress.sold()
    };
    let (run, sold) = tokio::join!(run::fire(&clients, &scenario, &progress, FaultSource::Elsewhere), kill);
    let run = run.expect("the run comes to an end");
    assert!(run.accepted > sold, "the run went on with the others");
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_loses_nothing_and_oversells_nothing() {
    for strategy in [StrategyName::Database, StrategyName::Row, StrategyName::Optimistic] {
        for (round, after) in [1, 37, 211, 502, 900].into_iter().enumerate() {
            let run = with_a_kill(strategy, round % 3, after).await;
            assert_eq!(run.verdict, Verdict::Correct, "{strategy}, killed after {after}: {:#?}", run.checks);
            assert_eq!(run.oversold_units, Some(0), "{strategy}");
            for name in [CheckName::NothingLost, CheckName::Linearizable] {
                assert_eq!(run.check(name).expect("the check").status, Status::Pass);
            }
        }
    }
}

/// Lets a process write files of any size again.
fn lift_file_size_limit(pid: i32) {
    let lifted =
        std::process::Command::new("prlimit").args(["--pid", &pid.to_string(), "--fsize=unlimited"]).status();
    assert!(lifted.expect("prlimit is part of util-linux").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_orders_and_is_survived() {
    for strategy in ["database", "row"] {
        let lab = lab::Lab::new().expect("a directory");
        let url = format!("sqlite://{}", lab.file("stocklock.db").display());
        // Files end at 300 blocks of 512 bytes: a write beyond that fails, as on a full disk.
        let script = "trap '' XFSZ; ulimit -S -f 300; exec \"$@\"";
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", script, "sh"]).arg(support::program()).args(["serve", "--die-with-parent"]);
        command.args(["--server.listen", "127.0.0.1:0", "--admin.token", "t", "--store.url", &url]);
        command.args(["--lock.strategy", strategy]);
        let timeout = Duration::from_secs(10);
        let log = lab.file("log");
        let (replica, address) =
            lab::Process::start("replica", command, log, "listening on ", timeout).await.expect("it starts");
        let client = loadtest::client::Client::new(&address, "t");
        client.create_product("comb", "Comb", 100_000).await.expect("a product");
        client.create_product("mirror", "Mirror", 1).await.expect("a product");
        let order_of = |sku: &str, buyer: String| {
            let order = order_service::api::NewOrder { sku: sku.into(), quantity: 1, buyer };
            let client = client.clone();
            async move { client.order(&order, None, timeout).await.expect("an answer").status.as_u16() }
        };
        let order = |buyer: String| order_of("comb", buyer);
        let (mut confirmed, mut failed) = (0, 0);
        for i in 0..2_000 {
            match order(format!("buyer-{i}")).await {
                201 => confirmed += 1,
                503 | 504 => failed += 1,
                other => panic!("{strategy}: {other}"),
            }
            if failed == 5 {
                break;
            }
        }
        assert_eq!(failed, 5, "{strategy}: the limit was never met");
        // Of many concurrent orders for the last one none is confirmed; and none is refused for want of
        // stock.
        let mut wanting = tokio::task::JoinSet::new();
        (0..40).for_each(|i| drop(wanting.spawn(order_of("mirror", format!("wanting-{i}")))));
        let answers = wanting.join_all().await;
        assert!(answers.iter().all(|status| matches!(status, 503 | 504)), "{strategy}: {answers:?}");
        lift_file_size_limit(replica.id());
        assert_eq!(order("after".into()).await, 201, "{strategy}: it goes on as soon as there is room");
        assert_eq!(order_of("mirror", "after".into()).await, 201, "{strategy}: it is still there");
        let audit = client.audit("comb").await.expect("an audit");
        assert_eq!((audit.orders, audit.balanced), (confirmed + 1, true), "{strategy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_shows_in_the_latency_from_the_intended_start() {
    let plan = support::plan(StrategyName::Row, 1);
    let mut fleet = Fleet::start(plan).await.expect("the replica starts");
    let clients = fleet.clients().to_vec();
    let progress = Arc::new(Progress::default());
    let scenario = Scenario {
        buyers: 8,
        rate: Some(200.0),
        amount: Amount::Orders(300),
        stock: 1_000,
        replays: 0.0,
        ..Scenario::default()
    };
    let stall = Duration::from_millis(1_000);
    let stalled = async {
        while progress.done() < 20 {
            sleep(Duration::from_millis(1)).await;
        }
        fleet.replicas()[0].pause().expect("the replica is stopped");
        sleep(stall + Duration::from_millis(100)).await;
        fleet.replicas()[0].resume().expect("the replica goes on");
    };
    let (run, ()) = tokio::join!(run::fire(&clients, &scenario, &progress, FaultSource::Elsewhere), stalled);
    let run = run.expect("the run comes to an end");
    assert_eq!(run.verdict, Verdict::Correct, "{:#?}", run.checks);
    let latency = run.latencies.by_outcome[&OutcomeGroup::Accepted];
    // Eight were in the service when it stalled, 200 more would have been there: they are charged to it.
    assert!(latency.response.p99 >= stall.as_secs_f64() * 1e3, "{latency:?}");
    assert!(latency.response.p50 >= 300.0 && latency.service.p50 < 100.0, "{latency:?}");
    assert!(run.generator_kept_up, "{:?}", run.latencies);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_holder_s_write_is_refused_by_the_guard() {
    for strategy in StrategyName::leased() {
        let plan = support::plan(strategy, 2)
            .with("checkout.think_time", "300ms")
            .with("lock.wait", "5s")
            .with("server.request_timeout", "10s");
        let mut fleet = Fleet::start(plan).await.expect("the replicas start");
        let clients = fleet.clients().to_vec();
        clients[0].create_product("comb", "Comb", 1).await.expect("a product");
        let order = |client: loadtest::client::Client, buyer: &'static str| async move {
            let order = order_service::api::NewOrder { sku: "comb".into(), quantity: 1, buyer: buyer.into() };
            client.order(&order, None, Duration::from_secs(20)).await.expect("an answer").status.as_u16()
        };
        let a = tokio::spawn(order(clients[0].clone(), "A"));
        // When A knows that it has the lock, and some of the 300 ms after.
        while clients[0].holds("comb").await.expect("a record").holds.is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(100)).await;
        // Stopped between its read and its write, for longer than its lease.
        fleet.replicas()[0].pause().expect("the replica is stopped");
        assert_eq!(order(clients[1].clone(), "B").await, 201, "{strategy}: B buys the last comb");
        fleet.replicas()[0].resume().expect("the replica goes on");
        assert_eq!(a.await.expect("an answer"), 409, "{strategy}: A read one comb, and may not write it");
        let audit = clients[1].audit("comb").await.expect("an audit");
        assert_eq!((audit.units_sold, audit.oversold_units, audit.balanced), (1, 0, true), "{strategy}");
        let metrics = clients[0].metrics().await.expect("metrics");
        for counter in ["checkout_stale_writes_rejected", "lock_lost_leases"] {
            let line = format!("stocklock_{counter}_total{{strategy=\"{strategy}\"}} 1");
            assert!(metrics.contains(&line), "{line}: {metrics}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_ends_at_any_edge_of_the_critical_section_loses_nothing() {
    for point in ["after_lock", "after_read", "before_commit", "after_commit", "before_release"] {
        let plan = support::plan(StrategyName::Database, 3)
            .with("lock.database.lease", "300ms")
            .with("lock.wait", "8s")
            .with("server.request_timeout", "15s")
            // Many holds, so that some replica is sure to end.
            .with("checkout.max_batch", "4")
            .with(&format!("failpoints.{point}"), "4% abort");
        let mut fleet = Fleet::start(plan).await.expect("the replicas start");
        let clients = fleet.clients().to_vec();
        let scenario = Scenario {
            amount: Amount::Orders(2_000),
            stock: 1_000,
            timeout: Duration::from_secs(30),
            ..Scenario::default()
        };
        let progress = Arc::default();
        let run = run::fire(&clients, &scenario, &progress, FaultSource::Elsewhere);
        let mut deaths = 0;
        let supervise = async {
            loop {
                for replica in 0..clients.len() {
                    if fleet.replicas()[replica].exited().is_some() {
                        deaths += 1;
                        fleet.restart(replica).await.expect("the replica starts again");
                    }
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let run = tokio::select! {
            run = run => run.expect("the run comes to an end"),
            () = supervise => unreachable!("it goes on for ever"),
        };
        assert!(deaths > 0, "{point}: no replica ended");
        assert_eq!(run.verdict, Verdict::Correct, "{point}, {deaths} deaths: {:#?}", run.checks);
        // Orders that were carried out and not answered: that is what the failpoint is for.
        println!("{point}: {deaths} deaths, {} answers missing", run.unknown);
    }
}
