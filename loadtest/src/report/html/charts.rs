//! The charts of a run along its time, each with its numbers as a table.

use maud::{Markup, html};
use plotters::style::RGBColor;

use super::figures::{ms, rate, seconds, whole};
use super::plot::{Line, Plot};
use crate::availability::{Availability, Gap};
use crate::faults::FaultMark;
use crate::series::{Interval, Series};

const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const VERMILION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const GREEN: RGBColor = RGBColor(0x00, 0x8f, 0x68);
const BROWN: RGBColor = RGBColor(0x8a, 0x6d, 0x00);
const GREY: RGBColor = RGBColor(0x77, 0x7d, 0x86);

/// A time without a sale that is long enough to be marked, in milliseconds.
const LONG_GAP_MS: f64 = 100.0;

/// Stock, throughput and latency, and what was broken meanwhile.
pub fn all(series: &Series, marks: &[FaultMark], availability: &Availability, prefix: &str) -> Markup {
    html! {
        (stock(series, marks, prefix))
        (throughput(series, marks, availability.longest_gap, prefix))
        (latency(series, marks, prefix))
        @if !marks.is_empty() { (faults(marks, availability)) }
    }
}

fn stock(series: &Series, marks: &[FaultMark], prefix: &str) -> Markup {
    let (stock, expected) = series.intervals.last().map_or((0, 0), |last| (last.stock, last.expected));
    let parted = if stock == expected { "They agree." } else { "They part: updates were lost." };
    let plot = Plot {
        class: "plot-stock",
        description: format!(
            "Stock along the time of the run. In the end the record says {}, and the orders leave {}. \
             {parted}",
            whole(stock),
            whole(expected)
        ),
        seconds: axis(series),
        lines: vec![
            line(series, "recorded stock", BLUE, |interval| Some(interval.stock as f64)),
            line(series, "supply − Σ orders", VERMILION, |interval| Some(interval.expected as f64)),
        ],
        marks,
        gap: None,
        alarm_below_zero: true,
    };
    let aim = if expected < 0 { "Below zero is sold and was never there." } else { "" };
    let row = |i: &Interval| vec![whole(i.stock), whole(i.expected), whole(i.stock - i.expected)];
    let caption =
        format!("Stock: recorded {}, by the orders {}. {parted} {aim}", whole(stock), whole(expected));
    figure(
        prefix,
        "stock",
        "Stock",
        &caption,
        &plot,
        &table(series, &["recorded", "by the orders", "apart"], row),
    )
}

fn throughput(series: &Series, marks: &[FaultMark], gap: Gap, prefix: &str) -> Markup {
    let per_second = |interval: &Interval, count: u64| {
        let number = series.intervals.partition_point(|other| other.until_ms < interval.until_ms);
        let since = number.checked_sub(1).map_or(0.0, |before| series.intervals[before].until_ms);
        Some(count as f64 * 1e3 / (interval.until_ms - since).max(1e-3))
    };
    let sum = |of: fn(&Interval) -> u64| whole(series.intervals.iter().map(of).sum::<u64>());
    let (accepted, sold_out) = (sum(|i| i.accepted), sum(|i| i.sold_out));
    let (failed, unknown) = (sum(|i| i.failed), sum(|i| i.unknown));
    let longest = match gap.ms > 0.0 {
        true => format!(
            " The longest time without a sale was {} s, from {} s on.",
            seconds(gap.ms),
            seconds(gap.from_ms)
        ),
        false => String::new(),
    };
    let caption = format!(
        "Answers: {accepted} accepted, {sold_out} sold out, {failed} failed, {unknown} unknown.{longest}"
    );
    let plot = Plot {
        class: "plot-throughput",
        description: format!("Answers per second along the time of the run. {caption}"),
        seconds: axis(series),
        lines: with_something(vec![
            line(series, "accepted", BLUE, |i| per_second(i, i.accepted)),
            line(series, "sold out", GREY, |i| per_second(i, i.sold_out)),
            line(series, "failed", VERMILION, |i| per_second(i, i.failed)),
            line(series, "unknown", BROWN, |i| per_second(i, i.unknown)),
        ]),
        marks,
        gap: (gap.ms >= LONG_GAP_MS).then_some((gap.from_ms / 1e3, (gap.from_ms + gap.ms) / 1e3)),
        alarm_below_zero: false,
    };
    let row = |i: &Interval| {
        let counts = [i.accepted, i.sold_out, i.failed, i.unknown];
        counts.map(|count| per_second(i, count).map(rate).unwrap_or_default()).to_vec()
    };
    let numbers = table(series, &["accepted/s", "sold out/s", "failed/s", "unknown/s"], row);
    figure(prefix, "throughput", "Answers per second", &caption, &plot, &numbers)
}

