//! Several strategies in one chart each, along the time of their runs.

use maud::{Markup, html};
use plotters::style::RGBColor;

use super::charts::{BLUE, BROWN, GREEN, GREY, VERMILION, figure};
use super::cursor;
use super::figures::{rate, seconds, whole};
use super::plot::{Line, Plot};
use crate::report::RunReport;
use crate::series::Series;

/// In the order of the runs. The style sheet makes dashes of them, too.
const COLOURS: [RGBColor; 9] = [
    VERMILION,
    BLUE,
    GREEN,
    BROWN,
    GREY,
    RGBColor(0xa6, 0x3c, 0x7e),
    RGBColor(0x1a, 0x1f, 0x26),
    RGBColor(0x3a, 0x9b, 0xc4),
    RGBColor(0x6b, 0x4f, 0xc9),
];

/// How many points a line has. More show the batches rather than the run.
const POINTS: usize = 60;

/// A run as it is drawn here.
struct Course {
    name: String,
    /// The end of each step that the run has, in milliseconds, with its rate and its stock.
    points: Vec<Point>,
}

struct Point {
    until_ms: f64,
    per_second: f64,
    left: i64,
}

/// Orders per second and stock of all runs that have a course, if there are two of them.
pub fn section(runs: &[RunReport], prefix: &str) -> Markup {
    let with_course = || runs.iter().filter_map(|run| Some((run, run.series.as_ref()?)));
    let span_ms = with_course().map(|(_, series)| series.span_ms()).fold(0.0, f64::max);
    if with_course().count() < 2 || span_ms <= 0.0 {
        return html! {};
    }
    let widest = with_course().map(|(_, series)| series.interval_ms).fold(0.0, f64::max);
    let step_ms = (span_ms / POINTS as f64).max(widest);
    let courses: Vec<_> = with_course()
        .enumerate()
        .map(|(number, (run, series))| {
            let same = runs.iter().filter(|other| other.strategy == run.strategy).count();
            let name = if same > 1 {
                format!("{} ({})", run.strategy, number + 1)
            } else {
                run.strategy.to_string()
            };
            Course { name, points: resampled(series, step_ms) }
        })
        .collect();
    let ends: Vec<_> = courses.iter().map(last_of).collect();
    html! {
        div.evidence id={ (prefix) "overlay" } {
            (cursor::readout())
            (moments(&courses, step_ms, span_ms))
            (chart(prefix, "overlay-rate", "Confirmed orders per second, by strategy",
                "All runs from their first order. Those who are done end early.", &courses, span_ms, false))
            (chart(prefix, "overlay-stock", "Stock according to the orders, by strategy",
                &format!("Below zero is sold and was never there. In the end: {}.", ends.join(", ")),
                &courses, span_ms, true))
        }
    }
}

fn last_of(course: &Course) -> String {
    let left = course.points.last().map_or(0, |point| point.left);
    format!("{} {}", course.name, whole(left))
}

/// A series in wider steps.
fn resampled(series: &Series, step_ms: f64) -> Vec<Point> {
    let mut points = Vec::new();
    let mut intervals = series.intervals.iter().peekable();
    let (mut since, mut left) = (0.0, 0);
    while let Some(first) = intervals.peek() {
        let until = ((first.until_ms / step_ms).ceil() * step_ms).max(since + step_ms);
        let (mut accepted, mut until_ms) = (0, since);
        while let Some(interval) = intervals.next_if(|interval| interval.until_ms <= until + 1e-6) {
            accepted += interval.accepted;
            (until_ms, left) = (interval.until_ms, interval.expected);
        }
        let took = (until_ms - since).max(1e-3);
        points.push(Point { until_ms, per_second: accepted as f64 * 1e3 / took, left });
        since = until_ms;
    }
    points
}

fn moments(courses: &[Course], step_ms: f64, span_ms: f64) -> Markup {
    let steps = (span_ms / step_ms).ceil().max(1.0) as usize;
    let at = |number: usize| (number as f64 * step_ms).min(span_ms);
    let words = |until_ms: f64| {
        let of = |course: &Course| {
            let point = course.points.iter().find(|point| point.until_ms >= until_ms - 1e-6);
            match point {
                Some(point) => {
                    format!("{} {}/s, {} left", course.name, rate(point.per_second), whole(point.left))
                }
                None => format!("{} is done", course.name),
            }
        };
        courses.iter().map(of).collect()
    };
    cursor::moments((1..=steps).map(at).map(|until_ms| (until_ms, words(until_ms))))
}

fn chart(
    prefix: &str,
    name: &str,
    title: &str,
    caption: &str,
    courses: &[Course],
    span_ms: f64,
    stock: bool,
) -> Markup {
    let value = |point: &Point| if stock { point.left as f64 } else { point.per_second };
    let line = |(number, course): (usize, &Course)| Line {
        name: course.name.clone().into(),
        colour: COLOURS[number % COLOURS.len()],
        stretches: vec![course.points.iter().map(|point| (point.until_ms / 1e3, value(point))).collect()],
    };
    let plot = Plot {
        class: "plot-overlay",
        description: format!("{title}. {caption}"),
        seconds: (span_ms / 1e3).max(0.1),
        lines: courses.iter().enumerate().map(line).collect(),
        marks: &[],
        gap: None,
        alarm_below_zero: false,
    };
    let numbers = html! {
        table.numbers {
            thead { tr {
                @for column in ["strategy", "until s", if stock { "left" } else { "orders/s" }] {
                    th scope="col" { (column) }
                }
            } }
            tbody {
                @for course in courses {
                    @for point in &course.points {
                        tr {
                            th scope="row" { (course.name) }
                            td { (seconds(point.until_ms)) }
                            td { @if stock { (whole(point.left)) } @else { (rate(point.per_second)) } }
                        }
                    }
                }
            }
        }
    };
    figure(prefix, name, title, caption, &plot, &numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Interval;

    #[test]
    fn wider_steps_keep_every_order() {
        let interval = |number: u32| Interval {
            until_ms: f64::from(number) * 20.0,
            accepted: 3,
            expected: 1_000 - i64::from(number) * 3,
            ..Interval::default()
        };
        let series =
            Series { interval_ms: 20.0, intervals: (1..=107).map(interval).collect(), ..Series::default() };
        for step in [20.0, 50.0, 100.0, 333.0] {
            let points = resampled(&series, step);
            let mut since = 0.0;
            let sold: f64 = points
                .iter()
                .map(|point| {
                    point.per_second * (point.until_ms - std::mem::replace(&mut since, point.until_ms)) / 1e3
                })
                .sum();
            assert!((sold - 321.0).abs() < 1e-6, "{step}: {sold}");
            assert_eq!(points.last().map(|point| point.left), Some(1_000 - 321));
        }
    }
}
