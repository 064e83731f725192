//! What was found in a shop, for people and for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::verdict::{Check, Status, Verdict};

/// What was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShopReport {
    /// What the shop is called.
    pub shop: String,
    /// The verdict on all runs together.
    pub verdict: Verdict,
    /// The runs, in order: first one buyer after the other, then more and more at the same time.
    pub runs: Vec<ShopRun>,
}

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShopRun {
    /// Buyers at the same time.
    pub buyers: usize,
    /// Purchases that were tried.
    pub purchases: usize,
    /// Units in stock at the beginning.
    pub stock: i64,
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
    /// How long whole purchases took, in milliseconds: the median.
    pub p50_ms: f64,
    /// 99 of 100 were as fast.
    pub p99_ms: f64,
    /// How long the answers to each step took, in milliseconds: the median and the 99th percentile.
    pub steps: Vec<StepLatency>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// What that amounts to.
    pub verdict: Verdict,
}

/// How long the answers to a step took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepLatency {
    /// Which step.
    pub step: String,
    /// The median, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: f64,
}

impl ShopReport {
    /// The report of these runs.
    pub fn new(shop: &str, runs: Vec<ShopRun>) -> Self {
        let verdict = runs.iter().map(|run| run.verdict).max_by_key(|verdict| match verdict {
            Verdict::Correct => 0,
            Verdict::Inconclusive => 1,
            Verdict::Violated => 2,
        });
        Self { shop: shop.into(), verdict: verdict.unwrap_or(Verdict::Inconclusive), runs }
    }

    /// The verdict in a line: `OVERSOLD by 8 · medusa · 18 sold of 10`.
    pub fn headline(&self) -> String {
        let worst = self.runs.iter().max_by_key(|run| run.oversold).filter(|run| run.oversold > 0);
        if let Some(run) = worst {
            let sold = run.oversold + run.stock;
            return format!(
                "OVERSOLD by {} · {} · {sold} sold of {} to {} buyers at once",
                run.oversold, self.shop, run.stock, run.buyers
            );
        }
        let reason = self.runs.iter().find(|run| run.verdict == self.verdict).and_then(|run| {
            let decides = match self.verdict {
                Verdict::Correct => return None,
                Verdict::Inconclusive => Status::Unknown,
                Verdict::Violated => Status::Fail,
            };
            run.checks.iter().find(|check| check.status == decides)
        });
        match reason {
            Some(check) => {
                format!("{} · {} · {}: {}", words(self.verdict), self.shop, check.name, check.detail)
            }
            None => format!("correct · {} · {}", self.shop, self.bound()),
        }
    }

    /// What it says that nothing was found: how often it may happen all the same.
    fn bound(&self) -> String {
        let concurrent = self.runs.iter().filter(|run| run.buyers > 1).count();
        let Ok(runs) = i32::try_from(concurrent.max(1)) else { return String::new() };
        let bound = 1.0 - 0.05_f64.powf(1.0 / f64::from(runs));
        format!(
            "oversold in 0 of {concurrent} concurrent runs: with 95% confidence, in less than {:.0}% of such",
            (bound * 100.0).ceil()
        )
    }
}

fn words(verdict: Verdict) -> String {
    match verdict {
        Verdict::Correct => "correct".into(),
        Verdict::Inconclusive => "INCONCLUSIVE".into(),
        Verdict::Violated => "VIOLATED".into(),
    }
}

impl fmt::Display for ShopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN).set_header([
            "buyers",
            "verdict",
            "sold",
            "oversold",
            "confirmed",
            "refused",
            "unknown",
            "p50 ms",
            "p99 ms",
        ]);
        for run in &self.runs {
            let sold = run.sold.map_or_else(|| "?".into(), |sold| sold.to_string());
            table.add_row([
                run.buyers.to_string(),
                if run.oversold > 0 { "OVERSOLD".into() } else { run.verdict.to_string() },
                format!("{sold} of {}", run.stock),
                run.oversold.to_string(),
                run.bought.to_string(),
                run.refused.to_string(),
                run.unknown.to_string(),
                format!("{:.0}", run.p50_ms),
                format!("{:.0}", run.p99_ms),
            ]);
        }
        writeln!(f, "{table}\n\n{}", self.headline())?;
        for run in self.runs.iter().filter(|run| run.verdict != Verdict::Correct) {
            writeln!(f, "\n{} buyers at once:", run.buyers)?;
            for check in
                run.checks.iter().filter(|check| matches!(check.status, Status::Fail | Status::Unknown))
            {
                writeln!(f, "  {}: {}", check.name, check.detail)?;
            }
        }
        Ok(())
    }
}
