//! What a bench has measured, and what that says.

use serde::{Deserialize, Serialize};

use super::row::Row;
use crate::environment::Environment;
use crate::report::Conclusion;

/// The report of a bench, as it is written to a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this form.
    pub schema: u32,
    /// How often everything was measured, in turn.
    pub rounds: u32,
    /// How long each measurement was, in seconds.
    pub seconds: u64,
    /// What was measured.
    pub groups: Vec<GroupReport>,
    /// Where it was made.
    pub environment: Environment,
}

/// What was measured together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// The rows.
    pub rows: Vec<Row>,
    /// Whatever an audit or a verdict says is wrong: nothing, where all is well.
    pub violations: Vec<String>,
    /// What could not be measured or judged, and why.
    pub not_measured: Vec<String>,
}

impl GroupReport {
    /// A group of which nothing has been measured yet.
    pub(super) fn new(name: &str, about: &str) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            rows: Vec::new(),
            violations: Vec::new(),
            not_measured: Vec::new(),
        }
    }
}

impl Report {
    /// A report of groups that were measured here and now.
    pub(super) fn new(rounds: u32, seconds: u64, groups: Vec<GroupReport>) -> Self {
        Self { schema: 1, rounds, seconds, groups, environment: Environment::here() }
    }

    /// What the bench says as a whole. A wrong stock outranks what could not be measured, and that a missed
    /// bar.
    pub fn conclude(&self) -> Conclusion {
        let any = |of: fn(&GroupReport) -> bool| self.groups.iter().any(of);
        if any(|group| !group.violations.is_empty()) {
            Conclusion::Violated
        } else if any(|group| !group.not_measured.is_empty()) || !any(|group| !group.rows.is_empty()) {
            Conclusion::Inconclusive
        } else if any(|group| group.rows.iter().any(Row::is_missed)) {
            Conclusion::ThresholdMissed
        } else {
            Conclusion::AsExpected
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::row::Bar;
    use super::*;

    pub(crate) fn report() -> Report {
        let mut group = GroupReport::new("hot", "256 connections order one product.");
        let rows = [("hot/redis", &[13_912.4, 12_900.0]), ("hot/database", &[24_000.0, 25_000.0])];
        for (name, figures) in rows {
            let bar = Bar::at_least_or_stretch(15.0, 20.0);
            group.rows.push(Row::of_pairs(
                name,
                "pgbench -c 64",
                "orders/s",
                figures,
                &[1_210.0, 1_150.0],
                bar,
            ));
        }
        Report::new(2, 5, vec![group])
    }

    #[test]
    fn the_exit_code_says_whether_all_was_as_it_should_be() {
        let missed = report();
        assert_eq!(missed.conclude().exit_code(), 99);
        let mut met = missed.clone();
        met.groups[0].rows.remove(0);
        assert_eq!(met.conclude().exit_code(), 0);
        let mut unmeasured = missed;
        unmeasured.groups[0].not_measured.push("hot/zookeeper: no answer".into());
        assert_eq!(unmeasured.conclude().exit_code(), 2);
        unmeasured.groups[0].violations.push("product-1: 2 units oversold".into());
        assert_eq!(unmeasured.conclude().exit_code(), 1);
        assert_eq!(Report::new(1, 1, Vec::new()).conclude().exit_code(), 2);
    }
}
