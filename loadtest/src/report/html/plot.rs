//! One chart: lines along the time of a run, three times, for windows from wide to narrow.
//!
//! Colours are written into the drawing as they are on light paper; the style sheet exchanges them on dark
//! paper and makes dashes of them, by the colour and the class of the chart.

use std::borrow::Cow;
use std::ops::Range;

use maud::{Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::faults::FaultMark;

const INK: RGBColor = RGBColor(0x5b, 0x64, 0x70);
const GRID: RGBColor = RGBColor(0xdd, 0xe0, 0xe4);
const FAULT: RGBColor = RGBColor(0xa6, 0x3c, 0x7e);
const ALARM: RGBColor = RGBColor(0xcc, 0x33, 0x11);

/// A drawing's size, its left margin and its letters, in units of which a wide window has about half as many
/// pixels.
struct Size {
    class: &'static str,
    width: u32,
    height: u32,
    left: u32,
    letters: u32,
    ticks: usize,
}

/// The style sheet knows which is seen when, and these left margins: 5%, 9% and 16% of the width.
const SIZES: [Size; 3] = [
    Size { class: "wide", width: 2_000, height: 440, left: 100, letters: 27, ticks: 10 },
    Size { class: "medium", width: 1_200, height: 400, left: 108, letters: 27, ticks: 6 },
    Size { class: "narrow", width: 750, height: 480, left: 120, letters: 36, ticks: 4 },
];

/// The right margin, in percent of the width.
const RIGHT_PERCENT: u32 = 1;

/// A line.
pub(super) struct Line {
    pub(super) name: Cow<'static, str>,
    pub(super) colour: RGBColor,
    /// Seconds and values, without a gap.
    pub(super) stretches: Vec<Vec<(f64, f64)>>,
}

/// A chart.
pub(super) struct Plot<'a> {
    /// The class by which the style sheet knows its lines.
    pub(super) class: &'static str,
    /// What it shows, for those who cannot see it.
    pub(super) description: String,
    pub(super) seconds: f64,
    pub(super) lines: Vec<Line>,
    pub(super) marks: &'a [FaultMark],
    /// The longest time without a sale, in seconds, where it is worth a mark.
    pub(super) gap: Option<(f64, f64)>,
    /// Whether what is below zero is an alarm.
    pub(super) alarm_below_zero: bool,
}

impl Plot<'_> {
    /// All drawings; one is seen at a time.
    pub(super) fn draw(&self) -> Markup {
        html! {
            div class={ "plot " (self.class) } role="img" aria-label=(self.description) {
                @for size in &SIZES {
                    div class=(size.class) aria-hidden="true" {
                        // The library escapes the little text there is.
                        (PreEscaped(self.svg(size)))
                    }
                }
            }
            ul.legend aria-hidden="true" {
                @for line in &self.lines {
                    li { svg class={ "swatch " (self.class) } viewBox="0 0 32 8" {
                        line x1="0" y1="4" x2="32" y2="4" stroke=(hex(line.colour)) stroke-width="3" {}
                    } (line.name) }
                }
                @if self.gap.is_some() {
                    li {
                        svg.swatch viewBox="0 0 32 8" {
                            rect width="32" height="8" fill=(hex(INK)) opacity="0.25" {}
                        }
                        "longest time without a sale"
                    }
                }
                @if !self.marks.is_empty() {
                    li {
                        svg.swatch viewBox="0 0 32 8" {
                            rect width="32" height="8" fill=(hex(FAULT)) opacity="0.35" {}
                        }
                        "fault"
                    }
                }
            }
        }
    }

    fn svg(&self, size: &Size) -> String {
        let mut svg = String::new();
        let drawn = {
            let area = SVGBackend::with_string(&mut svg, (size.width, size.height)).into_drawing_area();
            self.draw_on(&area, size)
        };
        drawn.expect("a drawing in memory has no way to fail");
        svg
    }

    fn draw_on<'b>(
        &self,
        area: &DrawingArea<SVGBackend<'b>, Shift>,
        size: &Size,
    ) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'b> as DrawingBackend>::ErrorType>> {
        let values = self.range();
        let font = || ("sans-serif", size.letters).into_font().color(&INK);
        let mut chart = ChartBuilder::on(area)
            .margin_top(size.letters)
            .margin_right(size.width * RIGHT_PERCENT / 100)
            .x_label_area_size(size.letters * 2)
            .y_label_area_size(size.left)
            .build_cartesian_2d(0.0..self.seconds, values.clone())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.stroke_width(2))
            .axis_style(INK.stroke_width(2))
            .x_labels(size.ticks)
            .y_labels(5)
            .x_label_formatter(&|seconds| format!("{} s", short(*seconds)))
            .y_label_formatter(&|value| short(*value))
            .label_style(font())
            .draw()?;
        if let Some((from, until)) = self.gap {
            let band = [(from, values.start), (until.min(self.seconds), values.end)];
            chart.draw_series([Rectangle::new(band, INK.mix(0.18).filled())])?;
        }
        for (number, mark) in self.marks.iter().enumerate() {
            let from = (mark.at_ms / 1e3).clamp(0.0, self.seconds);
            let until = (mark.until_ms.unwrap_or(mark.at_ms) / 1e3).clamp(from, self.seconds);
            let band = [(from, values.start), (until, values.end)];
            chart.draw_series([Rectangle::new(band, FAULT.mix(0.15).filled())])?;
            let line = [(from, values.start), (from, values.end)];
            chart.draw_series([PathElement::new(line, FAULT.stroke_width(3))])?;
            let label = Text::new(
                (number + 1).to_string(),
                (from + self.seconds * 0.004, values.end),
                font().color(&FAULT),
            );
            chart.draw_series([label])?;
        }
        if self.alarm_below_zero && values.start < 0.0 {
            let below = self.lines.iter().last().into_iter().flat_map(|line| line.stretches.iter().flatten());
            let below = below.map(|(at, value)| (*at, value.min(0.0)));
            chart.draw_series(AreaSeries::new(below, 0.0, ALARM.mix(0.25)))?;
            chart
                .draw_series([PathElement::new([(0.0, 0.0), (self.seconds, 0.0)], ALARM.stroke_width(3))])?;
        }
        for line in &self.lines {
            for stretch in &line.stretches {
                chart.draw_series(LineSeries::new(stretch.iter().copied(), line.colour.stroke_width(4)))?;
                if let [alone] = stretch[..] {
                    chart.draw_series([Circle::new(alone, 4, line.colour.filled())])?;
                }
            }
        }
        Ok(())
    }

    /// The least and the greatest value, zero always among them.
    fn range(&self) -> Range<f64> {
        let values =
            || self.lines.iter().flat_map(|line| line.stretches.iter().flatten()).map(|(_, value)| *value);
        let (least, most) = (values().fold(0.0, f64::min), values().fold(0.0, f64::max));
        let span = (most - least).max(1e-3);
        let below = if least < 0.0 { span * 0.04 } else { 0.0 };
        least - below..most + span * 0.08
    }
}

/// A value on an axis.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        size if size >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
    .replace('-', "−")
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}
