//! A real browser, and what a person does with it.

// Not every test file uses all of it.
#![allow(dead_code)]

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use lab::{Lab, Process};
use serde_json::{Value, json};
use thirtyfour::LoggingPrefsLogLevel;
use thirtyfour::prelude::*;
use tokio::process::Command;

/// How long anything may take that a page must come to show.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How often a page is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(25);

/// What tells whether a page can be used by everybody.
const ACCESSIBILITY: &str = include_str!("accessibility.js");

/// A browser with one window.
pub struct Browser {
    /// Its driver.
    pub driver: WebDriver,
}

/// A program that ends with whoever starts it, however that ends.
pub fn mortal(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Gives `test` a browser of its own, which is closed however the test ends.
pub async fn with_browser<T>(test: impl AsyncFnOnce(&Browser) -> T) -> T {
    with_browser_that_logs(&["browser"], test).await
}

/// The same with a log of the network. It keeps every message to the page, which takes the driver longer than
/// the page takes to show them.
pub async fn with_watched_browser<T>(test: impl AsyncFnOnce(&Browser) -> T) -> T {
    with_browser_that_logs(&["browser", "performance"], test).await
}

async fn with_browser_that_logs<T>(logs: &[&'static str], test: impl AsyncFnOnce(&Browser) -> T) -> T {
    let lab = Lab::new().expect("a directory");
    let ready = "ChromeDriver was started successfully on port ";
    let (_process, port) = loop {
        let mut command = mortal("chromedriver");
        command.arg("--port=0");
        match Process::start("chromedriver", command, lab.file("driver.log"), ready, TIMEOUT).await {
            // It takes a free port of IPv6, and then the same of IPv4, which somebody may have.
            Err(error) if format!("{error:?}").contains("port not available") => {}
            started => break started.expect("Debian's chromium-driver is installed"),
        }
    };
    let mut capabilities = DesiredCapabilities::chrome();
    for argument in [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--hide-scrollbars",
        "--force-device-scale-factor=1",
    ] {
        capabilities.add_arg(argument).expect("an argument");
    }
    let profile = format!("--user-data-dir={}", lab.file("profile").display());
    capabilities.add_arg(&profile).expect("an argument");
    for log in logs {
        capabilities.set_logging_prefs(*log, LoggingPrefsLogLevel::All).expect("a log");
    }
    let address = format!("http://127.0.0.1:{}", port.trim_end_matches('.'));
    rustls::crypto::ring::default_provider().install_default().ok();
    let driver = WebDriver::new(&address, capabilities).await.expect("Debian's chromium is installed");
    let browser = Browser { driver };
    browser.window(1280, 1000).await;
    let outcome = AssertUnwindSafe(test(&browser)).catch_unwind().await;
    browser.driver.quit().await.expect("the browser closes");
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

impl Browser {
    /// Opens an address.
    pub async fn open(&self, address: &str) {
        self.driver.goto(address).await.expect("the page opens");
    }

    /// Loads the page again.
    pub async fn reload(&self) {
        self.driver.refresh().await.expect("the page opens again");
    }

    /// Makes the window so large, in pixels.
    pub async fn window(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Prefers `light` or `dark`.
    pub async fn prefer(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// What the window shows, as PNG in base64.
    pub async fn screenshot(&self) -> Vec<u8> {
        self.driver.screenshot_as_png().await.expect("a picture")
    }

    async fn devtools(&self, method: &str, parameters: Value) {
        self.driver.cdp().send_raw(method, parameters).await.expect(method);
    }

    /// Clicks what `selector` names.
    pub async fn click(&self, selector: &str) {
        let element = self.driver.find(By::Css(selector)).await.expect(selector);
        element.scroll_into_view().await.expect(selector);
        element.click().await.expect(selector);
    }

    /// Types into the field that `selector` names, in place of what is there.
    pub async fn fill(&self, selector: &str, text: &str) {
        let field = self.driver.find(By::Css(selector)).await.expect(selector);
        field.clear().await.expect(selector);
        field.send_keys(text).await.expect(selector);
    }

    /// Goes on to what can be reached next by the keyboard.
    pub async fn press_tab(&self) {
        self.press(Key::Tab).await;
    }

    /// Presses what has the focus.
    pub async fn press_enter(&self) {
        self.press(Key::Enter).await;
    }

    /// Presses the arrow to the right.
    pub async fn press_right(&self) {
        self.press(Key::Right).await;
    }

    /// Brings what `selector` names into the middle of the window, and points at it.
    pub async fn point_at_middle(&self, selector: &str) {
        let script = format!(
            "const element = document.querySelector({});
             element.scrollIntoView({{ block: 'center' }});
             const box = element.getBoundingClientRect();
             return [box.left + box.width / 2, box.top + box.height / 2]",
            json!(selector)
        );
        let [x, y]: [f64; 2] = serde_json::from_value(self.evaluate(&script).await).expect("a place");
        self.point_at(x, y).await;
    }

    /// Moves the pointer to a place in the window.
    pub async fn point_at(&self, x: f64, y: f64) {
        let place = json!({ "type": "mouseMoved", "x": x, "y": y });
        self.devtools("Input.dispatchMouseEvent", place).await;
    }

    async fn press(&self, key: Key) {
        let keys = self.driver.action_chain().send_keys(key);
        keys.perform().await.expect("a key is pressed");
    }

    /// What a script answers.
    pub async fn evaluate(&self, script: &str) -> Value {
        self.driver.execute(script, Vec::new()).await.expect(script).json().clone()
    }

    /// The text that a person sees of what `selector` names.
    pub async fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({})?.innerText ?? ''", json!(selector));
        self.evaluate(&script).await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the text of what `selector` names is as wanted, and answers it.
    pub async fn until(&self, selector: &str, wanted: impl Fn(&str) -> bool) -> String {
        let give_up = Instant::now() + TIMEOUT;
        loop {
            let text = self.text(selector).await;
            if wanted(&text) {
                return text;
            }
            assert!(Instant::now() < give_up, "{selector} still says {text:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whatever the page has complained of.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.driver.handle().get_log("browser").await.expect("the console's log");
        entries.into_iter().map(|entry| format!("{}: {}", entry.level, entry.message)).collect()
    }

    /// The addresses that were asked for since the last question, of a browser that is watched.
    pub async fn requests(&self) -> Vec<String> {
        let entries = self.driver.handle().get_log("performance").await.expect("the network's log");
        let events = entries.iter().filter_map(|entry| serde_json::from_str::<Value>(&entry.message).ok());
        let sent = events.filter(|event| event["message"]["method"] == "Network.requestWillBeSent");
        let address = |event: Value| event["message"]["params"]["request"]["url"].as_str().map(str::to_owned);
        sent.filter_map(address).collect()
    }

    /// What keeps somebody from using the page.
    pub async fn barriers(&self) -> Vec<String> {
        let found = self.evaluate(ACCESSIBILITY).await;
        serde_json::from_value(found).expect("a list of texts")
    }
}
