//! Runs, as a page and its frozen copy show them.

use std::path::Path;
use std::process::Command as Program;
use std::time::{Duration, Instant};

use lab::Lab;
use loadtest::report::{Report, Screen, comparison};

use crate::browser::{Browser, with_browser, with_watched_browser};
use crate::dashboard::{Dashboard, assert_flawless, run};
use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn few_clicks_lead_to_both_verdicts() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&dashboard.with("strategy=none")).await;
        let verdict = run(browser).await;
        assert!(verdict.starts_with("OVERSOLD by") && verdict.contains("none"), "{verdict}");
        assert!(browser.text("#counterexample").await.contains("both read"));
        browser.click("#choices > summary").await;
        browser.click("input[value=none]").await;
        browser.click("input[value=database]").await;
        assert!(
            browser.evaluate("return location.search").await.as_str().unwrap().contains("strategy=database")
        );
        browser.until("#command", |text| text.contains("--strategies database ")).await;
        browser.click("#start").await;
        let verdict = browser.until("#verdict .headline", |text| text.starts_with("CORRECT")).await;
        assert!(
            verdict.contains("database") && verdict.contains("orders/s") && verdict.contains("p99"),
            "{verdict}"
        );
        assert!(browser.text("#locks").await.contains("showing"), "the lock timeline");
        assert_flawless(browser, "after a run").await;
        // Of several, the banner is of all, and what is wrong comes first.
        browser.click("#choices > summary").await;
        browser.click("input[value=none]").await;
        browser.click("#start").await;
        browser.until("#verdict .headline", |text| text == "1 of 2 strategies oversold: none").await;
        assert!(browser.text("#counterexample").await.contains("both read"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_seen_again_after_a_reload_and_can_be_stopped() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        // At a rate that leaves the machine time to draw the page: as fast as they can, the buyers would take
        // it all.
        browser
            .open(&dashboard.with("strategy=database&control=off&orders=1000000&stock=1000000&rate=300"))
            .await;
        browser.click("#start").await;
        browser.until("#verdict .headline", |text| text.contains("so far no violation")).await;
        let answered = |text: &str| text.contains("answered in") && !text.contains("answered in 0.");
        browser.until(".tiles", answered).await;
        browser.reload().await;
        // What the server sends at once, before any event.
        let page = dashboard.get("/").await.text().await.unwrap();
        assert!(page.contains("so far no violation") && page.contains("class=\"plot plot-stock\""));
        assert!(browser.text("#verdict .headline").await.contains("so far no violation"));
        let before = browser.text(".tiles").await;
        browser.until(".tiles", |text| text != before).await;
        assert_flawless(browser, "in the middle of a run").await;
        assert_keeps_up(browser, &dashboard).await;
        assert!(dashboard.children() >= 2, "replicas run");
        browser.click("#stop").await;
        // What was done is judged.
        browser.until("#verdict .headline", |text| text.starts_with("CORRECT · database")).await;
        browser.until("#verdict", |text| text.contains("Stopped before the end")).await;
        let give_up = Instant::now() + Duration::from_secs(20);
        while dashboard.children() > 0 {
            assert!(Instant::now() < give_up, "{} processes are left behind", dashboard.children());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(run_again_is_possible(browser).await);
    })
    .await;
}

/// How many orders a text says are answered.
fn answered(text: &str) -> Option<u64> {
    let (before, _) = text.split_once(" of 1,000,000 answered")?;
    before.rsplit(['>', '\n', ' ']).next()?.replace(',', "").parse().ok()
}

/// What the dashboard knows, the page comes to show, again and again. (How soon is up to the machine, which
/// has browsers and shops enough to do.)
async fn assert_keeps_up(browser: &Browser, dashboard: &Dashboard) {
    for _ in 0..10 {
        let known = answered(&dashboard.get("/").await.text().await.expect("a page")).expect("a run goes on");
        browser.until(".tiles", |text| answered(text).is_some_and(|shown| shown >= known)).await;
    }
}

async fn run_again_is_possible(browser: &Browser) -> bool {
    browser.evaluate("return !document.getElementById('start').disabled").await == true
}

/// The figures of a table's row: of the terminal's by its bars, of the page's by its names.
fn terminal_row(table: &str, strategy: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.starts_with(&format!("| {strategy} "))).expect("a row");
    line.split('|').map(|cell| cell.trim().trim_end_matches(" ms").to_owned()).collect()
}

async fn page_figure(browser: &Browser, strategy: &str, figure: &str) -> f64 {
    let script = format!(
        "const rows = [...document.querySelectorAll('.comparison tbody tr')];
         const row = rows.find((row) => row.cells[0].innerText === '{strategy}');
         return row.querySelector('[data-figure={figure}]').firstChild.data"
    );
    let text = browser.evaluate(&script).await;
    let text = text.as_str().expect("a figure").trim().replace(',', "");
    if text == "–" { f64::NAN } else { text.parse().expect("a number") }
}

