//! The courses of several runs in one chart each, along the same time.

use maud::{Markup, html};
use plotters::style::RGBColor;

use super::charts::{framed, unfolded};
use super::figures::{ms, rate, seconds, whole};
use super::plot::{Line, Plot};
use crate::series::{Interval, Series};

/// As many as can be told from each other; the style sheet makes dashes of them, too.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x8f, 0x68),
    RGBColor(0xa6, 0x3c, 0x7e),
    RGBColor(0x8a, 0x6d, 0x00),
    RGBColor(0x77, 0x7d, 0x86),
];

/// The most curves in a chart.
pub const MOST: usize = COLOURS.len();

/// How many rows the numbers of a chart have.
const ROWS: usize = 12;

/// The course of a run.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What it is called.
    pub name: String,
    /// The run along its time.
    pub series: Series,
}

/// What a chart shows of an interval that began at a time, in milliseconds.
type Value = fn(&Interval, f64) -> Option<f64>;

/// A chart of each measure with all curves, of which the first few are drawn.
pub fn charts(curves: &[Curve]) -> Markup {
    let curves = &curves[..curves.len().min(MOST)];
    html! {
        (chart(curves, "courses-throughput", "Accepted orders per second", "Higher sells faster.",
            per_second, rate))
        (chart(curves, "courses-latency", "p99 in ms", "Lower answers sooner. A gap: nothing was sold then.",
            |interval, _| Some(interval.latency_ms?.p99), ms))
        (chart(curves, "courses-stock", "Stock by the orders", "Below zero is sold and was never there.",
            |interval, _| Some(interval.expected as f64), |value| whole(value as i64)))
    }
}

fn per_second(interval: &Interval, since: f64) -> Option<f64> {
    Some(interval.accepted as f64 * 1e3 / (interval.until_ms - since).max(1e-3))
}

fn chart(
    curves: &[Curve],
    name: &'static str,
    title: &str,
    caption: &str,
    of: Value,
    words: fn(f64) -> String,
) -> Markup {
    let span_ms = curves.iter().map(|curve| curve.series.span_ms()).fold(100.0, f64::max);
    let named: Vec<_> = curves.iter().map(|curve| curve.name.as_str()).collect();
    let plot = Plot {
        class: "plot-courses",
        description: format!("{title} along the time of the runs: {}. {caption}", named.join(", ")),
        seconds: span_ms / 1e3,
        lines: curves.iter().zip(COLOURS).map(|(curve, colour)| line(curve, colour, of)).collect(),
        marks: &[],
        gap: None,
        alarm_below_zero: false,
    };
    let body = html! {
        (plot.draw())
        (unfolded(&format!("{name}-numbers"), "The numbers", &numbers(curves, span_ms, of, words)))
    };
    framed("", name, title, caption, &body)
}

/// The intervals with the times at which they began.
fn intervals(series: &Series) -> impl Iterator<Item = (&Interval, f64)> {
    let ends = series.intervals.iter().map(|interval| interval.until_ms);
    series.intervals.iter().zip(std::iter::once(0.0).chain(ends))
}

fn line(curve: &Curve, colour: RGBColor, of: Value) -> Line {
    let points: Vec<_> = intervals(&curve.series)
        .map(|(interval, since)| Some((interval.until_ms / 1e3, of(interval, since)?)))
        .collect();
    let stretches = points.split(Option::is_none).filter(|stretch| !stretch.is_empty());
    let stretches = stretches.map(|stretch| stretch.iter().flatten().copied().collect()).collect();
    Line { name: curve.name.clone().into(), colour, stretches }
}

/// What the chart shows, at a few times.
fn numbers(curves: &[Curve], span_ms: f64, of: Value, words: fn(f64) -> String) -> Markup {
    let at = |curve: &Curve, time: f64| {
        let value = intervals(&curve.series)
            .find(|(interval, _)| interval.until_ms >= time - 1e-6)
            .and_then(|(interval, since)| of(interval, since));
        value.map_or_else(|| "–".to_owned(), words)
    };
    html! {
        table.numbers {
            thead { tr {
                th scope="col" { "at s" }
                @for curve in curves { th scope="col" { (curve.name) } }
            } }
            tbody {
                @for time in (1..=ROWS).map(|row| span_ms * row as f64 / ROWS as f64) {
                    tr {
                        th scope="row" { (seconds(time)) }
                        @for curve in curves { td { (at(curve, time)) } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, accepted: &[u64]) -> Curve {
        let interval = |(number, accepted): (usize, &u64)| Interval {
            until_ms: (number + 1) as f64 * 100.0,
            accepted: *accepted,
            ..Interval::default()
        };
        let intervals = accepted.iter().enumerate().map(interval).collect();
        Curve { name: name.into(), series: Series { interval_ms: 100.0, intervals, ..Series::default() } }
    }

    #[test]
    fn runs_of_different_lengths_share_one_axis() {
        let curves = [curve("A redis", &[10, 20]), curve("B <row>", &[30; 12])];
        let page = charts(&curves).into_string();
        let rows: Vec<_> = page.split("<tr>").filter(|row| row.contains("scope=\"row\"")).collect();
        assert!(
            rows[1].contains("0.20") && rows[1].contains("200") && rows[1].contains("300"),
            "{}",
            rows[1]
        );
        // The shorter one is over.
        assert!(
            rows[11].contains("1.20") && rows[11].contains("–") && rows[11].contains("300"),
            "{}",
            rows[11]
        );
        assert!(page.contains("B &lt;row&gt;") && !page.contains("B <row>"));
        assert_eq!(page.matches("<svg class=\"swatch plot-courses\"").count(), 6);
    }
}
