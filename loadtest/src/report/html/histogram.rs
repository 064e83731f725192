//! How many orders took how long to be answered: bars, each a third longer a time than the one before.

use maud::{Markup, html};

use super::charts::{framed, unfolded};
use super::figures::{ms, whole};
use crate::metrics::LatencyBucket;
use crate::report::RunReport;

/// How high the highest bar is, in pixels.
const HEIGHT: u32 = 150;

/// The latency histogram of a run, if it has one.
pub fn section(run: &RunReport, prefix: &str) -> Markup {
    let buckets = &run.latencies.accepted_buckets;
    let Some(most) = buckets.iter().map(|bucket| bucket.attempts).max().filter(|most| *most > 0) else {
        return html! {};
    };
    let caption = format!(
        "How many confirmed orders took how long. Half took up to {} ms, 99 of 100 up to {} ms, the \
         longest {} ms.",
        ms(run.latency_ms.p50),
        ms(run.latency_ms.p99),
        ms(run.latency_ms.max)
    );
    let body = html! {
        (bars(buckets, most, run.latency_ms.max, &caption))
        (unfolded(&format!("{prefix}histogram-numbers"), "The numbers", &numbers(buckets)))
    };
    framed(prefix, "histogram", "Latency histogram", &caption, &body)
}

/// `longest` is where the last bar ends: its bucket goes on.
fn bars(buckets: &[LatencyBucket], most: u64, longest: f64, description: &str) -> Markup {
    let width = 100.0 / buckets.len() as f64;
    let percent = |value: f64| format!("{value:.2}%");
    // As many labels as there is room for on a phone, and none that would end outside.
    let labelled = buckets.len().div_ceil(4);
    html! {
        div.histogram role="img" aria-label=(description) {
            svg.bars width="100%" height=(HEIGHT + 24) {
                @for (number, bucket) in buckets.iter().enumerate() {
                    @let height = (bucket.attempts * u64::from(HEIGHT)).div_ceil(most);
                    @let left = number as f64 * width;
                    rect.bucket x=(percent(left + width * 0.06)) width=(percent(width * 0.88))
                        y=(u64::from(HEIGHT) - height) height=(height) {
                        title { (whole(bucket.attempts)) " up to " (ms(bucket.until_ms.min(longest))) " ms" }
                    }
                    @if number % labelled == 0 && left < 82.0 {
                        text x=(percent(left)) y=(HEIGHT + 18) { (ms(bucket.until_ms.min(longest))) " ms" }
                    }
                }
                line.base x1="0" x2="100%" y1=(HEIGHT) y2=(HEIGHT) {}
            }
        }
    }
}

fn numbers(buckets: &[LatencyBucket]) -> Markup {
    html! {
        table.numbers {
            thead { tr { th scope="col" { "up to ms" } th scope="col" { "orders" } } }
            tbody {
                @for bucket in buckets {
                    tr {
                        th scope="row" { (format!("{:.2}", bucket.until_ms)) }
                        td { (whole(bucket.attempts)) }
                    }
                }
            }
        }
    }
}
