//! The locking strategy that a report is on.

use std::fmt;

use order_service::config::StrategyName;
use serde::{Deserialize, Serialize};

/// A locking strategy: one of this service's, or one of another service that keeps the same contract. In a
/// report it is its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Strategy {
    /// One of this service's.
    Known(StrategyName),
    /// What another service calls its own.
    Other(String),
}

impl Strategy {
    /// Whether there is a lock that replicas wait for and hold. What is not known here is taken to have one.
    pub fn has_lock(&self) -> bool {
        match self {
            Self::Known(name) => name.has_lock(),
            Self::Other(_) => true,
        }
    }

    /// Whether so many replicas are expected to sell no more than there is.
    pub fn is_right_on(&self, replicas: usize) -> bool {
        match self {
            Self::Known(name) => name.is_right_on(replicas),
            Self::Other(_) => true,
        }
    }
}

impl PartialEq<StrategyName> for Strategy {
    fn eq(&self, name: &StrategyName) -> bool {
        matches!(self, Self::Known(own) if own == name)
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(name) => name.fmt(f),
            Self::Other(name) => f.pad(name),
        }
    }
}

impl From<StrategyName> for Strategy {
    fn from(name: StrategyName) -> Self {
        Self::Known(name)
    }
}

impl From<String> for Strategy {
    fn from(name: String) -> Self {
        name.parse().map_or(Self::Other(name), Self::Known)
    }
}

impl From<Strategy> for String {
    fn from(strategy: Strategy) -> Self {
        strategy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_is_its_name_and_one_of_another_service_is_kept() {
        for name in ["redis", "pessimistic"] {
            let strategy: Strategy = serde_json::from_value(name.into()).unwrap();
            assert_eq!(strategy == StrategyName::Redis, name == "redis");
            assert_eq!(serde_json::to_value(&strategy).unwrap(), name);
        }
    }
}
