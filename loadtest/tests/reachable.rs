//! A deployment that others can reach: its tokens, the admin's own address, and its page in a real browser.

#[path = "support/browser.rs"]
mod browser;
mod support;

use std::time::Duration;

use lab::{Lab, Process};
use loadtest::fleet::Fleet;
use order_service::config::StrategyName;
use tokio::process::Command;

const ADMIN_TOKEN: &str = "admin-0f1e2d3c4b5a69788796a5b4c3d2";
const SERVER_TOKEN: &str = "server-0f1e2d3c4b5a69788796a5b4c3d2";

/// A replica that listens everywhere, and where it is, for all and for the admin.
async fn replica(lab: &Lab) -> (Process, String, String) {
    let mut command = Command::new(support::program());
    command.args(["serve", "--die-with-parent", "--server.listen", "0.0.0.0:0"]);
    command.args(["--admin.listen", "127.0.0.1:0", "--lock.strategy", "row"]);
    command.args(["--store.url", &format!("sqlite://{}", lab.file("shop.db").display())]);
    command.env("STOCKLOCK__ADMIN__TOKEN", ADMIN_TOKEN).env("STOCKLOCK__SERVER__TOKEN", SERVER_TOKEN);
    let log = lab.file("replica.log");
    let started = Process::start("replica", command, log.clone(), "listening on ", Duration::from_secs(20));
    let (process, url) = started.await.expect("the replica starts");
    // It is said before, and comes into the log a moment later.
    for _ in 0..1_000 {
        let said = std::fs::read_to_string(&log).expect("a log");
        if let Some(admin) = said.lines().find_map(|line| line.strip_prefix("admin calls at ")) {
            return (process, url.replace("0.0.0.0", "127.0.0.1"), admin.to_owned());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("there is no other address");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_judged_where_tokens_and_another_address_are_needed() {
    let lab = Lab::new().expect("a directory");
    let (_replica, url, admin_url) = replica(&lab).await;
    let run = async |server_token: Option<&str>, admin_target: Option<&str>| {
        let mut command = Command::new(support::program());
        command.args(["run", "--orders", "300", "--stock", "100", "--cancels", "0.2", "--target", &url]);
        command.env("STOCKLOCK_ADMIN_TOKEN", ADMIN_TOKEN);
        if let Some(token) = server_token {
            command.env("STOCKLOCK_SERVER_TOKEN", token);
        }
        if let Some(address) = admin_target {
            command.args(["--admin-target", address]);
        }
        let output = command.output().await.expect("the program runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    for token in [Some(SERVER_TOKEN), None, Some("")] {
        let (code, said) = run(token, Some(&admin_url)).await;
        assert!(code == Some(0) && said.contains("CORRECT"), "{token:?}: {said}");
        for secret in [ADMIN_TOKEN, SERVER_TOKEN] {
            assert!(!said.contains(secret), "{said}");
        }
    }
    // With another token, nothing can be listed or cancelled: no verdict that is correct.
    let (code, said) = run(Some("wrong"), Some(&admin_url)).await;
    assert!(code != Some(0) && !said.contains("CORRECT"), "{said}");
    let (code, said) = run(Some(SERVER_TOKEN), None).await;
    assert!(code == Some(64) && said.contains("admin"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_description_works_under_its_policy() {
    let fleet = Fleet::start(support::plan(StrategyName::Row, 1)).await.expect("a replica");
    let page = format!("{}/docs/", fleet.clients()[0].base());
    browser::with_browser(async |browser| {
        browser.open(&page).await;
        browser.until("#swagger-ui", |text| text.contains("Place an order")).await;
        browser.click("#operations-operation-getLivez button.opblock-summary-control").await;
        browser.until("#operations-operation-getLivez", |text| text.contains("Try it out")).await;
        browser.click("#operations-operation-getLivez .try-out__btn").await;
        browser.until("#operations-operation-getLivez", |text| text.contains("Execute")).await;
        browser.click("#operations-operation-getLivez .execute").await;
        let answered = |text: &str| text.contains("\"status\": \"ok\"");
        browser.until("#operations-operation-getLivez .live-responses-table", answered).await;
        assert_eq!(browser.complaints().await, Vec::<String>::new(), "the console");
    })
    .await;
    fleet.stop().await.expect("the replica stops");
}
