//! How far the figures of runs are from those of others, and whether that is more than they vary by
//! themselves.

use crate::report::RunReport;
use crate::spread::Spread;
use crate::verdict::Verdict;

/// A figure of a run.
pub(super) type Figure = fn(&RunReport) -> f64;

/// The change of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    /// A share of the figure that it is compared with: 0.1 is a tenth more.
    By(f64, Noise),
    /// One of the two is broken: how fast a shop sells what is not there means nothing.
    Broken,
    /// A run of the two says nothing of speed, for this reason.
    Unfit(&'static str),
    /// There is nothing to compare with.
    Unknown,
}

/// How a change stands to the spread of repetitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noise {
    /// One of the two was run once: nobody knows how far it varies.
    Unknown,
    /// Their repetitions overlap.
    Within,
    /// All repetitions of the one lie on the same side of all of the other; but there are so few of them that
    /// this happens by chance in more than one of thirty cases.
    Few,
    /// All repetitions of the one lie on the same side of all of the other.
    Beyond,
}

/// What the repetitions of a run say of a figure; `None` without a run.
pub(super) fn spread(runs: &[&RunReport], of: Figure) -> Option<Spread> {
    (!runs.is_empty()).then(|| Spread::of(runs.iter().map(|run| of(run)).collect()))
}

/// Whether any of the runs is broken.
pub(super) fn is_broken(runs: &[&RunReport]) -> bool {
    runs.iter().any(|run| run.verdict == Verdict::Violated)
}

/// The change of a figure from the repetitions of one run to those of another.
pub(super) fn change(from: &[&RunReport], to: &[&RunReport], of: Figure) -> Change {
    if is_broken(from) || is_broken(to) {
        return Change::Broken;
    }
    if let Some(why) = from.iter().chain(to).find_map(|run| run.unfit()) {
        return Change::Unfit(why);
    }
    match (spread(from, of), spread(to, of)) {
        (Some(a), Some(b)) if a.median > 0.0 => {
            Change::By(b.median / a.median - 1.0, noise((a, from.len()), (b, to.len())))
        }
        _ => Change::Unknown,
    }
}

/// Of four and four from the same distribution, all of the one lie on the same side of all of the other in 2
/// of 70 cases.
const ENOUGH: usize = 4;

/// How the repetitions of two runs lie to each other.
fn noise((a, of_a): (Spread, usize), (b, of_b): (Spread, usize)) -> Noise {
    let is_apart = a.least > b.most || b.least > a.most;
    match of_a.min(of_b) {
        0 | 1 => Noise::Unknown,
        _ if !is_apart => Noise::Within,
        2..ENOUGH => Noise::Few,
        _ => Noise::Beyond,
    }
}

/// The repetition in the middle, by its orders per second: its curve stands for all.
pub(super) fn middle<'a>(runs: &[&'a RunReport]) -> Option<&'a RunReport> {
    let mut runs = runs.to_vec();
    runs.sort_by(|a, b| a.accepted_per_second.total_cmp(&b.accepted_per_second));
    runs.get(runs.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use order_service::config::StrategyName;

    use super::*;
    use crate::report::tests::run;

    #[test]
    fn runs_that_say_nothing_of_speed_are_not_compared_by_it() {
        let mut long = run(StrategyName::Row, 3, Verdict::Correct);
        long.availability.selling_ms = 5_000.0;
        let compared = |other: &RunReport| change(&[&long], &[other], |run| run.accepted_per_second);
        assert_eq!(compared(&long), Change::By(0.0, Noise::Unknown));
        let short = run(StrategyName::Row, 3, Verdict::Correct);
        assert_eq!(compared(&short), Change::Unfit("too short"));
        let stopped = RunReport { stopped: true, ..long.clone() };
        assert_eq!(compared(&stopped), Change::Unfit("stopped before its end"));
        let late = RunReport { generator_kept_up: false, ..long.clone() };
        assert_eq!(compared(&late), Change::Unfit("the generator was late"));
        let broken = RunReport { verdict: Verdict::Violated, ..long.clone() };
        assert_eq!(compared(&broken), Change::Broken);
    }

    #[test]
    fn a_change_is_more_than_noise_only_when_enough_repetitions_lie_apart() {
        let of = |figures: &[f64]| (Spread::of(figures.to_vec()), figures.len());
        let low = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(noise(of(&low), of(&[5.0, 6.0, 7.0, 8.0])), Noise::Beyond);
        assert_eq!(noise(of(&[5.0, 6.0, 7.0, 8.0]), of(&low)), Noise::Beyond);
        assert_eq!(noise(of(&low), of(&[4.0, 6.0, 7.0, 8.0])), Noise::Within);
        assert_eq!(noise(of(&low), of(&[5.0, 6.0, 7.0])), Noise::Few);
        assert_eq!(noise(of(&low[..2]), of(&[2.0, 9.0])), Noise::Within);
        assert_eq!(noise(of(&low), of(&[9.0])), Noise::Unknown);
    }
}
