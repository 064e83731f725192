//! Runs while they go on, on standard error: a few lines on a terminal, now and then a line elsewhere.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use loadtest::client::Client;
use loadtest::compare::Watcher;
use loadtest::faults::{FaultJournal, FaultMark};
use loadtest::progress::{Progress, Sample};
use loadtest::report::RunReport;
use loadtest::scenario::{Amount, Scenario};
use loadtest::series::IntervalLatency;
use order_service::command_line::is_coloured;
use order_service::config::StrategyName;
use tokio::task::JoinHandle;

/// How often figures are taken.
const SAMPLED: Duration = Duration::from_millis(250);

/// How often there is a line where no terminal is.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows runs, one after the other.
pub(super) struct Live {
    screen: Option<Screen>,
    shown: Mutex<Option<Shown>>,
    /// What is broken in the run that is shown.
    faults: Arc<Mutex<FaultJournal>>,
}

/// What runs are shown on.
#[derive(Clone)]
enum Screen {
    /// A terminal.
    Terminal { lines: MultiProgress, is_coloured: bool },
    /// A file, or another program.
    Log,
}

/// A run that is shown. Its drop removes it.
struct Shown {
    task: JoinHandle<()>,
    bars: Vec<ProgressBar>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.task.abort();
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
    }
}

impl Live {
    /// Shows runs, unless that is not wanted.
    pub(super) fn new(is_quiet: bool) -> Self {
        let stderr = std::io::stderr();
        let screen = if stderr.is_terminal() {
            Screen::Terminal { lines: MultiProgress::new(), is_coloured: is_coloured(&stderr) }
        } else {
            Screen::Log
        };
        Self { screen: Some(screen).filter(|_| !is_quiet), shown: Mutex::default(), faults: Arc::default() }
    }

    /// Shows a run until it ends, or the next one begins.
    pub(super) fn show(&self, name: &str, scenario: &Scenario, progress: &Arc<Progress>) {
        self.clear();
        self.breaks(&FaultJournal::default());
        let Some(screen) = &self.screen else { return };
        let bars = screen.bars(scenario);
        let run = Run {
            name: name.to_owned(),
            amount: scenario.amount,
            progress: Arc::clone(progress),
            begun: None,
            latest: None,
            faults: Arc::clone(&self.faults),
            told: 0,
        };
        let task = tokio::spawn(run.watch(screen.clone(), bars.clone()));
        *self.shown() = Some(Shown { task, bars });
    }

    /// Tells, too, what is broken in the run, by its journal.
    pub(super) fn breaks(&self, faults: &FaultJournal) {
        *self.faults.lock().expect("nothing panics while it holds this") = faults.clone();
    }

    /// Shows nothing any more.
    pub(super) fn clear(&self) {
        self.shown().take();
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Option<Shown>> {
        self.shown.lock().expect("nothing panics while it holds this")
    }
}

impl Watcher for Live {
    fn begins(&self, strategy: StrategyName, scenario: &Scenario, progress: &Arc<Progress>) {
        self.show(strategy.as_str(), scenario, progress);
    }

    fn fires(&self, _: &[Client], faults: &FaultJournal) {
        self.breaks(faults);
    }

    fn ends(&self, run: &RunReport) {
        self.clear();
        if let Some(screen) = &self.screen {
            screen.say(&ended(run));
        }
    }
}

/// A run that has ended, in a line.
fn ended(run: &RunReport) -> String {
    let verdict = match run.oversold() {
        units @ 1.. => format!("OVERSOLD by {units}"),
        _ => run.verdict.to_string(),
    };
    let sold = run.sold_in_words(|units| units.to_string());
    format!("{}: {verdict} · {sold} · {:.0} orders/s", run.name(), run.accepted_per_second)
}

impl Screen {
    /// The lines of a run: how far it has come, what it costs, what is sold.
    fn bars(&self, scenario: &Scenario) -> Vec<ProgressBar> {
        let Self::Terminal { lines, .. } = self else { return Vec::new() };
        let style = |template| ProgressStyle::with_template(template).expect("the template is well formed");
        let length = match scenario.amount {
            Amount::Orders(orders) => orders,
            Amount::For(time) => u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        };
        let bar = ProgressBar::new(length).with_style(style("{prefix:12} {wide_bar} {msg}"));
        let line = || ProgressBar::new_spinner().with_style(style("{prefix:12} {msg}"));
        [bar, line(), line()].into_iter().map(|bar| lines.add(bar)).collect()
    }

    /// A line that stays.
    fn say(&self, line: &str) {
        match self {
            // Where that cannot be written, there is nowhere to say so.
            Self::Terminal { lines, .. } => drop(lines.println(line)),
            Self::Log => eprintln!("{line}"),
        }
    }
}

/// A run that goes on.
struct Run {
    name: String,
    amount: Amount,
    progress: Arc<Progress>,
    begun: Option<Instant>,
    /// The figures that were taken last, and when.
    latest: Option<(Instant, Figures)>,
    faults: Arc<Mutex<FaultJournal>>,
    /// How many of the faults were told.
    told: usize,
}

/// What is shown of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    /// Confirmed orders per second, lately.
    rate: f64,
    latency_ms: Option<IntervalLatency>,
    units_sold: i64,
    supply: i64,
    oversold: i64,
    lost_updates: u64,
}

