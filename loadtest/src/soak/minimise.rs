//! Makes a round that fails smaller, as long as it still fails.
//!
//! Faults are dropped by the algorithm *ddmin* (Zeller and Hildebrandt, 2002: parts, then all but one part,
//! then smaller parts); then the load is halved. Rounds are races, so one counts as failing when it fails in
//! any of a few tries.

use std::time::Duration;

use tokio::time::Instant;

use crate::faults::Fault;

/// How often a smaller round is tried before it counts as one that does not fail.
const TRIES: usize = 3;

/// The fewest orders, and the fewest buyers, that are tried.
const FEWEST: (u64, usize) = (50, 2);

/// How long a smaller round goes on after its last fault.
const AFTERMATH: Duration = Duration::from_secs(8);

/// What can be made smaller of a round.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The faults.
    pub faults: Vec<Fault>,
    /// How many orders.
    pub orders: u64,
    /// How many buyers at the same time.
    pub buyers: usize,
}

/// The smallest case that was found to fail, at `rate` orders per second; `None` if not even `case` failed
/// again. From `give_up` on, what was found is it.
pub async fn minimise(
    case: Case,
    rate: f64,
    give_up: Instant,
    mut fails: impl AsyncFnMut(&Case) -> bool,
) -> Option<Case> {
    let mut search = async |case: &Case| {
        for _ in 0..TRIES {
            if Instant::now() >= give_up {
                return false;
            }
            if fails(case).await {
                return true;
            }
        }
        false
    };
    if !search(&case).await {
        return None;
    }
    let mut smallest = case;
    let of = |faults: Vec<Fault>, than: &Case| {
        // Nothing is to be seen long after the last of them.
        let last = faults.iter().map(|fault| fault.at).max().unwrap_or_default() + AFTERMATH;
        let orders = than.orders.min((last.as_secs_f64() * rate).ceil() as u64);
        Case { faults, orders, ..*than }
    };
    // Perhaps they have nothing to do with it.
    let none = of(Vec::new(), &smallest);
    if !smallest.faults.is_empty() && search(&none).await {
        smallest = none;
    }
    let mut parts = 2;
    while smallest.faults.len() > 1 {
        let mut smaller = None;
        for candidate in candidates(&smallest.faults, parts) {
            let candidate = of(candidate, &smallest);
            if search(&candidate).await {
                smaller = Some(candidate);
                break;
            }
        }
        match smaller {
            Some(found) => {
                smallest = found;
                parts = 2;
            }
            None if parts >= smallest.faults.len() => break,
            None => parts = (parts * 2).min(smallest.faults.len()),
        }
    }
    while smallest.orders / 2 >= FEWEST.0 {
        let half = Case { orders: smallest.orders / 2, ..smallest.clone() };
        if !search(&half).await {
            break;
        }
        smallest = half;
    }
    while smallest.buyers / 2 >= FEWEST.1 {
        let half = Case { buyers: smallest.buyers / 2, ..smallest.clone() };
        if !search(&half).await {
            break;
        }
        smallest = half;
    }
    Some(smallest)
}

/// Each of so many parts, and all without each.
fn candidates(faults: &[Fault], parts: usize) -> Vec<Vec<Fault>> {
    let length = faults.len().div_ceil(parts).max(1);
    let alone = faults.chunks(length).map(<[Fault]>::to_vec);
    let starts = (0..faults.len()).step_by(length);
    let without = starts.map(|start| {
        let end = (start + length).min(faults.len());
        [&faults[..start], &faults[end..]].concat()
    });
    // Of two parts, each is all without the other.
    alone.chain(without.filter(|_| parts > 2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::What;

    fn case(faults: usize) -> Case {
        let fault = |number| Fault { what: What::Kill, at: Duration::from_secs(number as u64) };
        Case { faults: (0..faults).map(fault).collect(), orders: 40_000, buyers: 128 }
    }

    fn seconds(case: &Case) -> Vec<u64> {
        case.faults.iter().map(|fault| fault.at.as_secs()).collect()
    }

    async fn smallest(case: Case, mut fails: impl FnMut(&Case) -> bool) -> Option<Case> {
        let give_up = Instant::now() + Duration::from_secs(60);
        minimise(case, 1_000.0, give_up, async |case: &Case| fails(case)).await
    }

    #[tokio::test]
    async fn what_does_not_matter_is_dropped() {
        let needs = |case: &Case| seconds(case).contains(&7) && seconds(case).contains(&29);
        let found = smallest(case(40), |case| needs(case) && case.orders >= 1_000 && case.buyers > 20).await;
        let found = found.expect("it fails");
        assert_eq!(seconds(&found), [7, 29]);
        assert!((1_000..2_000).contains(&found.orders), "{found:?}");
        assert_eq!(found.buyers, 32);
    }

    #[tokio::test]
    async fn what_fails_without_any_fault_has_none() {
        let found = smallest(case(40), |case| case.buyers >= 2).await.expect("it fails");
        assert_eq!((found.faults.len(), found.orders, found.buyers), (0, 62, 2));
    }

    #[tokio::test]
    async fn what_fails_now_and_then_is_tried_again() {
        let mut tries = 0;
        let found = smallest(case(16), |case| {
            tries += 1;
            seconds(case).contains(&3) && tries % 2 == 0
        });
        assert_eq!(seconds(&found.await.expect("it fails")), [3]);
        assert_eq!(smallest(case(16), |_| false).await, None);
    }
}
