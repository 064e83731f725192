//! What a page shows while a run goes on, and when its program goes.

use std::time::{Duration, Instant};

use lab::Lab;
use serde_json::Value;

use crate::browser::{Browser, with_browser};
use crate::dashboard::{Dashboard, assert_flawless};
use crate::pictures::keep_pictures;

/// Whether a run goes on: then it can be stopped.
async fn goes_on(browser: &Browser) -> bool {
    browser.evaluate("return !document.getElementById('stop').disabled").await == true
}

/// Waits until a script's value is as wanted while the run goes on, and returns it.
async fn until_live(browser: &Browser, script: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let give_up = Instant::now() + Duration::from_secs(120);
    loop {
        let value = browser.evaluate(&format!("return {script}")).await;
        if wanted(&value) {
            assert!(goes_on(browser).await, "it was seen when the run was over: {value}");
            return value;
        }
        assert!(Instant::now() < give_up, "{script} is still {value}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn stop(browser: &Browser) {
    browser.click("#stop").await;
    browser.until("#verdict", |text| text.contains("Stopped before the end")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_lock_and_what_is_broken_is_shown_while_it_goes_on() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        // One after the other, each for seconds: a busy machine draws the page seldom, and would miss a
        // single one before its replica goes on.
        let pauses: Vec<_> = (0..20).map(|pause| format!("pause:4s@{}s", 2 + 6 * pause)).collect();
        let choices = format!(
            "strategy=database&control=off&orders=1000000&stock=1000000&rate=200&faults={}",
            pauses.join(",")
        );
        browser.open(&dashboard.with(&choices)).await;
        let before =
            browser.evaluate("return document.getElementById('start').getBoundingClientRect().top").await;
        browser.click("#start").await;
        // Nothing that is not known looks like nothing.
        until_live(browser, "document.getElementById('locks')?.innerText ?? ''", |text| {
            text.as_str().is_some_and(|text| text.contains("Not known yet"))
        })
        .await;
        let after =
            browser.evaluate("return document.getElementById('start').getBoundingClientRect().top").await;
        assert_eq!(before, after, "Run does not move when it is pressed");
        // Both replicas' lanes fill.
        let fewest = "Math.min(...[...document.querySelectorAll('#lanes .lane')].map((lane) => \
             lane.querySelectorAll('.holding').length), 1e9)";
        until_live(browser, fewest, |held| held.as_f64().is_some_and(|held| (1.0..1e9).contains(&held)))
            .await;
        // A holder, by name and token, is seen sooner or later: each is asked ten times a second.
        until_live(browser, "document.querySelector('#lanes .now')?.innerText ?? ''", |text| {
            text.as_str().is_some_and(|text| text.contains("has the lock") && text.contains("fencing token"))
        })
        .await;
        // The fault is marked as it is injected; the replica that is stopped is not known.
        until_live(browser, "document.getElementById('faults')?.innerText ?? ''", |text| {
            text.as_str().is_some_and(|text| text.contains("is stopped"))
        })
        .await;
        until_live(
            browser,
            "document.querySelectorAll('#charts .plot-stock [stroke=\"#A63C7E\"]').length",
            |marks| *marks != 0,
        )
        .await;
        let unknown = "document.querySelectorAll('#lanes rect.unknown').length + ' lanes; ' + \
             document.querySelector('#lanes .now')?.innerText";
        until_live(browser, unknown, |text| {
            text.as_str().is_some_and(|text| text.contains("not known since") && !text.starts_with("0 lanes"))
        })
        .await;
        keep_pictures(browser, "live-lock").await;
        assert_flawless(browser, "in the middle of a fault").await;
        stop(browser).await;
        assert!(browser.text("#faults").await.contains("is stopped"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_violation_is_shown_as_soon_as_it_is_seen() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        // So much stock that nothing is oversold.
        browser.open(&dashboard.with("strategy=none&orders=1000000&stock=1000000&rate=400")).await;
        browser.click("#start").await;
        until_live(browser, "document.querySelector('#verdict .headline').innerText", |text| {
            text.as_str().is_some_and(|text| text.contains("VIOLATED so far"))
        })
        .await;
        let counterexample =
            until_live(browser, "document.getElementById('counterexample').innerText", |text| {
                text.as_str().is_some_and(|text| text.contains("both read"))
            })
            .await;
        assert!(counterexample.as_str().unwrap().contains("lost updates so far"), "{counterexample}");
        until_live(browser, "document.getElementById('checks').innerText", |text| {
            text.as_str().is_some_and(|text| text.contains("FAIL") && text.contains("not known"))
        })
        .await;
        assert!(browser.text("#locks").await.contains("under none there is no lock"));
        keep_pictures(browser, "live-none").await;
        stop(browser).await;
        let verdict = browser.text("#verdict .headline").await;
        assert!(verdict.starts_with("VIOLATED: ") && verdict.contains("updates lost"), "{verdict}");
        let cell = browser.text("#comparison td.verdict").await;
        assert!(cell.contains("lost"), "{cell}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_program_is_gone_says_so_and_comes_back() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    let listen = dashboard.address.trim_start_matches("http://").to_owned();
    with_browser(async |browser| {
        browser
            .open(&dashboard.with("strategy=database&control=off&orders=1000000&stock=1000000&rate=100"))
            .await;
        browser.click("#start").await;
        browser.until("#verdict .headline", |text| text.contains("so far no violation")).await;
        drop(dashboard);
        browser.until("#connection:not([hidden])", |text| text.contains("does not answer")).await;
        let _again = Dashboard::start_at(&lab, &listen).await;
        browser.until("#restarted:not([hidden])", |text| text.contains("was started again")).await;
        browser.until("#verdict .headline", |text| text.contains("Is anything oversold?")).await;
        assert_eq!(browser.text("#connection:not([hidden])").await, "");
        // What was chosen is still there, and can be run.
        browser.click("#start").await;
        browser.until("#verdict .headline", |text| text.contains("so far no violation")).await;
        stop(browser).await;
    })
    .await;
}
