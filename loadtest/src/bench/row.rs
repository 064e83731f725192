//! One row of the table: what was measured, beside what, and whether that is enough.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spread::Spread;

/// What was measured, beside what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name: the group's, a slash, and its own.
    pub name: String,
    /// What it is measured beside, in words.
    pub beside: String,
    /// What the figures are, such as `orders/s`.
    pub unit: String,
    /// What was measured.
    pub figure: Spread,
    /// What was measured beside it, in turn with it.
    pub reference: Option<Spread>,
    /// The figure for each of the reference: the spread of the rounds' ratios, not the ratio of the spreads.
    pub ratio: Option<Spread>,
    /// What is enough. It is held against the ratio's median, or the figure's where there is no ratio.
    pub bar: Option<Bar>,
    /// Whether it is enough.
    pub met: Option<bool>,
}

/// What is enough.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// So much or more, with a stretch goal where there is one.
    AtLeast {
        /// What is enough.
        enough: f64,
        /// The stretch goal.
        stretch: Option<f64>,
    },
    /// So much or less.
    AtMost {
        /// What is enough.
        enough: f64,
    },
}

impl Row {
    /// A row whose figures were measured in turn with those of its reference, a pair in each round.
    pub fn of_pairs(
        name: &str,
        beside: &str,
        unit: &str,
        figures: &[f64],
        references: &[f64],
        bar: Option<Bar>,
    ) -> Self {
        let ratios = figures.iter().zip(references).map(|(figure, reference)| figure / reference);
        let ratio = Spread::of(ratios.collect());
        let reference = Some(Spread::of(references.to_vec()));
        let met = bar.map(|bar| bar.is_met_by(ratio.median));
        let figure = Spread::of(figures.to_vec());
        let (name, beside, unit) = (name.into(), beside.into(), unit.into());
        Self { name, beside, unit, figure, reference, ratio: Some(ratio), bar, met }
    }

    /// A row whose figures stand for themselves.
    pub fn alone(name: &str, unit: &str, figures: &[f64], bar: Option<Bar>) -> Self {
        let figure = Spread::of(figures.to_vec());
        let met = bar.map(|bar| bar.is_met_by(figure.median));
        let (name, unit) = (name.into(), unit.into());
        Self { name, beside: String::new(), unit, figure, reference: None, ratio: None, bar, met }
    }

    /// Whether it is not enough.
    pub fn is_missed(&self) -> bool {
        self.met == Some(false)
    }
}

impl Bar {
    /// So much or more.
    pub const fn at_least(enough: f64) -> Option<Self> {
        Some(Self::AtLeast { enough, stretch: None })
    }

    /// So much or more, with a stretch goal beyond.
    pub const fn at_least_or_stretch(enough: f64, stretch: f64) -> Option<Self> {
        Some(Self::AtLeast { enough, stretch: Some(stretch) })
    }

    /// So much or less.
    pub const fn at_most(enough: f64) -> Option<Self> {
        Some(Self::AtMost { enough })
    }

    /// Whether a figure is enough.
    pub fn is_met_by(self, figure: f64) -> bool {
        match self {
            Self::AtLeast { enough, .. } => figure >= enough,
            Self::AtMost { enough } => figure <= enough,
        }
    }

    /// Whether a figure reaches the stretch goal.
    pub fn meets_stretch(self, figure: f64) -> bool {
        matches!(self, Self::AtLeast { stretch: Some(stretch), .. } if figure >= stretch)
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast { enough, stretch: None } => write!(f, "at least {enough}"),
            Self::AtLeast { enough, stretch: Some(stretch) } => {
                write!(f, "at least {enough} (stretch {stretch})")
            }
            Self::AtMost { enough } => write!(f, "at most {enough}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(figures: &[f64], references: &[f64], bar: Option<Bar>) -> Row {
        Row::of_pairs("hot/redis", "pgbench", "orders/s", figures, references, bar)
    }

    #[test]
    fn the_ratio_is_of_what_was_measured_in_one_round() {
        // The machine is twice as fast in the second round, for both.
        let row = row(&[100.0, 200.0, 150.0], &[50.0, 100.0, 50.0], None);
        assert_eq!(row.ratio, Some(Spread { median: 2.0, least: 2.0, most: 3.0 }));
        assert_eq!((row.figure.median, row.reference.unwrap().median), (150.0, 50.0));
        assert_eq!((row.met, row.is_missed()), (None, false));
    }

    #[test]
    fn a_bar_is_held_against_the_median() {
        let with = |bar| row(&[1.0, 2.0, 9.0], &[1.0, 1.0, 1.0], bar).met;
        assert_eq!(with(Bar::at_least(2.0)), Some(true));
        assert_eq!(with(Bar::at_least(2.1)), Some(false));
        assert_eq!(with(Bar::at_most(2.0)), Some(true));
        assert_eq!(with(Bar::at_most(1.9)), Some(false));
        assert!(Row::alone("memory/hot", "MiB", &[60.0, 70.0, 80.0], Bar::at_most(64.0)).is_missed());
        let bar = Bar::at_least_or_stretch(15.0, 20.0).unwrap();
        assert!(bar.is_met_by(15.0) && !bar.meets_stretch(19.9) && bar.meets_stretch(20.0));
    }

    #[test]
    fn nothing_at_all_is_less_than_any_bar() {
        assert_eq!(row(&[0.0], &[0.0], Bar::at_least(0.8)).met, Some(false));
    }
}