fn latency(series: &Series, marks: &[FaultMark], prefix: &str) -> Markup {
    let slowest = series.intervals.iter().filter_map(|i| Some(i.latency_ms?.p99)).fold(0.0, f64::max);
    let caption = format!("Latency of accepted orders. The worst p99 of an interval is {} ms.", ms(slowest));
    let plot = Plot {
        class: "plot-latency",
        description: format!("Latency in milliseconds along the time of the run. {caption}"),
        seconds: axis(series),
        lines: vec![
            line(series, "p50", GREEN, |i| Some(i.latency_ms?.p50)),
            line(series, "p95", BLUE, |i| Some(i.latency_ms?.p95)),
            line(series, "p99", VERMILION, |i| Some(i.latency_ms?.p99)),
        ],
        marks,
        gap: None,
        alarm_below_zero: false,
    };
    let row = |i: &Interval| match i.latency_ms {
        Some(latency) => vec![ms(latency.p50), ms(latency.p95), ms(latency.p99)],
        None => vec!["–".into(); 3],
    };
    let numbers = table(series, &["p50 ms", "p95 ms", "p99 ms"], row);
    figure(prefix, "latency", "Latency in ms", &caption, &plot, &numbers)
}

/// The length of the time axis, which all charts of a run share.
pub(super) fn axis(series: &Series) -> f64 {
    (series.span_ms() / 1e3).max(0.1)
}

fn line(
    series: &Series,
    name: &'static str,
    colour: RGBColor,
    of: impl Fn(&Interval) -> Option<f64>,
) -> Line {
    let point = |interval: &Interval| Some((interval.until_ms / 1e3, of(interval)?));
    let points: Vec<_> = series.intervals.iter().map(point).collect();
    // Where nothing was answered there is a gap, not a line across it.
    let stretches = points.split(Option::is_none).filter(|stretch| !stretch.is_empty());
    Line {
        name: name.into(),
        colour,
        stretches: stretches.map(|stretch| stretch.iter().flatten().copied().collect()).collect(),
    }
}

/// The lines that are not zero all along: the others would only hide the axis.
fn with_something(mut lines: Vec<Line>) -> Vec<Line> {
    lines.retain(|line| line.stretches.iter().flatten().any(|(_, value)| *value != 0.0));
    lines
}

/// A chart with its title, its caption and its numbers.
pub(super) fn framed(prefix: &str, name: &str, title: &str, caption: &str, body: &Markup) -> Markup {
    html! {
        figure.card id={ (prefix) (name) } tabindex="-1" {
            figcaption { h2 { (title) } p.note { (caption) } }
            (body)
        }
    }
}

fn figure(prefix: &str, name: &str, title: &str, caption: &str, plot: &Plot<'_>, numbers: &Markup) -> Markup {
    let body = html! { (plot.draw()) (unfolded(&format!("{prefix}{name}-numbers"), "The numbers", numbers)) };
    framed(prefix, name, title, caption, &body)
}

/// Something long, folded until it is asked for.
pub(super) fn unfolded(id: &str, summary: &str, body: &Markup) -> Markup {
    html! {
        details id=(id) {
            summary { (summary) }
            div.scroll tabindex="0" role="region" aria-label=(summary) { (body) }
        }
    }
}

fn table(series: &Series, columns: &[&str], row: impl Fn(&Interval) -> Vec<String>) -> Markup {
    html! {
        table.numbers {
            thead { tr {
                th scope="col" { "until s" }
                @for column in columns { th scope="col" { (column) } }
            } }
            tbody {
                @for interval in &series.intervals {
                    tr {
                        th scope="row" { (seconds(interval.until_ms)) }
                        @for cell in row(interval) { td { (cell) } }
                    }
                }
            }
        }
    }
}

fn faults(marks: &[FaultMark], availability: &Availability) -> Markup {
    html! {
        section.card {
            h2 { "Faults" }
            ol.faults {
                @for (number, mark) in marks.iter().enumerate() {
                    li {
                        (seconds(mark.at_ms)) " s"
                        @if let Some(until) = mark.until_ms { " to " (seconds(until)) " s" }
                        ": " (mark.what)
                        @if let Some(after) = availability.after(number) { "; " (after.in_words()) }
                    }
                }
            }
        }
    }
}
