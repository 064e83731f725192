//! A dashboard, and what people do on its pages.

// Not every test file uses all of it.
#![allow(dead_code)]

use std::time::Duration;

use lab::{Lab, Process};

use crate::browser::{Browser, mortal};
use crate::support;

/// A dashboard on a free port. It ends when the value is dropped.
pub struct Dashboard {
    pub process: Process,
    /// Where it is: `http://127.0.0.1:PORT`.
    pub address: String,
}

impl Dashboard {
    /// Starts one whose data are in the laboratory.
    pub async fn start(lab: &Lab) -> Self {
        Self::start_as(lab, "127.0.0.1:0", &[]).await
    }

    /// Starts one at this address.
    pub async fn start_at(lab: &Lab, listen: &str) -> Self {
        Self::start_as(lab, listen, &[]).await
    }

    /// Starts one whose environment has these settings besides.
    pub async fn start_with(lab: &Lab, environment: &[&str]) -> Self {
        Self::start_as(lab, "127.0.0.1:0", environment).await
    }

    async fn start_as(lab: &Lab, listen: &str, environment: &[&str]) -> Self {
        // The client can do TLS, and asks for it although no test does.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut command = mortal("/usr/bin/env");
        command.args(environment).arg(support::program());
        command.args(["dashboard", "--listen", listen, "--data"]).arg(lab.file("data"));
        let (log, timeout) = (lab.file("dashboard.log"), Duration::from_secs(20));
        let started = Process::start("dashboard", command, log, "dashboard on ", timeout).await;
        let (process, address) = started.expect("the dashboard starts");
        Self { process, address }
    }

    /// The address of a page, with choices that make a short run.
    pub fn with(&self, choices: &str) -> String {
        format!("{}/?stock=100&orders=300&buyers=32&replicas=2&{choices}", self.address)
    }

    /// Its children: replicas and servers.
    pub fn children(&self) -> usize {
        let tasks = format!("/proc/{}/task", self.process.id());
        let tasks = std::fs::read_dir(tasks).expect("the dashboard runs");
        let children =
            tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        children.map(|children| children.split_whitespace().count()).sum()
    }

    /// The answer to a request for a page.
    pub async fn get(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("{}{path}", self.address)).await.expect("an answer")
    }
}

/// Waits for the verdict on all that goes on: between two runs of a suite, the first one's is shown.
pub async fn verdict(browser: &Browser) -> String {
    browser.until("#files", |text| text.contains("JSON")).await;
    let over = |text: &str| {
        let words = ["OVERSOLD by", "VIOLATED: ", "VIOLATED ·", "CORRECT", "INCONCLUSIVE"];
        let of_several = [" oversold: ", " lost updates: ", " violated: ", " inconclusive: ", " correct"];
        words.iter().chain(&of_several).any(|word| text.contains(word))
    };
    browser.until("#verdict .headline", over).await
}

/// Presses Run and waits for the verdict.
pub async fn run(browser: &Browser) -> String {
    browser.click("#start").await;
    verdict(browser).await
}

/// Nothing keeps anybody from using the page, at any width, light or dark.
pub async fn assert_flawless(browser: &Browser, place: &str) {
    assert_eq!(browser.complaints().await, Vec::<String>::new(), "{place}: the console");
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        for width in [400, 1280, 3840] {
            browser.window(width, 1000).await;
            assert_eq!(browser.barriers().await, Vec::<String>::new(), "{place}, {scheme}, {width} pixels");
        }
    }
    browser.prefer("light").await;
    browser.window(1280, 1000).await;
}

/// Pictures of a whole page at every width, when somebody asks for them (`STOCKLOCK_SCREENSHOTS`).
pub async fn keep_whole_pages(browser: &Browser, name: &str) {
    let Some(directory) = std::env::var_os("STOCKLOCK_SCREENSHOTS").map(std::path::PathBuf::from) else {
        return;
    };
    for (scheme, width) in
        [("light", 400), ("dark", 400), ("light", 1280), ("dark", 1280), ("light", 3840), ("dark", 3840)]
    {
        browser.prefer(scheme).await;
        browser.window(width, 1000).await;
        let height = browser.evaluate("return document.documentElement.scrollHeight").await;
        browser.window(width, height.as_u64().map_or(1000, |height| height.min(6_000) as u32)).await;
        let file = directory.join(format!("{name}-{scheme}-{width}.png"));
        std::fs::write(file, browser.screenshot().await).expect("the picture is written");
    }
    browser.prefer("light").await;
    browser.window(1280, 1000).await;
}