impl Figures {
    /// The figures at the end of an interval that was so long.
    fn of(sample: &Sample, interval: Duration) -> Self {
        let expected = sample.interval.expected;
        Self {
            rate: sample.interval.accepted as f64 / interval.as_secs_f64().max(1e-3),
            latency_ms: sample.interval.latency_ms,
            units_sold: sample.supply - expected,
            supply: sample.supply,
            oversold: sample.oversold,
            lost_updates: sample.lost_updates,
        }
    }

    /// `812 orders/s now, p50 4.1 ms, p99 21.0 ms`.
    fn cost(&self) -> String {
        let latency =
            self.latency_ms.map(|latency| format!(", p50 {:.1} ms, p99 {:.1} ms", latency.p50, latency.p99));
        format!("{:.0} orders/s now{}", self.rate, latency.unwrap_or_default())
    }

    /// `1234 sold of 2000, oversold 0, lost updates 0`.
    fn sold(&self, is_coloured: bool) -> String {
        let alarm = |text: String, is_wrong: bool| match is_wrong && is_coloured {
            true => format!("\x1b[1;31m{text}\x1b[0m"),
            false => text,
        };
        format!(
            "{} sold of {}, {}, {}",
            self.units_sold,
            self.supply,
            alarm(format!("oversold {}", self.oversold), self.oversold > 0),
            alarm(format!("lost updates {}", self.lost_updates), self.lost_updates > 0)
        )
    }
}

impl Run {
    async fn watch(mut self, screen: Screen, bars: Vec<ProgressBar>) {
        let mut next_line = Instant::now() + LINE_EVERY;
        loop {
            self.sample();
            for fault in self.new_faults() {
                screen.say(&fault);
            }
            match &screen {
                Screen::Terminal { is_coloured, .. } => self.draw(&bars, *is_coloured),
                Screen::Log if Instant::now() >= next_line => {
                    next_line += LINE_EVERY;
                    screen.say(&self.in_a_line());
                }
                Screen::Log => {}
            }
            tokio::time::sleep(SAMPLED).await;
        }
    }

    fn sample(&mut self) {
        let now = Instant::now();
        if self.begun.is_none() && self.progress.sent() > 0 {
            self.begun = Some(now);
        }
        let since = self.latest.map_or(SAMPLED, |(then, _)| now - then);
        self.latest = Some((now, Figures::of(&self.progress.sample(), since)));
    }

    /// A line for each fault that was injected since the last time: `redis: 1.0 s: replica-2 is stopped`.
    fn new_faults(&mut self) -> Vec<String> {
        let marks = self.faults.lock().expect("nothing panics while it holds this").marks();
        let line = |mark: &FaultMark| format!("{}: {:.1} s: {}", self.name, mark.at_ms / 1e3, mark.what);
        let lines = marks.iter().skip(self.told).map(line).collect();
        self.told = self.told.max(marks.len());
        lines
    }

    fn draw(&self, bars: &[ProgressBar], is_coloured: bool) {
        let ([bar, cost, sold], Some((_, figures))) = (bars, &self.latest) else { return };
        bar.set_prefix(self.name.clone());
        let Some(begun) = self.begun else {
            bar.set_message("is being started");
            return;
        };
        bar.set_position(match self.amount {
            Amount::Orders(_) => self.progress.done(),
            Amount::For(_) => u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        bar.set_message(self.so_far());
        cost.set_message(figures.cost());
        sold.set_message(figures.sold(is_coloured));
    }

    /// `1300 of 4000 orders`, or `3 of 10 s`.
    fn so_far(&self) -> String {
        match self.amount {
            Amount::Orders(orders) => format!("{} of {orders} orders", self.progress.done()),
            Amount::For(time) => {
                let seconds = self.begun.map_or(0, |begun| begun.elapsed().as_secs());
                format!("{seconds} of {:.0} s", time.as_secs_f64())
            }
        }
    }

    fn in_a_line(&self) -> String {
        match (self.begun, &self.latest) {
            (Some(_), Some((_, figures))) => {
                format!("{}: {}, {}, {}", self.name, self.so_far(), figures.cost(), figures.sold(false))
            }
            _ => format!("{}: is being started", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use loadtest::series::Interval;

    use super::*;

    #[test]
    fn an_oversell_is_told_the_moment_it_is_seen_and_in_red() {
        let interval = Interval { accepted: 50, expected: -3, ..Interval::default() };
        let sample = |expected| Sample {
            interval: Interval { expected, ..interval.clone() },
            lost_updates: 0,
            counterexample: None,
            supply: 100,
            oversold: -expected,
        };
        let figures = |expected| Figures::of(&sample(expected), Duration::from_millis(250));
        assert_eq!(figures(-3).cost(), "200 orders/s now");
        assert_eq!(figures(-3).sold(false), "103 sold of 100, oversold 3, lost updates 0");
        assert!(figures(-3).sold(true).contains("\x1b[1;31moversold 3\x1b[0m"));
        assert_eq!(figures(0).sold(true), "100 sold of 100, oversold 0, lost updates 0");
    }
}
