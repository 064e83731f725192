//! Several measurements of the same: the median, the least and the greatest.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What several measurements say. It prints as `median (least–most)`, with the precision of the format.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub most: f64,
}

impl Spread {
    /// The spread of measurements, of which there is at least one.
    pub fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let (middle, last) = (figures.len() / 2, figures.len() - 1);
        let median = (figures[middle] + figures[last - middle]) / 2.0;
        Self { median, least: figures[0], most: figures[last] }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(0);
        let Self { median, least, most } = self;
        write!(f, "{median:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_in_the_middle() {
        assert_eq!(Spread::of(vec![3.0]), Spread { median: 3.0, least: 3.0, most: 3.0 });
        assert_eq!(Spread::of(vec![9.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 9.0 });
        assert_eq!(Spread::of(vec![9.0, 1.0, 2.0, 4.0]), Spread { median: 3.0, least: 1.0, most: 9.0 });
        assert_eq!(format!("{:.1}", Spread::of(vec![9.0, 1.0, 2.0])), "2.0 (1.0–9.0)");
    }
}
