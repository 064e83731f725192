//! What is seen where: on a phone, on a desk, and under the pointer.

use lab::Lab;

use crate::browser::{Browser, with_browser};
use crate::dashboard::{Dashboard, assert_flawless, run};

/// What a script says of the page, as text.
async fn says(browser: &Browser, script: &str) -> String {
    browser.evaluate(&format!("return String({script})")).await.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_the_comparison_are_cards_on_a_phone() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&dashboard.with("strategy=none&strategy=database")).await;
        run(browser).await;
        let row = "document.querySelector('.comparison tbody tr')";
        let cell = format!("{row}.querySelector('[data-figure=rate]')");
        browser.window(400, 900).await;
        // Everything is on the screen, below one another, and each figure says what it is.
        let width = "document.querySelector('.comparison').getBoundingClientRect().right <= innerWidth";
        assert_eq!(says(browser, width).await, "true");
        let below =
            format!("{cell}.getBoundingClientRect().top > {row}.cells[0].getBoundingClientRect().bottom - 1");
        assert_eq!(says(browser, &below).await, "true");
        let label = format!("getComputedStyle({cell}, '::before').content");
        assert_eq!(says(browser, &label).await, "\"orders/s\"");
        browser.window(1280, 900).await;
        assert_eq!(says(browser, &label).await, "none");
        let beside =
            format!("{cell}.getBoundingClientRect().top < {row}.cells[0].getBoundingClientRect().bottom");
        assert_eq!(says(browser, &beside).await, "true");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cursor_shows_a_moment_in_all_charts_and_who_had_the_lock() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.open(&dashboard.with("strategy=database&control=off&rate=300&stock=1000&orders=400")).await;
        run(browser).await;
        // From this width on the charts are side by side.
        let side_by_side = "document.getElementById('stock').getBoundingClientRect().top === \
             document.getElementById('throughput').getBoundingClientRect().top";
        assert_eq!(says(browser, side_by_side).await, "true");
        browser.window(1100, 900).await;
        assert_eq!(says(browser, side_by_side).await, "false");
        browser.window(1280, 1000).await;
        browser.point_at_middle("#stock .plot").await;
        let read = browser.until(".readout output", |text| text.contains("stock ")).await;
        for figure in [" s", "by the orders", "accepted/s"] {
            assert!(read.contains(figure), "{figure} of {read:?}");
        }
        // Nobody may have had the lock there, or the hold was not kept.
        assert!(["lock", "hold"].iter().any(|word| read.contains(word)), "{read:?}");
        // In a tenth of a second nothing may have been answered.
        assert!(read.contains("p99") || read.contains("no latency"), "{read:?}");
        // A line in each chart and in the lanes, at the same part of the run.
        let places = "[...new Set([...document.querySelectorAll('.plot.pointed')].map((chart) => \
             Number(chart.style.getPropertyValue('--at')).toFixed(2)))].length + ' ' + \
             document.querySelectorAll('.plot.pointed').length";
        let all = says(browser, places).await;
        assert_eq!(all, "1 3", "the places of the cursor, and the charts that have it");
        assert_eq!(says(browser, "document.querySelector('#locks .lanes').className").await, "lanes pointed");
        // The keyboard does the same.
        browser.evaluate("document.querySelector('.readout input').focus()").await;
        browser.press_right().await;
        let moved = browser.until(".readout output", |text| *text != read).await;
        assert!(moved.contains("accepted/s"), "{moved}");
        let spoken = "document.querySelector('.readout input').getAttribute('aria-valuetext')";
        assert!(says(browser, spoken).await.contains("accepted/s"));
        // At a moment of a hold, it says whose that is.
        let to_a_hold = "const holds = [...document.querySelectorAll('[data-holds]')]
                 .flatMap((lanes) => JSON.parse(lanes.dataset.holds)).flatMap((lane) => lane.holds);
             const moments = JSON.parse(document.querySelector('[data-moments]').dataset.moments);
             const slider = document.querySelector('.readout input');
             slider.value = Math.round((holds[0][0] + holds[0][1]) / 2 / moments.at(-1)[0] * 1000);
             slider.dispatchEvent(new Event('input', { bubbles: true }));";
        browser.evaluate(to_a_hold).await;
        let held = browser.text(".readout output").await;
        assert!(held.contains("fencing token"), "{held:?}");
        assert_flawless(browser, "with a cursor").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_is_in_sight_while_it_goes_on_and_the_verdict_stays_there() {
    let lab = Lab::new().unwrap();
    let dashboard = Dashboard::start(&lab).await;
    with_browser(async |browser| {
        browser.window(1280, 900).await;
        browser.open(&dashboard.with("strategy=none&orders=1000000&stock=1000000&rate=300")).await;
        browser.click("#start").await;
        browser.until("#stock .legend", |text| text.contains("recorded stock")).await;
        // All of it but for the lowest quarter, at the least.
        let plot = "document.querySelector('#stock .plot').getBoundingClientRect()";
        let bottom = &format!("{plot}.bottom - {plot}.height / 4 <= innerHeight");
        let heights = "[...document.querySelectorAll('main > *, #charts > *, #stock .plot')].map((part) => \
             `${part.id || part.className}: ${Math.round(part.getBoundingClientRect().bottom)}`).join(', ')";
        assert_eq!(says(browser, bottom).await, "true", "{}", says(browser, heights).await);
        let hidden = "getComputedStyle(document.querySelector('.bar .short')).visibility";
        assert_eq!(says(browser, hidden).await, "hidden");
        browser.evaluate("scrollTo(0, document.body.scrollHeight)").await;
        browser.until("body", |_| true).await;
        browser.until(".bar .short", |text| text.contains("VIOLATED so far")).await;
        let in_sight = "document.querySelector('.bar').getBoundingClientRect().top >= 0";
        assert_eq!(says(browser, in_sight).await, "true");
        browser.click("#stop").await;
        browser.until("#verdict", |text| text.contains("Stopped before the end")).await;
    })
    .await;
}