/// The terminal's table, the JSON and the page say the same of the same runs, but for the digits that are
/// shown.
async fn assert_same_figures(browser: &Browser, report: &Report, terminal: &str) {
    for run in &report.runs {
        let strategy = run.strategy.to_string();
        let row = terminal_row(terminal, &strategy);
        let figures = [
            ("oversold", 4, run.oversold() as f64),
            ("rate", 5, run.accepted_per_second),
            ("p50", 6, run.latency_ms.p50),
            ("p99", 7, run.latency_ms.p99),
            ("batch", 10, run.lock.batch_mean),
            ("stale", 11, run.lock.stale_writes_rejected as f64),
        ];
        for (name, column, json) in figures {
            let terminal: f64 = row[column].parse().unwrap_or_else(|_| panic!("{name} is {:?}", row[column]));
            let page = page_figure(browser, &strategy, name).await;
            let digits = if name == "rate" || page >= 100.0 { 0.501 } else { 0.0501 };
            assert!((terminal - json).abs() < digits, "{name}: {terminal} on the terminal, {json} in JSON");
            assert!((page - json).abs() < digits, "{name}: {page} on the page, {json} in JSON");
        }
        let sold = format!("{} of {}", run.units_sold.expect("it was read"), run.stock);
        assert_eq!(row[3], sold);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_frozen_page_needs_nothing_and_says_what_the_terminal_says() {
    let lab = Lab::new().unwrap();
    let (json, html) = (lab.file("report.json"), lab.file("report.html"));
    let load = ["--orders", "300", "--stock", "100", "--buyers", "32", "--replicas", "2"];
    let output = Program::new(support::program())
        .args(["compare", "--strategies", "none,database"])
        .args(load)
        .args([Path::new("--json"), &json, Path::new("--html"), &html])
        .output()
        .unwrap();
    let terminal = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    with_watched_browser(async |browser| {
        browser.requests().await;
        browser.open(&format!("file://{}", html.display())).await;
        assert_same_figures(browser, &report, &terminal).await;
        let banner = browser.text("#run-0 .headline").await;
        assert!(banner.starts_with("OVERSOLD by"), "{banner}");
        assert!(browser.text("#run-1 .headline").await.starts_with("CORRECT"));
        // All strategies are in one chart, and the cursor is in all charts, without any server.
        browser.point_at_middle("#overlay-rate .plot").await;
        let read = browser.until("#overlay .readout output", |text| text.contains("none ")).await;
        assert!(read.contains("database ") && read.contains(" left"), "{read}");
        assert_eq!(
            browser.evaluate("return document.querySelectorAll('#overlay .plot.pointed').length").await,
            2
        );
        assert_flawless(browser, "the report").await;
        let requests = browser.requests().await;
        assert!(requests.iter().all(|request| request.starts_with("file://")), "{requests:?}");
        assert!(!requests.is_empty(), "the report itself was asked for");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_runs_survive_a_restart_and_are_compared() {
    let lab = Lab::new().unwrap();
    with_browser(async |browser| {
        let dashboard = Dashboard::start(&lab).await;
        browser.open(&dashboard.with("strategy=none&strategy=row")).await;
        run(browser).await;
        browser.until("#files", |text| text.contains("JSON")).await;
        let link =
            browser.evaluate("return document.querySelector('#downloads a').getAttribute('href')").await;
        let link = link.as_str().unwrap().to_owned();
        let report: Report = dashboard.get(&link).await.json().await.unwrap();
        assert_same_figures(browser, &report, &comparison(&report, Screen::default())).await;
        browser.open(&dashboard.with("strategy=row")).await;
        run(browser).await;
        browser.until("#files", |text| text.contains("JSON")).await;
        browser.open("about:blank").await;
        drop(dashboard);

        let dashboard = Dashboard::start(&lab).await;
        browser.open(&format!("{}/runs", dashboard.address)).await;
        assert_flawless(browser, "past runs").await;
        browser.click("button.primary").await;
        let compared = browser.until("#compared", |text| text.contains("2 compared")).await;
        assert!(compared.contains("row") && compared.contains("correct"), "{compared}");
        let again: Report = dashboard.get(&link).await.json().await.unwrap();
        assert_eq!(again, report);
        browser.open(&format!("{}{}", dashboard.address, link.trim_end_matches(".json"))).await;
        assert_same_figures(browser, &report, &comparison(&report, Screen::default())).await;
        assert_flawless(browser, "a past run").await;
        let csv = dashboard.get(&link.replace(".json", ".csv")).await.text().await.unwrap();
        assert_eq!(csv.lines().count(), 3, "{csv}");
    })
    .await;
}
