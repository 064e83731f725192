//! The dashboard and its frozen page, in a real browser.

#[path = "support/browser.rs"]
mod browser;
#[path = "support/dashboard.rs"]
mod dashboard;
#[path = "support/shops.rs"]
mod shops;
mod support;

use std::path::Path;
use std::process::Command as Program;
use std::time::{Duration, Instant};

use lab::Lab;
use loadtest::report::{Report, comparison};
use loadtest::shop::ShopReport;

use self::browser::{Browser, with_browser, with_watched_browser};
use self::dashboard::{Dashboard, assert_flawless, run};
use self::shops::{Shop, forms};

#[tokio::test(flavor = "multi_thread")]
async fn four_clicks_lead_to_both_verdicts() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&dashboard.with("strategy=none")).await;
        let verdict = run(browser).await;
        assert!(verdict.starts_with("OVERSOLD by") && verdict.contains("none"), "{verdict}");
        assert!(browser.text("#counterexample").await.contains("both read"));
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
        browser.click("input[value=none]").await;
        browser.click("#start").await;
        browser.until("#verdict .headline", |text| text == "1 of 2 oversold: none").await;
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
        assert_same_figures(browser, &report, &comparison(&report)).await;
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
        assert_same_figures(browser, &report, &comparison(&report)).await;
        assert_flawless(browser, "a past run").await;
        let csv = dashboard.get(&link.replace(".json", ".csv")).await.text().await.unwrap();
        assert_eq!(csv.lines().count(), 3, "{csv}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_tried_by_a_button() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&format!("{}/experiments", dashboard.address)).await;
        assert_flawless(browser, "experiments").await;
        browser.click("[aria-label='Try oversell']").await;
        browser.until("#oversell", |text| text.contains("reproduced")).await;
        assert!(browser.text("#oversell").await.contains("without a lock 3 were sold of 2"));
        assert_flawless(browser, "an experiment").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyboard_is_enough() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&dashboard.with("strategy=row")).await;
        let (mut reached, mut unseen) = (Vec::new(), Vec::new());
        while reached.last().is_none_or(|id| id != "start") && reached.len() < 60 {
            browser.press_tab().await;
            let seen = "const e = document.activeElement, s = getComputedStyle(e.closest('.choice') ?? e);
                        return [e.id || e.name || e.className || e.innerText, s.outlineStyle]";
            let seen: [String; 2] = serde_json::from_value(browser.evaluate(seen).await).unwrap();
            let [id, outline] = seen;
            if outline == "none" {
                unseen.push(id.clone());
            }
            reached.push(id);
        }
        assert_eq!(reached[0], "skip", "{reached:?}");
        assert!(reached.contains(&"strategy".to_owned()) && reached.contains(&"field-stock".to_owned()));
        assert_eq!(unseen, Vec::<String>::new(), "focused, and not seen to be");
        browser.press_enter().await;
        browser.until("#verdict .headline", |text| text.starts_with("CORRECT")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_typed_is_shown_as_text() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&dashboard.with("strategy=none&faults=kill%401s")).await;
        let evil = "\"><script>window.evil = 1</script><img src=x onerror=window.evil=2>";
        browser.fill("#field-faults", evil).await;
        browser.until("#no-command", |text| text.contains("is right")).await;
        browser.click("#start").await;
        browser.until("#faults-hint", |text| text.contains("is no fault")).await;
        assert_eq!(browser.evaluate("return document.getElementById('field-faults').value").await, evil);
        assert_eq!(browser.evaluate("return window.evil ?? null").await, serde_json::Value::Null);
        assert_eq!(browser.evaluate("return document.images.length").await, 0);
        assert_flawless(browser, "mistakes").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_have_no_control() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    let client = reqwest::Client::new();
    let port = dashboard.address.rsplit_once(':').unwrap().1;
    let post = |path: &str| client.post(format!("{}{path}", dashboard.address)).body("strategy=none");
    for path in ["/run", "/stop", "/experiments/oversell"] {
        for request in [
            post(path),
            post(path).header("origin", "http://evil.example"),
            post(path).header("origin", "null"),
            post(path).header("origin", &dashboard.address).header("sec-fetch-site", "cross-site"),
            post(path).header("host", format!("evil.example:{port}")).header("origin", "http://evil.example"),
        ] {
            assert_eq!(request.send().await.unwrap().status(), 403, "{path}");
        }
    }
    let rebound = client.get(&dashboard.address).header("host", "evil.example").send().await.unwrap();
    assert_eq!(rebound.status(), 403);
    assert_eq!(dashboard.children(), 0);
    let page = dashboard.get("/").await;
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    for listen in ["0.0.0.0:0", "192.0.2.1:7070", "[::]:0"] {
        let output =
            Program::new(support::program()).args(["dashboard", "--listen", listen]).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{listen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_is_not_ours_is_judged_on_a_page_of_its_own() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    let file = lab.file("shop.toml");
    std::fs::write(&file, forms(&Shop::serve(false).await)).unwrap();
    with_browser(async |browser| {
        browser.open(&format!("{}/shop", dashboard.address)).await;
        assert_flawless(browser, "before").await;
        // What is wrong is said where it was typed.
        browser.click("#start").await;
        browser.until(".controls .message", |text| text.contains("file: say where")).await;
        // The browser tells of the status, which is what it should be.
        assert_eq!(browser.complaints().await.len(), 1);
        browser.fill("#field-file", file.to_str().unwrap()).await;
        browser.fill("#field-rungs", "4,20").await;
        browser.until("#command", |text| text.contains("shop.toml") && text.contains("--rungs 4,20")).await;
        browser.click("#try").await;
        browser.until("#verdict .headline", |text| text.contains("The description fits")).await;
        assert!(browser.text("#rehearsal").await.contains("csrf = token-"));
        browser.click("#start").await;
        let verdict = browser.until("#verdict .headline", |text| text.starts_with("OVERSOLD by")).await;
        assert!(verdict.contains("forms") && verdict.contains("at once"), "{verdict}");
        assert!(browser.text("#counterexample").await.contains("is one too many"));
        assert_eq!(browser.evaluate("return document.querySelectorAll('.ladder tbody tr').length").await, 3);
        assert_flawless(browser, "after a load on a shop").await;
        keep_pictures(browser, "shop").await;
        // It is kept, and is there again as a page and as a file.
        let kept = "return document.querySelector('#past a').getAttribute('href')";
        let kept = browser.evaluate(kept).await.as_str().expect("a link").to_owned();
        browser.open(&format!("{}{kept}", dashboard.address)).await;
        assert!(browser.text("#main").await.contains(&verdict));
        let page = dashboard.get(&format!("{kept}.html")).await.text().await.expect("a page");
        std::fs::write(lab.file("frozen.html"), page).unwrap();
        let report: ShopReport = dashboard.get(&format!("{kept}.json")).await.json().await.expect("a report");
        assert_eq!(report.headline, verdict);
        // A description that does not fit is told from a shop that is wrong.
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace("sold-out", "gone")).unwrap();
        browser.open(&format!("{}/shop", dashboard.address)).await;
        browser.click("#start").await;
        browser.until("#verdict .headline", |text| text.contains("does not fit")).await;
        assert!(browser.text("#rehearsal").await.contains("a refusal is not recognised"));
    })
    .await;
    with_watched_browser(async |browser| {
        browser.requests().await;
        browser.open(&format!("file://{}", lab.file("frozen.html").display())).await;
        assert_flawless(browser, "the frozen page of a shop").await;
        let requests = browser.requests().await;
        assert!(requests.iter().all(|request| request.starts_with("file://")), "{requests:?}");
    })
    .await;
}

