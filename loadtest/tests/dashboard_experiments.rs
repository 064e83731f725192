//! The page of experiments, in a real browser.

#[path = "support/browser.rs"]
mod browser;
#[path = "support/dashboard.rs"]
mod dashboard;
mod support;

use lab::Lab;
use loadtest::experiments::ExperimentReport;
use serde_json::{Value, json};

use self::browser::{Browser, with_browser};
use self::dashboard::{Dashboard, assert_flawless, keep_whole_pages};

fn page(dashboard: &Dashboard) -> String {
    format!("{}/experiments", dashboard.address)
}

async fn count(browser: &Browser, selector: &str) -> u64 {
    let script = format!("return document.querySelectorAll({}).length", json!(selector));
    browser.evaluate(&script).await.as_u64().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_had_the_lock_is_drawn_while_it_happens_and_two_at_once_are_hatched() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&page(&dashboard)).await;
        assert!(browser.text("#claims").await.contains("29 not tried yet"));
        assert_eq!(count(browser, "#claims .claims a").await, 29);
        browser.click("[aria-label='Try redis-expiry']").await;
        // It grows while it goes on: a part of what comes is there before the end.
        browser.until("#redis-expiry", |text| text.contains("A orders 1 from replica-1")).await;
        assert!(browser.text("#redis-expiry .finding").await.contains("running"));
        assert!(browser.text("#claims").await.contains("is running"));
        let early = count(browser, "#redis-expiry .seq-event").await;
        browser.until("#redis-expiry", |text| text.contains("replica-2 has the lock")).await;
        assert!(count(browser, "#redis-expiry .seq-event").await > early);
        browser.until("#redis-expiry .finding", |text| text.contains("reproduced")).await;
        assert_eq!(count(browser, "#redis-expiry svg.seq").await, 4, "one of each trial");
        // Without renewal, and where the holder is stopped, without and with the guard.
        let hatched = "return [...document.querySelectorAll('#redis-expiry svg.seq')]
            .map((drawing) => drawing.querySelectorAll('.seq-overlap').length > 0)";
        assert_eq!(browser.evaluate(hatched).await, json!([true, false, true, true]));
        assert_eq!(count(browser, "#redis-expiry .seq-kind-paused").await, 2);
        assert!(count(browser, "#redis-expiry .seq-kind-stale-refused").await > 0);
        let text = browser.text("#redis-expiry").await;
        assert!(
            text.contains("What this means for you") && text.contains("No expiry is long enough"),
            "{text}"
        );
        assert!(browser.text("#claims").await.contains("1 reproduced"));
        assert_flawless(browser, "an experiment with its drawings").await;
        keep_whole_pages(browser, "experiments").await;
    })
    .await;
    let kept = std::fs::read(lab.file("data").join("experiments/redis-expiry.json")).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    assert!(kept["events"].as_array().unwrap().iter().any(|event| event["kind"] == "granted"), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drawing_scrolls_in_its_box_on_a_telephone() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&page(&dashboard)).await;
        browser.click("[aria-label='Try reentrancy']").await;
        browser.until("#reentrancy .finding", |text| text.contains("reproduced")).await;
        browser.window(400, 800).await;
        let sizes = "const box = document.querySelector('#reentrancy .diagram');
            return [box.scrollWidth > box.clientWidth, document.documentElement.scrollWidth <= innerWidth,
                parseFloat(getComputedStyle(box.querySelector('.seq-label')).fontSize) >= 12]";
        assert_eq!(browser.evaluate(sizes).await, json!([true, true, true]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_tried_one_after_the_other_until_they_are_stopped() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&page(&dashboard)).await;
        browser.click("#claims button.primary").await;
        browser.until("#oversell .finding", |text| text.contains("reproduced")).await;
        browser.until("#single-machine-lock .finding", |text| text.contains("running")).await;
        assert!(browser.text("#lock-table .finding").await.contains("to come"));
        browser.until("#claims", |text| text.contains("27 more to come")).await;
        assert_flawless(browser, "while all are tried").await;
        browser.click("[aria-label='Stop the experiments']").await;
        browser.until("#claims", |text| !text.contains("is running")).await;
        browser.until("#lock-table", |text| !text.contains("to come")).await;
        assert!(browser.text("#oversell .finding").await.contains("reproduced"));
        assert_eq!(count(browser, "#claims button:disabled").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_tried_here_says_which_command_installs_what_is_missing() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start_with(&lab, &["PATH=/nonexistent"]).await;
    with_browser(async |browser| {
        browser.open(&page(&dashboard)).await;
        let text = browser.text("#redis-expiry").await;
        assert!(
            text.contains("Redis is not installed") && text.contains("apt-get install redis-server"),
            "{text}"
        );
        assert!(!browser.text("#oversell").await.contains("not installed"));
        browser.click("[aria-label='Try redis-expiry']").await;
        browser.until("#redis-expiry .finding", |text| text.contains("not run")).await;
        assert!(browser.text("#claims").await.contains("1 not run"));
        assert_flawless(browser, "what is not installed").await;
    })
    .await;
}

/// A report that another version of the program has kept has no records, and is shown all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_without_records_is_shown_as_text() {
    let lab = Lab::new().unwrap();
    let old = r#"{"name": "oversell", "claim": "c", "setup": "s", "timeline": ["     3 ms  A orders 1"],
        "figures": [], "observed": "three were sold", "finding": "reproduced"}"#;
    let read: ExperimentReport = serde_json::from_str(old).unwrap();
    assert!(read.events.is_empty());
    std::fs::create_dir_all(lab.file("data").join("experiments")).unwrap();
    std::fs::write(lab.file("data").join("experiments/oversell.json"), old).unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&page(&dashboard)).await;
        browser.click("#oversell summary").await;
        browser
            .until("#oversell", |text| text.contains("A orders 1") && text.contains("three were sold"))
            .await;
        assert_eq!(count(browser, "#oversell svg.seq").await, 0);
    })
    .await;
}
