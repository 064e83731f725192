//! The decision: who gets what, first come first served. Pure; the locks exist so that what it is
//! given is still true when its result is written.

use std::fmt;
use std::str::FromStr;

/// What a product row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StockLevel {
    /// Units that can still be sold.
    pub stock: i64,
    /// How many changes the stock has seen.
    pub version: i64,
    /// Units ever put in stock.
    pub supply: i64,
}

/// As it is noted for the next holder of the product's lock: "stock version supply".
impl fmt::Display for StockLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.stock, self.version, self.supply)
    }
}

impl FromStr for StockLevel {
    type Err = NotALevel;

    fn from_str(text: &str) -> Result<Self, NotALevel> {
        let mut numbers = text.split(' ').map(|number| number.parse().map_err(|_| NotALevel));
        let mut next = || numbers.next().unwrap_or(Err(NotALevel));
        let level = Self { stock: next()?, version: next()?, supply: next()? };
        if numbers.next().is_none() { Ok(level) } else { Err(NotALevel) }
    }
}

/// A text that is not a stock level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stock level")]
pub struct NotALevel;

/// What is to be done to the stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Take this many units.
    Sell(i64),
    /// Take nothing, provided that there are this many units.
    Check(i64),
    /// Put back this many units of an order that has ended.
    Return(i64),
    /// Add this many new units.
    Add(i64),
    /// Reset to this many units.
    Reset(i64),
}

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The stock changes from `stock_before` to `stock_after`, and that makes `version`.
    Done {
        /// The stock that the change starts from.
        stock_before: i64,
        /// The stock that it leaves.
        stock_after: i64,
        /// The version of the product that it makes.
        version: i64,
    },
    /// There were only `available` units when the product was at `version`.
    Insufficient {
        /// Units there were.
        available: i64,
        /// The version at which there were so many.
        version: i64,
    },
}

/// Decides the operations in their order, each on what the ones before it left; returns the decision of each,
/// and what the product row has to become.
///
/// Every change makes a version of its own, also one that leaves the stock as it is: so versions put the
/// changes of a product in one order.
pub fn decide(mut level: StockLevel, operations: &[Operation]) -> (Vec<Decision>, StockLevel) {
    let mut decide_one = |operation: &Operation| {
        let before = level;
        match *operation {
            Operation::Sell(units) | Operation::Check(units) if units > before.stock => {
                return Decision::Insufficient { available: before.stock, version: before.version };
            }
            Operation::Sell(units) => level.stock -= units,
            Operation::Check(_) => {}
            Operation::Return(units) => level.stock += units,
            Operation::Add(units) => {
                level.stock += units;
                level.supply += units;
            }
            Operation::Reset(units) => {
                level.stock = units;
                level.supply = units;
            }
        }
        level.version += 1;
        Decision::Done { stock_before: before.stock, stock_after: level.stock, version: level.version }
    };
    let decisions = operations.iter().map(&mut decide_one).collect();
    (decisions, level)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level(stock: i64) -> StockLevel {
        StockLevel { stock, version: 7, supply: stock }
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            8 => (1..20_i64).prop_map(Operation::Sell),
            2 => (0..20_i64).prop_map(Operation::Check),
            1 => (1..20_i64).prop_map(Operation::Return),
            1 => (1..20_i64).prop_map(Operation::Add),
        ]
    }

    #[test]
    fn the_course_s_shop_sells_two_dryers_and_not_three() {
        let (decisions, after) =
            decide(level(2), &[Operation::Sell(1), Operation::Sell(2), Operation::Sell(1)]);
        assert_eq!(
            decisions,
            [
                Decision::Done { stock_before: 2, stock_after: 1, version: 8 },
                Decision::Insufficient { available: 1, version: 8 },
                Decision::Done { stock_before: 1, stock_after: 0, version: 9 },
            ]
        );
        assert_eq!(after, StockLevel { stock: 0, version: 9, supply: 2 });
    }

    #[test]
    fn a_reset_forgets_what_was_sold() {
        let (_, after) = decide(level(2), &[Operation::Sell(2), Operation::Reset(5)]);
        assert_eq!(after, StockLevel { stock: 5, version: 9, supply: 5 });
    }

    proptest! {
        #[test]
        fn never_sells_more_than_the_stock(
            stock in 0..200_i64,
            operations in prop::collection::vec(1..20_i64, 0..100),
        ) {
            let operations: Vec<_> = operations.into_iter().map(Operation::Sell).collect();
            let (decisions, after) = decide(level(stock), &operations);
            let units = |(decision, operation): (&Decision, &Operation)| match (decision, operation) {
                (Decision::Done { .. }, Operation::Sell(units)) => *units,
                _ => 0,
            };
            let sold: i64 = decisions.iter().zip(&operations).map(units).sum();
            prop_assert!(sold <= stock);
            prop_assert_eq!(after.stock, stock - sold);
        }

        #[test]
        fn a_refusal_is_true_at_its_moment_and_a_sale_is_accounted_for(
            stock in 0..200_i64,
            operations in prop::collection::vec(operation(), 0..100),
        ) {
            let (decisions, _) = decide(level(stock), &operations);
            let mut now = level(stock);
            for (decision, operation) in decisions.iter().zip(&operations) {
                let (delta, needed) = match *operation {
                    Operation::Sell(units) => (-units, units),
                    Operation::Check(units) => (0, units),
                    Operation::Return(units) | Operation::Add(units) => (units, 0),
                    Operation::Reset(_) => unreachable!("not generated"),
                };
                match *decision {
                    Decision::Done { stock_before, stock_after, version } => {
                        let expected = (now.stock, now.stock + delta, now.version + 1);
                        prop_assert_eq!((stock_before, stock_after, version), expected);
                        prop_assert!(stock_after >= 0);
                        now.stock = stock_after;
                        now.version = version;
                    }
                    Decision::Insufficient { available, version } => {
                        prop_assert!(needed > available);
                        prop_assert_eq!((available, version), (now.stock, now.version));
                    }
                }
            }
        }

        #[test]
        fn any_split_into_batches_decides_the_same(
            stock in 0..200_i64,
            operations in prop::collection::vec(operation(), 0..100),
            cut in 0..100_usize,
        ) {
            let cut = cut.min(operations.len());
            let (mut first, between) = decide(level(stock), &operations[..cut]);
            let (second, after) = decide(between, &operations[cut..]);
            first.extend(second);
            prop_assert_eq!((first, after), decide(level(stock), &operations));
        }
    }
}