/// Pictures of a page, when somebody asks for them by `make screenshots`.
async fn keep_pictures(browser: &Browser, name: &str) {
    let Some(directory) = std::env::var_os("STOCKLOCK_SCREENSHOTS").map(std::path::PathBuf::from) else {
        return;
    };
    for (scheme, width, height) in
        [("light", 1280, 1130), ("dark", 1280, 1130), ("light", 400, 1500), ("dark", 400, 1500)]
    {
        browser.prefer(scheme).await;
        browser.window(width, height).await;
        let file = directory.join(format!("{name}-{scheme}-{width}.png"));
        std::fs::write(file, browser.screenshot().await).expect("the picture is written");
    }
}

/// What a page looks like: for the README, when somebody asks for it by `make screenshots`.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_can_be_looked_at() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    let directory = std::env::var_os("STOCKLOCK_SCREENSHOTS").map(std::path::PathBuf::from);
    with_browser(async |browser| {
        let choices = "strategy=none&strategy=redis&stock=1000&orders=2000&buyers=64&replicas=3";
        browser.open(&format!("{}/?{choices}", dashboard.address)).await;
        run(browser).await;
        let redis = "document.querySelector('#verdict .chips li:last-child b')?.innerText === 'redis'";
        browser.until("#files", |text| text.contains("JSON")).await;
        assert_eq!(browser.evaluate(&format!("return {redis}")).await, true);
        for (number, name) in [(0, "oversold"), (1, "correct")] {
            browser.open(&format!("{}/?show={number}", dashboard.address)).await;
            for (scheme, width, height) in
                [("light", 1280, 1130), ("dark", 1280, 1130), ("light", 400, 1500), ("dark", 400, 1500)]
            {
                browser.prefer(scheme).await;
                browser.window(width, height).await;
                let picture = browser.screenshot().await;
                assert!(picture.starts_with(b"\x89PNG"));
                if let Some(directory) = &directory {
                    let file = directory.join(format!("{name}-{scheme}-{width}.png"));
                    std::fs::write(file, picture).unwrap();
                }
            }
        }
        if let Some(directory) = &directory {
            take_paused_holder(browser, &dashboard, directory).await;
        }
    })
    .await;
}

/// A holder that sleeps through its lease, and wakes up beside the next one.
async fn take_paused_holder(browser: &Browser, dashboard: &Dashboard, directory: &Path) {
    let choices = "strategy=redis&stock=5000&orders=6000&faults=pause:2xlease@500ms";
    browser.window(1280, 1000).await;
    browser.open(&format!("{}/?{choices}", dashboard.address)).await;
    run(browser).await;
    browser.until("#locks", |text| text.contains("holds overlapped")).await;
    browser.window(1280, 600).await;
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        browser.evaluate("document.getElementById('locks').scrollIntoView()").await;
        let file = directory.join(format!("paused-holder-{scheme}-1280.png"));
        std::fs::write(file, browser.screenshot().await).expect("the picture is written");
    }
}
