//! The names of the checks.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a check is called in reports, and what has to hold for it to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckName {
    /// Something was sold, where there was something to sell.
    Exercised,
    /// No more units were sold than there were.
    NotOversold,
    /// The stock is what the orders leave of the supply.
    Balanced,
    /// Every confirmed order is in the database.
    NothingLost,
    /// What each confirmation said is what is stored.
    AnswersAsStored,
    /// Every order in the database was attempted.
    NothingInvented,
    /// No refused order is in the database.
    NothingRefusedWasSold,
    /// Every restock, cancellation and payment that was done is in the database, each once, and no other.
    AdjustmentsKept,
    /// Every order that had to be paid was paid, or cancelled, or expired, once, and its units are where they
    /// belong.
    ReservationsSettled,
    /// There is at most one order for each idempotency key, and repetitions are answered with it.
    OncePerKey,
    /// No two orders read the same stock at the same version.
    NoDuplicateReads,
    /// All operations on the stock fit one order that agrees with real time.
    Linearizable,
    /// Fencing tokens grow from hold to hold, and never go down along versions.
    TokensIncrease,
    /// Everything was sold that was wanted, and each refusal for want of stock was true.
    NoFalseSoldOut,
    /// Every fault struck while orders were being sold.
    FaultsStruck,
    /// Orders were sold whenever nothing was broken.
    Available,
    /// No two replicas had the lock at the same time.
    NoOverlappingHolds,
    /// Every attempt was answered in time, and the lock is free afterwards.
    AllAnswered,
    /// The same load breaks a shop without a lock.
    Sensitive,
    /// No replica ended but those that were killed on purpose.
    ReplicasSurvived,
}

impl CheckName {
    /// All checks, in the order in which reports show them.
    pub const ALL: [Self; 20] = [
        Self::Exercised,
        Self::NotOversold,
        Self::Balanced,
        Self::NothingLost,
        Self::AnswersAsStored,
        Self::NothingInvented,
        Self::NothingRefusedWasSold,
        Self::AdjustmentsKept,
        Self::ReservationsSettled,
        Self::OncePerKey,
        Self::NoDuplicateReads,
        Self::Linearizable,
        Self::TokensIncrease,
        Self::NoFalseSoldOut,
        Self::FaultsStruck,
        Self::Available,
        Self::NoOverlappingHolds,
        Self::AllAnswered,
        Self::Sensitive,
        Self::ReplicasSurvived,
    ];

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exercised => "exercised",
            Self::NotOversold => "not-oversold",
            Self::Balanced => "balanced",
            Self::NothingLost => "nothing-lost",
            Self::AnswersAsStored => "answers-as-stored",
            Self::NothingInvented => "nothing-invented",
            Self::NothingRefusedWasSold => "nothing-refused-was-sold",
            Self::AdjustmentsKept => "adjustments-kept",
            Self::ReservationsSettled => "reservations-settled",
            Self::OncePerKey => "once-per-key",
            Self::NoDuplicateReads => "no-duplicate-reads",
            Self::Linearizable => "linearizable",
            Self::TokensIncrease => "tokens-increase",
            Self::NoFalseSoldOut => "no-false-sold-out",
            Self::FaultsStruck => "faults-struck",
            Self::Available => "available",
            Self::NoOverlappingHolds => "no-overlapping-holds",
            Self::AllAnswered => "all-answered",
            Self::Sensitive => "sensitive",
            Self::ReplicasSurvived => "replicas-survived",
        }
    }

    /// Whether the want of a lock explains that the check fails. It explains these failures and no more.
    pub fn may_fail_without_lock(self) -> bool {
        matches!(
            self,
            Self::NotOversold
                | Self::Balanced
                | Self::NoDuplicateReads
                | Self::Linearizable
                | Self::NoFalseSoldOut
                | Self::TokensIncrease
                | Self::NoOverlappingHolds
        )
    }

    /// Whether what the check found shows how stock was oversold: figures and witnesses that are worth
    /// telling also where they were expected.
    pub fn is_witness(self) -> bool {
        matches!(self, Self::NotOversold | Self::NoDuplicateReads)
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_as_it_is_shown() {
        for name in CheckName::ALL {
            let written = serde_json::to_string(&name).unwrap();
            assert_eq!(written, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<CheckName>(&written).unwrap(), name);
        }
    }
}
