//! The start page, the form and the past runs of the dashboard, in a real browser.

#[path = "support/browser.rs"]
mod browser;
#[path = "support/dashboard.rs"]
mod dashboard;
mod support;

use std::process::Command as Program;
use std::time::{Duration, Instant};

use lab::Lab;
use reqwest::StatusCode;
use serde_json::Value;

use self::browser::{Browser, with_browser};
use self::dashboard::{Dashboard, assert_flawless, keep_whole_pages, verdict};

/// The button whose words are these.
async fn press(browser: &Browser, words: &str) {
    let mark = format!(
        "const button = [...document.querySelectorAll('button, a.button-link')]
             .find((button) => button.innerText.trim() === '{words}');
         document.querySelector('[data-pressed]')?.removeAttribute('data-pressed');
         button?.setAttribute('data-pressed', '');
         return Boolean(button)"
    );
    assert_eq!(browser.evaluate(&mark).await, true, "no button says {words}");
    browser.click("[data-pressed]").await;
}

async fn address(browser: &Browser) -> String {
    browser.evaluate("return location.pathname + location.search").await.as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_click_on_a_story_runs_it_and_says_what_to_look_for() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&dashboard.address).await;
        assert!(browser.text("h1").await.contains("sold that is not there"));
        assert_flawless(browser, "the start page").await;
        keep_whole_pages(browser, "start").await;
        press(browser, "Sell two hair dryers").await;
        assert_eq!(verdict(browser).await, "1 of 2 strategies oversold: none");
        let told = browser.text("#story").await;
        assert!(told.contains("The two hair dryers") && told.contains("both read the same stock"), "{told}");
        assert!(browser.text("#counterexample").await.contains("both read"));
        // The form is filled, and the state is in the address.
        assert!(address(browser).await.contains("strategy=none&strategy=database"));
        assert_eq!(browser.evaluate("return document.getElementById('field-stock').value").await, "2");
        assert_flawless(browser, "a story").await;
        keep_whole_pages(browser, "story").await;
        // The parts of a story follow each other by a click.
        browser.open(&format!("{}/start", dashboard.address)).await;
        press(browser, "Three replicas").await;
        assert!(verdict(browser).await.starts_with("OVERSOLD by"));
        browser.until("#story", |text| text.contains("One replica")).await;
        browser.until("#files", |text| text.contains("JSON")).await;
        press(browser, "One replica").await;
        browser.until("#story", |text| text.contains("exactly what there is")).await;
        let over = |text: &str| text.starts_with("CORRECT") || text.starts_with("INCONCLUSIVE");
        browser.until("#verdict .headline", over).await;
        // The first page is now that of the run; the list calls it after its story.
        browser.open(&dashboard.address).await;
        assert!(browser.text("#story").await.contains("exactly what there is"));
        browser.open(&format!("{}/runs", dashboard.address)).await;
        assert!(browser.text("table").await.contains("A lock on one machine, Three replicas"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_sees_which_stories_run_here_and_how_to_get_the_others() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start_with(&lab, &["PATH=/nowhere"]).await;
    with_browser(async |browser| {
        browser.open(&dashboard.address).await;
        let page = browser.text("#main").await;
        assert!(page.contains("○ needs Redis apt-get install redis-server"), "{page}");
        assert!(page.contains("● runs here, without any server"), "{page}");
        let disabled = "const of = (words) => [...document.querySelectorAll('.story button')]
                            .find((button) => button.innerText === words).disabled;
                        return [of('With Redis'), of('Wake the herd'), of('With a lock table')]";
        assert_eq!(browser.evaluate(disabled).await, serde_json::json!([true, true, false]));
        assert!(browser.text("#missing").await.contains("not installed here"));
        assert_flawless(browser, "the start page without servers").await;
        keep_whole_pages(browser, "start-without-servers").await;
        press(browser, "Sell two hair dryers").await;
        assert_eq!(verdict(browser).await, "1 of 2 strategies oversold: none");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_holder_and_a_paused_one_show_what_their_stories_say() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        let acts =
            [("With a lock table", "is killed"), ("Guard off", "is stopped"), ("Guard on", "is stopped")];
        for (number, (act, fault)) in acts.into_iter().enumerate() {
            browser.open(&format!("{}/start", dashboard.address)).await;
            press(browser, act).await;
            until_kept(&dashboard, number + 1).await;
            browser.open(&dashboard.address).await;
            let verdict = browser.text("#verdict .headline").await;
            assert!(browser.text("#story").await.contains(act), "{act}");
            assert!(browser.text("#evidence").await.contains(fault), "{act}: {verdict}");
            // Whether the holder is met in the middle of its work is up to the machine; what follows is not.
            let checks = browser.text("#checks").await;
            let is_broken = verdict.starts_with("VIOLATED") || verdict.starts_with("OVERSOLD");
            let is_corrupted = checks.contains("overlaps corrupted the stock");
            assert_eq!(is_broken, act == "Guard off" && is_corrupted, "{act}: {verdict}\n{checks}");
            keep_whole_pages(browser, &act.replace(' ', "-").to_lowercase()).await;
        }
    })
    .await;
}

/// Waits until so many suites are over and kept.
async fn until_kept(dashboard: &Dashboard, wanted: usize) {
    let give_up = Instant::now() + Duration::from_secs(180);
    loop {
        let list = dashboard.get("/runs").await.text().await.expect("a page");
        if list.matches("name=\"run\"").count() == wanted {
            return;
        }
        assert!(Instant::now() < give_up, "{wanted} suites are not over: {list}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_stand_at_their_fields_and_the_address_can_be_loaded_again() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&dashboard.with("strategy=none&duration=10s&faults=kill%401s&seed=2")).await;
        // Orders and a duration are one too many; without the orders it is right.
        assert!(browser.text("#duration-hint").await.contains("either orders or a duration"));
        assert!(browser.text("#no-command").await.contains("its command stands here"));
        browser.fill("#field-orders", "").await;
        browser.until("#command", |text| text.contains("--duration 10s") && !text.contains("--orders")).await;
        browser.until("#duration-hint", |text| text.contains("such as 10s")).await;
        // What is wrong is said when its field is left, and not in the command.
        browser.fill("#field-seed", "minus one").await;
        browser.fill("#field-faults", "flood").await;
        browser.until("#seed-hint", |text| text.contains("whole number")).await;
        browser.until("#no-command", |text| !text.is_empty()).await;
        assert_eq!(browser.text("#command").await, "");
        browser.click("#start").await;
        browser.until("#faults-hint", |text| text.contains("\"flood\" is no fault")).await;
        assert!(browser.text("#seed-hint").await.contains("whole number"));
        assert_eq!(browser.evaluate("return document.activeElement.id").await, "field-seed");
        assert_eq!(browser.evaluate("return document.getElementById('field-faults').value").await, "flood");
        assert_eq!(overlapping(browser).await, Vec::<String>::new());
        browser.window(400, 1000).await;
        assert_eq!(overlapping(browser).await, Vec::<String>::new());
        browser.window(1280, 1000).await;
        assert_flawless(browser, "mistakes").await;
        keep_whole_pages(browser, "mistakes").await;
        let address = address(browser).await;
        assert!(address.starts_with("/run?") && address.contains("faults=flood"), "{address}");
        assert_eq!(dashboard.get(&address).await.status(), StatusCode::OK);
        browser.reload().await;
        assert!(browser.text("#faults-hint").await.contains("\"flood\" is no fault"));
        assert_eq!(dashboard.children(), 0);
    })
    .await;
}

/// The fields that lie upon others.
async fn overlapping(browser: &Browser) -> Vec<String> {
    let script = "const fields = [...document.querySelectorAll('.field')].filter((f) => f.checkVisibility());
        const boxes = fields.map((field) => field.getBoundingClientRect());
        const found = [];
        for (const [i, a] of boxes.entries()) for (const [j, b] of boxes.entries()) {
            if (i < j && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1
                && b.top < a.bottom - 1) found.push(`${fields[i].innerText} / ${fields[j].innerText}`);
        }
        for (const [i, field] of fields.entries()) {
            for (const inside of field.querySelectorAll('*')) {
                const box = inside.getBoundingClientRect();
                if (box.right > boxes[i].right + 1 || box.bottom > boxes[i].bottom + 1) {
                    found.push(`${field.innerText} is too small`);
                }
            }
        }
        return found";
    serde_json::from_value(browser.evaluate(script).await).expect("a list of texts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_put_together_from_a_menu_with_and_without_scripts() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&dashboard.with("strategy=redis")).await;
        browser.click("#faults-more summary").await;
        let choose =
            "const menu = document.getElementById('fault-what'); menu.value = 'pause:redis:2xlease';";
        browser.evaluate(choose).await;
        browser.fill("#fault-size", "many").await;
        browser.click("#add-fault").await;
        browser.until("#fault-mistake", |text| text.contains("for how long")).await;
        browser.fill("#fault-size", "0.5").await;
        browser.click("#add-fault").await;
        browser.until("#command", |text| text.contains("--fault pause:redis:0.5xlease@1s")).await;
        let state = address(browser).await;
        assert!(
            state.contains("faults=pause%3Aredis%3A0.5xlease%401s") && !state.contains("fault-"),
            "{state}"
        );
        assert_flawless(browser, "the menu of faults").await;
        keep_whole_pages(browser, "faults").await;
    })
    .await;
    // The same by the button's own address.
    let menu = "fault-what=kill&fault-at=2&fault-size=&fault-unit=xlease&add-fault=1";
    let answer = dashboard.get(&format!("/run?strategy=row&stock=9&faults=kill%401s&{menu}")).await;
    assert!(answer.url().query().is_some_and(|query| query.contains("faults=kill%401s%2Ckill%402s")));
    let answer = dashboard.get(&format!("/run?strategy=row&stock=9&{}", menu.replace("=2", "=soon"))).await;
    assert!(answer.text().await.unwrap().contains("the menu: when: must be a time"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_under_the_form_is_of_the_same_load() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    let choices = "strategy=row&stock=40&orders=120&buyers=8&replicas=2&quantity=1..3&cancels=20&restocks=5\
                   &reads=3&replays=4&twins=6&payers=50&pay-within=10ms&timeout=5s&seed=7&batch=3&repeat=2\
                   &control=off&set=checkout.payment_window%3D300ms%0D%0Acheckout.think_time%3D1ms";
    let answer: Value = dashboard.get(&format!("/command?{choices}")).await.json().await.unwrap();
    let command = answer["command"].as_str().expect("a command");
    let words: Vec<_> = command.split(' ').skip(1).collect();
    let report = lab.file("report.json");
    let output = Program::new(support::program()).args(&words).arg("--json").arg(&report).output().unwrap();
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap_or_default())
        .unwrap_or_else(|_| panic!("{command}: {}", String::from_utf8_lossy(&output.stderr)));
    // The terminal carries out the plan that it says is the form's.
    assert_eq!(report["command"], command);
    assert_eq!(report["runs"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn past_runs_are_overlaid_named_filtered_and_deleted() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        let all = ["strategy=row&repeat=2", "strategy=row&repeat=2", "strategy=none&strategy=row&buyers=8"];
        for (number, choices) in all.into_iter().enumerate() {
            // Long enough to be compared, with something to sell until the end.
            let long = format!("{choices}&stock=1000000&orders=&duration=2300ms");
            browser.open(&dashboard.with(&long)).await;
            browser.click("#start").await;
            until_kept(&dashboard, number + 1).await;
        }
        browser.open(&format!("{}/runs", dashboard.address)).await;
        assert_flawless(browser, "the list of past runs").await;
        keep_whole_pages(browser, "past").await;
        let ticked = "return document.querySelectorAll('input[name=run]:checked').length";
        assert_eq!(browser.evaluate(ticked).await, 2);
        browser.click("tbody tr:last-child input[name=run]").await;
        browser.click("button.primary").await;
        let compared = browser.until("#compared", |text| text.contains("3 compared")).await;
        assert!(compared.contains("within the noise") || compared.contains("of few runs"), "{compared}");
        assert!(compared.contains("noise unknown"), "the last was run once: {compared}");
        assert!(compared.contains("Unequal loads.") && compared.contains("buyers"), "{compared}");
        // What is broken has no percentage, and is the measure of nothing.
        let none = "return [...document.querySelectorAll('#compared tbody tr')]
            .find((row) => row.innerText.includes('none')).innerText";
        let none = browser.evaluate(none).await.as_str().expect("a row").to_owned();
        assert!(none.contains("VIOLATED") && !none.contains("% to"), "{none}");
        let legend = "return document.querySelector('#courses-throughput .legend').innerText";
        let legend = browser.evaluate(legend).await.as_str().expect("a legend").to_owned();
        for curve in ["A row", "B row", "C row", "C none"] {
            assert!(legend.contains(curve), "{legend}");
        }
        assert_flawless(browser, "a comparison").await;
        keep_whole_pages(browser, "compared").await;
        name_filter_and_delete(browser, &dashboard).await;
    })
    .await;
}

async fn name_filter_and_delete(browser: &Browser, dashboard: &Dashboard) {
    let runs = format!("{}/runs", dashboard.address);
    browser.open(&runs).await;
    browser.click("tbody tr:first-child th a").await;
    browser.fill("#run-name", "before <b>the</b> change").await;
    press(browser, "Name it").await;
    browser.until("#main", |text| text.starts_with("before <b>the</b> change")).await;
    assert_flawless(browser, "a named run").await;
    let link = address(browser).await;
    browser.open(&runs).await;
    browser.fill("#filter", "BEFORE none").await;
    press(browser, "Filter").await;
    browser.until(".runs", |text| text.contains("before <b>the</b> change")).await;
    assert_eq!(browser.evaluate("return document.querySelectorAll('tbody tr').length").await, 1);
    browser.fill("#filter", "zookeeper").await;
    press(browser, "Filter").await;
    browser.until("#main", |text| text.contains("None of them has all these words")).await;
    // Nothing is deleted before somebody has said so twice, and by nobody else.
    browser.open(&format!("{}{link}", dashboard.address)).await;
    press(browser, "Delete it …").await;
    browser.until("h1", |text| text.contains("Delete 1 run for good?")).await;
    assert_flawless(browser, "before a deletion").await;
    assert_eq!(dashboard.get(&link).await.status(), StatusCode::OK);
    let client = reqwest::Client::new();
    let id = link.trim_start_matches("/runs/");
    for (path, body) in [("/runs/delete", format!("run={id}")), (&format!("{link}/name"), "name=evil".into())]
    {
        let foreign =
            client.post(format!("{}{path}", dashboard.address)).header("origin", "http://evil.example");
        assert_eq!(foreign.body(body).send().await.expect("an answer").status(), StatusCode::FORBIDDEN);
    }
    press(browser, "Delete").await;
    browser.until("#main", |text| text.contains("Past runs")).await;
    assert_eq!(browser.evaluate("return document.querySelectorAll('tbody tr').length").await, 2);
    assert_eq!(dashboard.get(&link).await.status(), StatusCode::NOT_FOUND);
}
