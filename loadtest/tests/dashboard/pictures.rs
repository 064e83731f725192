//! Pictures of the pages.

use std::path::Path;

use lab::Lab;

use crate::browser::{Browser, with_browser};
use crate::dashboard::{Dashboard, run};

/// Pictures of a page, when somebody asks for them by `make screenshots`.
pub async fn keep_pictures(browser: &Browser, name: &str) {
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
        let addresses = "return [...document.querySelectorAll('#verdict .chips a')].map((run) => run.href)";
        let addresses = browser.evaluate(addresses).await;
        for (number, name) in ["oversold", "correct"].into_iter().enumerate() {
            browser.open(addresses[number].as_str().expect("an address")).await;
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
