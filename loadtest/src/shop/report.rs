//! What was found in a shop, for people and for programs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::buyer::Outcome;
use super::judge::{Traces, Tried};
use super::load::Arrival;
use crate::report::{Case, CaseOutcome, Conclusion, Suite, Thresholds};
use crate::verdict::{Check, Status, Verdict};

/// How many different unclear answers are shown.
const SHOWN: usize = 5;

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShopReport {
    /// The version of the form of the JSON.
    pub schema: u32,
    /// What the shop is called.
    pub shop: String,
    /// The verdict on all runs together.
    pub verdict: Verdict,
    /// The same in a line.
    pub headline: String,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// What kept the last run from its end, if anything did.
    pub broke_off: Option<String>,
    /// The runs, in order: first one buyer after the other, then as was asked for.
    pub runs: Vec<ShopRun>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShopRun {
    /// How buyers came.
    pub arrival: Arrival,
    /// Purchases that were under way at the same time, at the most.
    pub at_once: usize,
    /// Purchases that were tried.
    pub purchases: usize,
    /// Units in stock at the beginning.
    pub stock: i64,
    /// Units in each purchase.
    pub quantity: i64,
    /// Units sold by the shop's own record; absent where that could not be read.
    pub sold: Option<i64>,
    /// Units that were sold and were not there.
    pub oversold: i64,
    /// Units in confirmed purchases.
    pub bought: i64,
    /// Units in purchases that were refused for want of stock.
    pub refused: i64,
    /// Units in purchases whose answers say neither.
    pub unknown: i64,
    /// Purchases whose last step was sent again.
    pub resent: usize,
    /// Confirmed purchases per second.
    pub per_second: f64,
    /// How long whole confirmed purchases took, in milliseconds: the median.
    pub p50_ms: Option<f64>,
    /// 99 of 100 were as fast.
    pub p99_ms: Option<f64>,
    /// How long the answers to each step took.
    pub steps: Vec<StepLatency>,
    /// The unclear answers that were most frequent.
    pub unclear: Vec<Answers>,
    /// The answers that were taken for refusals for want of stock, the most frequent first.
    pub refusals: Vec<Answers>,
    /// Which purchase was one too many, and which others were under way with it.
    pub counterexample: Option<String>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// What that amounts to.
    pub verdict: Verdict,
    /// Every purchase.
    pub tried: Vec<Tried>,
}

/// How long the answers to a step took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepLatency {
    /// Which step.
    pub step: String,
    /// The median, in milliseconds.
    pub p50_ms: Option<f64>,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: Option<f64>,
}

/// Answers that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// The step, and what was received the first time.
    pub what: String,
    /// How many purchases ended with it.
    pub purchases: usize,
}

impl Answers {
    /// The unclear ones that were most frequent.
    pub(super) fn most_frequent(traces: &Traces) -> Vec<Self> {
        Self::grouped(traces.tried.iter().filter_map(|tried| match &tried.outcome {
            Outcome::Unknown { why } => Some(why.as_str()),
            _ => None,
        }))
    }

    /// The most frequent of some answers.
    pub(super) fn grouped<'a>(answers: impl Iterator<Item = &'a str>) -> Vec<Self> {
        let mut groups = BTreeMap::<String, Self>::new();
        for what in answers {
            let group = groups.entry(without_names(what));
            group.or_insert_with(|| Self { what: what.into(), purchases: 0 }).purchases += 1;
        }
        let mut all: Vec<_> = groups.into_values().collect();
        all.sort_by_key(|unclear| std::cmp::Reverse(unclear.purchases));
        all.truncate(SHOWN);
        all
    }
}

/// A text without what tells one purchase from another: identities, and other words with digits in them.
fn without_names(text: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let words = text.split_inclusive(|c: char| !is_part(c));
    let without = |word: &str| {
        let end = word.trim_end_matches(is_part);
        let is_name =
            word.trim_end_matches(|c| !is_part(c)).len() >= 8 && word.chars().any(|c| c.is_ascii_digit());
        if is_name {
            format!("…{}", end.chars().last().map_or_else(String::new, String::from))
        } else {
            word.into()
        }
    };
    words.map(without).collect()
}

impl ShopRun {
    /// Whether it is the control: one buyer after the other.
    pub fn is_control(&self) -> bool {
        self.arrival == Arrival::ALONE
    }

    /// The verdict in a word.
    pub fn word(&self) -> String {
        if self.oversold > 0 { "OVERSOLD".into() } else { words(self.verdict) }
    }

    /// For a log.
    pub fn in_a_line(&self) -> String {
        let sold = self.sold.map_or_else(|| "?".into(), |sold| sold.to_string());
        format!("{}: {sold} sold of {}, {}", self.arrival, self.stock, self.word())
    }
}

impl ShopReport {
    /// The report of these runs.
    pub fn new(shop: &str, runs: Vec<ShopRun>, stopped: bool, broke_off: Option<String>) -> Self {
        let mut verdict = runs.iter().map(|run| run.verdict).max_by_key(|verdict| match verdict {
            Verdict::Correct => 0,
            Verdict::Inconclusive => 1,
            Verdict::Violated => 2,
        });
        // A control alone has shown nothing, and no more has what broke off.
        let nothing_shown = runs.iter().all(ShopRun::is_control) || broke_off.is_some();
        if nothing_shown && verdict == Some(Verdict::Correct) {
            verdict = None;
        }
        let verdict = verdict.unwrap_or(Verdict::Inconclusive);
        let mut report =
            Self { schema: 1, shop: shop.into(), verdict, headline: String::new(), stopped, broke_off, runs };
        report.headline = report.in_a_line();
        report
    }

