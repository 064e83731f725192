//! The other pages, the keyboard, and who is kept out.

use std::process::Command as Program;

use lab::Lab;
use loadtest::shop::ShopReport;

use crate::browser::{with_browser, with_watched_browser};
use crate::dashboard::{Dashboard, assert_flawless};
use crate::pictures::keep_pictures;
use crate::shops::{Shop, forms};
use crate::support;

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
        let needed = ["start", "strategy", "field-stock"];
        while !needed.iter().all(|id| reached.contains(&id.to_string())) && reached.len() < 60 {
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
        assert!(
            reached.contains(&"strategy".to_owned()) && reached.contains(&"start".to_owned()),
            "{reached:?}"
        );
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
