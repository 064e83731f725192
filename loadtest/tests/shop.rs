//! Shops that are not ours, described by a file: a racy one is caught, an honest one is not.

#[path = "support/shops.rs"]
mod shops;
mod support;

use std::sync::Arc;

use loadtest::fleet::Fleet;
use loadtest::shop::{Arrival, Description, Load, ShopProgress, ShopReport, ShopRun, page, rehearse, run};
use loadtest::verdict::{CheckName, Status, Verdict};
use order_service::config::StrategyName;
use shops::{Counter, Keyed, Shop, by_sql, describe, forms, keyed, load};

async fn fire(shop: &Description, load: &Load) -> ShopReport {
    let rehearsal = rehearse(shop, load).await.expect("the shop is there");
    assert!(rehearsal.faults.is_empty(), "{rehearsal}");
    run(shop, load, &Arc::default()).await.expect("the runs come to their end")
}

fn status(run: &ShopRun, name: CheckName) -> Status {
    run.checks.iter().find(|check| check.name == name).expect("a check").status
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_service_gets_the_verdict_that_it_gets_from_those_who_know_it() {
    for (strategy, expected) in
        [(StrategyName::None, Verdict::Violated), (StrategyName::Database, Verdict::Correct)]
    {
        let plan = support::plan(strategy, 2).with("checkout.think_time", "2ms");
        let fleet = Fleet::start(plan).await.expect("the replicas start");
        let mut text =
            include_str!("../examples/stocklock/shop.toml").replace("{{env.TOKEN}}", fleet.token());
        for (number, client) in fleet.clients().iter().enumerate() {
            text = text.replace(&format!("{{{{env.SHOP_{}}}}}", number + 1), client.base());
        }
        let report = fire(&describe(&text).expect("a description"), &load(&[8, 40])).await;
        assert_eq!(report.verdict, expected, "{report}");
        let oversold = report.runs.iter().any(|run| run.oversold > 0);
        assert_eq!(oversold, strategy == StrategyName::None, "{report}");
        fleet.stop().await.expect("the replicas stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_race_behind_a_form_is_found_and_once_it_is_mended_it_is_not() {
    let racy = describe(&forms(&Shop::serve(false).await)).expect("a description");
    let report = fire(&racy, &load(&[4, 20])).await;
    assert_eq!(report.verdict, Verdict::Violated, "{report}");
    let control = &report.runs[0];
    assert!(control.is_control(), "{report}");
    assert_eq!((control.at_once, control.sold, control.verdict), (1, Some(10), Verdict::Correct), "{report}");
    let last = report.runs.last().expect("runs");
    assert!(last.oversold > 0 && last.sold == Some(10 + last.oversold), "{report}");
    assert!(report.headline.starts_with("OVERSOLD by "), "{report}");
    let counterexample = last.counterexample.as_ref().expect("a purchase was one too many");
    assert!(
        counterexample.contains("purchase") && counterexample.contains("both were confirmed"),
        "{report}"
    );
    let told = page::telling(&report).and_then(|run| run.counterexample.as_deref()).expect("it oversold");
    let page = page::frozen(&report);
    for part in ["OVERSOLD by ", "10 of 10", told, "first-too-many"] {
        assert!(page.contains(&part.replace('"', "&quot;")), "{part} is not on the page");
    }
    let mended = describe(&forms(&Shop::serve(true).await)).expect("a description");
    let report = fire(&mended, &load(&[4, 20])).await;
    assert_eq!(report.verdict, Verdict::Correct, "{report}");
    assert!(report.headline.contains("0 of 2 concurrent runs"), "{report}");
    assert_eq!(status(&report.runs[1], CheckName::Balanced), Status::NotApplicable, "there is no truth.left");
    assert_eq!(
        status(&report.runs[1], CheckName::OncePerKey),
        Status::NotApplicable,
        "nothing is idempotent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn purchases_come_at_a_rate_whoever_is_waiting() {
    let racy = describe(&forms(&Shop::serve(false).await)).expect("a description");
    let at_a_rate = Load { arrivals: vec![Arrival::Rate(1000.0)], ..load(&[]) };
    let report = fire(&racy, &at_a_rate).await;
    let run = &report.runs[1];
    assert!(run.at_once > 1 && run.oversold > 0, "{report}");
    assert_eq!((report.verdict, run.purchases), (Verdict::Violated, 40), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_all_others_finds_the_race_also_in_a_shop_that_is_quick() {
    let racy = describe(&forms(&Shop::serve(false).await)).expect("a description");
    let together = Load { rendezvous: true, ..load(&[20]) };
    let report = fire(&racy, &together).await;
    // The second twenty find it as the first have left it.
    assert!(report.runs[1].oversold >= 5, "{report}");
    assert!(report.runs.iter().all(|run| run.purchases == 40), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_twice_has_to_be_one_order() {
    for (is_honest, expected) in [(true, Status::Pass), (false, Status::Fail)] {
        let shop = describe(&keyed(&Keyed::serve(is_honest).await)).expect("a description");
        let report = fire(&shop, &load(&[8])).await;
        // Without a race, one of two can be a sale too many: then the control says so, and is all.
        let run = report.runs.last().expect("runs");
        assert!(run.resent > 0 && run.is_control() != is_honest, "{report}");
        assert_eq!(status(run, CheckName::OncePerKey), expected, "{report}");
        assert_eq!(status(run, CheckName::NotOversold), Status::Pass, "{report}");
        assert_eq!(status(run, CheckName::NothingLost), Status::Pass, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_truth_is_read_from_the_databases_that_shops_have() {
    let (postgres, mariadb) = tokio::join!(lab::Postgres::start(), lab::Mariadb::start());
    let (postgres, mariadb) = (postgres.expect("PostgreSQL starts"), mariadb.expect("MariaDB starts"));
    let directory = tempfile::tempdir().expect("a directory");
    let sqlite = format!("sqlite://{}?mode=rwc", directory.path().join("shop.db").display());
    for database in [postgres.url_of("postgres"), mariadb.url(), sqlite] {
        let url = Counter::serve(&database).await;
        let report = fire(&describe(&by_sql(&url, &database)).expect("a description"), &load(&[4])).await;
        assert_eq!(report.verdict, Verdict::Correct, "{database}: {report}");
        let run = &report.runs[1];
        assert_eq!((run.sold, run.bought, run.refused), (Some(10), 10, 30), "{database}: {report}");
        assert_eq!(status(run, CheckName::Balanced), Status::Pass, "{database}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_without_a_race_is_said_to_be_so() {
    // Whoever looks last finds one more than was sold: so says the record, and no race explains it.
    let text = forms(&Shop::serve(true).await).replace("$.orders[*].units", "$.crooked");
    let shop = describe(&text).expect("a description");
    let report = run(&shop, &load(&[4, 8]), &Arc::default()).await.expect("the runs come to their end");
    assert_eq!(report.runs.len(), 1, "the others prove nothing: {report}");
    assert!(report.headline.contains("one buyer after the other"), "{report}");
    assert_ne!(report.verdict, Verdict::Correct);
}

/// The program's exit code and what it said, of a load on a shop described by this text.
async fn fired(text: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("it is written");
    let mut program = tokio::process::Command::new(support::program());
    program.args(["run", "--rungs", "4,8", "--settle", "3s"]).args(arguments);
    let output = program.arg("--target-file").arg(file.path()).output().await.expect("the program runs");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (output.status.code(), said.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_says_what_came_of_it() {
    let (racy, mended) = (forms(&Shop::serve(false).await), forms(&Shop::serve(true).await));
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("shop.json");
    let wrong = mended.replace("sold-out", "gone");
    let json_file = json.to_str().expect("a path");
    for (text, arguments, code, said) in [
        (&racy, &["--json", json_file][..], 1, "OVERSOLD by"),
        (&mended, &["--min-rate", "0.1"], 0, "in 0 of 2 concurrent runs"),
        (&mended, &["--max-p99", "1ms"], 99, "threshold missed: 4 at once: the p99 is"),
        (&mended, &["--dry-run"], 0, "The description fits the shop."),
        (&wrong, &[], 2, "a refusal is not recognised"),
        (&mended, &["--orders", "9"], 2, "nothing could be oversold"),
        (&mended, &["--max-requests", "100"], 64, "say --max-requests"),
        (&mended, &["--cancels", "0.5"], 64, "--cancels"),
        (&mended, &["--buyers", "7"], 64, "--rungs"),
        (&mended, &["--duration", "3s"], 64, "duration: only with a rate"),
        (&mended, &["--quantity", "1..3"], 64, "--quantity"),
    ] {
        let (ended, printed) = fired(text, arguments).await;
        assert_eq!(ended, Some(code), "{arguments:?}: {printed}");
        assert!(printed.contains(said), "{arguments:?}: {printed}");
    }
    let report: ShopReport =
        serde_json::from_slice(&std::fs::read(&json).expect("it was written")).expect("a report");
    assert!(report.headline.starts_with("OVERSOLD by"), "{report}");
    assert_eq!(report.runs[1].tried.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_stopped_is_judged_by_what_was_done() {
    let shop = describe(&forms(&Shop::serve(false).await)).expect("a description");
    let progress = Arc::new(ShopProgress::default());
    let many = Load { purchases: 100_000, ..load(&[8]) };
    let (watched, began) = (Arc::clone(&progress), tokio::time::Instant::now());
    tokio::spawn(async move {
        let enough = |progress: &ShopProgress| progress.now().is_some_and(|now| now.done() >= 30);
        while !enough(&watched) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        watched.stop().cancel();
    });
    let report = run(&shop, &many, &progress).await.expect("it comes to its end");
    assert!(began.elapsed() < std::time::Duration::from_secs(60));
    assert!(report.stopped && report.runs.len() == 1, "{report}");
    let control = &report.runs[0];
    assert!((30..100_000).contains(&control.purchases) && control.sold == Some(10), "{report}");
    assert_eq!(report.verdict, Verdict::Inconclusive, "one buyer after the other proves nothing: {report}");
}