    /// `OVERSOLD by 8 · medusa · 18 sold of 10, 20 at once`.
    fn in_a_line(&self) -> String {
        let shop = &self.shop;
        if let Some(control) = self.runs.first().filter(|run| run.verdict == Verdict::Violated) {
            let failed = control.checks.iter().find(|check| check.status == Status::Fail);
            let why = failed.map_or_else(String::new, |check| format!(" ({}: {})", check.name, check.detail));
            return format!(
                "{} · {shop} · already with one buyer after the other{why}: is the description right?",
                control.word()
            );
        }
        let worst = self.runs.iter().max_by_key(|run| run.oversold).filter(|run| run.oversold > 0);
        if let Some(run) = worst {
            let sold = run.oversold + run.stock;
            return format!(
                "OVERSOLD by {} · {shop} · {sold} sold of {}, {}",
                run.oversold, run.stock, run.arrival
            );
        }
        let decides = match self.verdict {
            Verdict::Correct => return format!("correct · {shop} · {}", self.bound()),
            Verdict::Inconclusive => Status::Unknown,
            Verdict::Violated => Status::Fail,
        };
        let word = words(self.verdict);
        let run = self.runs.iter().find(|run| run.verdict == self.verdict);
        // What was not answered explains most of what cannot be seen, and is the last check.
        let of_run = |run: &'_ ShopRun| {
            let mut such = run.checks.iter().filter(|check| check.status == decides);
            let check = if decides == Status::Unknown { such.next_back() } else { such.next() };
            check.cloned()
        };
        let check = run.and_then(of_run);
        match check {
            Some(check) => format!("{word} · {shop} · {}: {}", check.name, check.detail),
            None => match &self.broke_off {
                Some(why) => format!("{word} · {shop} · {why}"),
                None => format!(
                    "{word} · {shop} · stopped before anybody bought at the same time as \
                 another"
                ),
            },
        }
    }

    /// What it says that nothing was found: how often it may happen all the same.
    fn bound(&self) -> String {
        let concurrent = self.runs.iter().filter(|run| !run.is_control()).count();
        let Ok(runs) = i32::try_from(concurrent.max(1)) else { return String::new() };
        // With this share, as many runs would all be spared in 5 of 100 cases.
        let bound = 1.0 - 0.05_f64.powf(1.0 / f64::from(runs));
        format!(
            "oversold in 0 of {concurrent} concurrent runs; with 95% confidence, in fewer than {:.0} of \
             100 such",
            (bound * 100.0).ceil()
        )
    }

    /// The limits that were missed, a sentence for each.
    pub fn missed(&self, thresholds: &Thresholds) -> Vec<String> {
        let mut missed = Vec::new();
        for run in self.runs.iter().filter(|run| !run.is_control()) {
            if let (Some(max), Some(p99)) = (thresholds.max_p99_ms, run.p99_ms)
                && p99 > max
            {
                missed.push(format!("{}: the p99 is {p99:.0} ms, and {max:.0} ms are allowed", run.arrival));
            }
            if let Some(min) = thresholds.min_rate.filter(|min| run.per_second < *min) {
                missed.push(format!(
                    "{}: {:.1} purchases/s, where {min:.1} are wanted at least",
                    run.arrival, run.per_second
                ));
            }
        }
        missed
    }

    /// What it says as a whole.
    pub fn conclude(&self, thresholds: &Thresholds) -> Conclusion {
        match self.verdict {
            Verdict::Violated => Conclusion::Violated,
            Verdict::Inconclusive => Conclusion::Inconclusive,
            Verdict::Correct if !self.missed(thresholds).is_empty() => Conclusion::ThresholdMissed,
            Verdict::Correct => Conclusion::AsExpected,
        }
    }
}

/// A verdict in a word, where what is not correct stands out.
pub fn words(verdict: Verdict) -> String {
    match verdict {
        Verdict::Correct => "correct".into(),
        Verdict::Inconclusive => "INCONCLUSIVE".into(),
        Verdict::Violated => "VIOLATED".into(),
    }
}

impl ShopReport {
    /// The report as test cases, a suite for each run.
    pub fn suites(&self, thresholds: &Thresholds) -> Vec<Suite> {
        let of_run = |run: &ShopRun| {
            let purchases = run.bought as f64 / run.quantity.max(1) as f64;
            let seconds = purchases / run.per_second.max(1e-9);
            Suite::new(run.arrival.to_string(), seconds, run.checks.iter().map(Case::of).collect())
        };
        let mut suites: Vec<_> = self.runs.iter().map(of_run).collect();
        if self.verdict != Verdict::Correct && !suites.iter().flat_map(|suite| &suite.cases).any(Case::is_bad)
        {
            let verdict = Case::new("verdict", CaseOutcome::Inconclusive, &self.headline);
            suites.push(Suite::new("all", 0.0, vec![verdict]));
        }
        suites.extend(Suite::of_limits(thresholds, &self.missed(thresholds)));
        suites
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_differ_in_names_only_are_one() {
        let of = |cart: &str| {
            format!("pay: http://127.0.0.1:35169/carts/cart_{cart}/complete: no answer within 20 s")
        };
        assert_eq!(without_names(&of("01M8CG127C1Y")), without_names(&of("01M8CG1284ZV")));
        assert_ne!(
            without_names("pay: 500 (text/plain): it broke"),
            without_names(
                "pay: 400 (text/plain): \
         it broke"
            )
        );
        assert!(without_names(&of("01M8CG127C1Y")).ends_with("/complete: no answer within 20 s"));
    }
}
