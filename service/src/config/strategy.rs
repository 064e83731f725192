//! The table of the strategies: what each is, and what it needs. Whatever lists them, lists
//! [`StrategyName::ALL`]; whatever depends on one, asks its row.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Guard, did_you_mean};

/// The names of the strategies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StrategyName {
    /// No lock and no guard: the broken shop.
    None,
    /// A lock inside one process, and no guard: right on one replica only.
    Local,
    /// A lock table: insert the record to lock, delete it to unlock.
    Database,
    /// A key that is set when absent, with expiry and owner.
    Redis,
    /// Ephemeral sequential nodes, each watching the one before.
    Zookeeper,
    /// A key on a lease for each attempt, each waiter watching the one before.
    Etcd,
    /// The product row itself: `select … for update` (SQLite: `begin immediate`).
    Row,
    /// No lock; the guard and retries.
    Optimistic,
}

/// Whom a strategy's lock keeps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// No holder: there is no lock, and all have a lease at once.
    NoHolder,
    /// The other holders in the same process.
    Process,
    /// The other holders in all processes that reach what it is kept on.
    Everywhere,
}

/// Which guards a strategy may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardRule {
    /// None: it shows what happens without.
    Without,
    /// What the configuration says; the version when it says nothing.
    Configured,
    /// The version: the strategy is the guard.
    Always,
}

/// The server that a strategy's lock is kept on, apart from the store's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockServer {
    /// What kind of server it is: `redis`.
    pub kind: &'static str,
    /// The key of the configuration that says where it is.
    pub key: &'static str,
}

/// What there is to know of a strategy.
struct Row {
    name: &'static str,
    summary: &'static str,
    scope: Scope,
    /// The key of the configuration that says how long a lock is kept that its holder does not renew.
    lease_key: Option<&'static str>,
    server: Option<LockServer>,
    guard: GuardRule,
    combines: bool,
    locks_rows: bool,
}

/// No lock; the others differ from it.
const PLAIN: Row = Row {
    name: "",
    summary: "",
    scope: Scope::NoHolder,
    lease_key: None,
    server: None,
    guard: GuardRule::Configured,
    combines: true,
    locks_rows: false,
};

impl StrategyName {
    /// All strategies, in the order of the course and then of its readers.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Local,
        Self::Database,
        Self::Redis,
        Self::Zookeeper,
        Self::Etcd,
        Self::Row,
        Self::Optimistic,
    ];

    /// The table: a strategy without a row does not compile.
    const fn row(self) -> Row {
        match self {
            Self::None => Row {
                name: "none",
                summary: "no lock and no guard: the broken shop",
                guard: GuardRule::Without,
                combines: false,
                ..PLAIN
            },
            Self::Local => Row {
                name: "local",
                summary: "a lock inside one process, and no guard: right on one replica only",
                scope: Scope::Process,
                guard: GuardRule::Without,
                ..PLAIN
            },
            Self::Database => Row {
                name: "database",
                summary: "a lock table: insert the record to lock, delete it to unlock",
                scope: Scope::Everywhere,
                lease_key: Some("lock.database.lease"),
                ..PLAIN
            },
            Self::Redis => Row {
                name: "redis",
                summary: "a key in Redis that is set when absent, with expiry and owner",
                scope: Scope::Everywhere,
                lease_key: Some("lock.redis.lease"),
                server: Some(LockServer { kind: "redis", key: "lock.redis.url" }),
                ..PLAIN
            },
            Self::Zookeeper => Row {
                name: "zookeeper",
                summary: "ephemeral sequential nodes in ZooKeeper, each watching the one before",
                scope: Scope::Everywhere,
                lease_key: Some("lock.zookeeper.session_timeout"),
                server: Some(LockServer { kind: "zookeeper", key: "lock.zookeeper.servers" }),
                ..PLAIN
            },
            Self::Etcd => Row {
                name: "etcd",
                summary: "a key in etcd on a lease for each attempt, each waiter watching the one before",
                scope: Scope::Everywhere,
                lease_key: Some("lock.etcd.lease"),
                server: Some(LockServer { kind: "etcd", key: "lock.etcd.url" }),
                ..PLAIN
            },
            Self::Row => Row {
                name: "row",
                summary: "the product row itself: select … for update (SQLite: begin immediate)",
                locks_rows: true,
                ..PLAIN
            },
            Self::Optimistic => Row {
                name: "optimistic",
                summary: "no lock; a version in the product row, and retries",
                guard: GuardRule::Always,
                ..PLAIN
            },
        }
    }

    /// The strategies whose locks are kept for a lease, which ends unless its holder renews it.
    pub fn leased() -> Vec<Self> {
        Self::ALL.into_iter().filter(|name| name.lease_key().is_some()).collect()
    }

    /// The strategies that sell right on any number of replicas.
    pub fn right() -> Vec<Self> {
        Self::ALL.into_iter().filter(|name| name.is_right_on(usize::MAX)).collect()
    }

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// What it is, in a few words without a full stop.
    pub fn summary(self) -> &'static str {
        self.row().summary
    }

    /// Whom its lock keeps out.
    pub fn scope(self) -> Scope {
        self.row().scope
    }

    /// Whether there is a lock at all; without, all have a lease at once.
    pub fn has_lock(self) -> bool {
        self.scope() != Scope::NoHolder
    }

    /// The key of the configuration that says how long a lock is kept that its holder does not renew; `None`
    /// where there are no leases.
    pub fn lease_key(self) -> Option<&'static str> {
        self.row().lease_key
    }

    /// The server that its lock is kept on, where that is another than the store's.
    pub fn server(self) -> Option<LockServer> {
        self.row().server
    }

    /// Whether orders for one product are combined; without, all run at once.
    pub fn combines(self) -> bool {
        self.row().combines
    }

    /// Whether a product's row is locked from its read to its commit.
    pub fn locks_rows(self) -> bool {
        self.row().locks_rows
    }

    /// Which guards it may have.
    pub fn guard_rule(self) -> GuardRule {
        self.row().guard
    }

    /// The guard that is in force when the configuration asks for `configured`.
    pub fn guard(self, configured: Option<Guard>) -> Guard {
        match self.guard_rule() {
            GuardRule::Without => Guard::Off,
            GuardRule::Configured => configured.unwrap_or(Guard::Version),
            GuardRule::Always => Guard::Version,
        }
    }

    /// Whether so many replicas sell no more than there is, with the guard that it has when none is
    /// configured.
    pub fn is_right_on(self, replicas: usize) -> bool {
        self.guard(None) == Guard::Version || (self.scope() == Scope::Process && replicas <= 1)
    }
}

impl fmt::Display for StrategyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for StrategyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Self::ALL.map(Self::as_str).join(", ");
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| {
            let suggestion = did_you_mean(text, Self::ALL.map(Self::as_str));
            format!("no strategy {text:?}; there are {all}{suggestion}")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Config, Sources, keys};

    #[test]
    fn every_strategy_has_a_row_that_the_configuration_agrees_with() {
        let names: BTreeSet<_> = StrategyName::ALL.map(StrategyName::as_str).into();
        assert_eq!(names.len(), StrategyName::ALL.len(), "a name for each");
        let keys = keys();
        let help = &keys.iter().find(|key| key.path == "lock.strategy").expect("it is a key").help;
        for strategy in StrategyName::ALL {
            assert_eq!(serde_json::to_value(strategy).unwrap(), strategy.as_str());
            assert_eq!(strategy.as_str().parse(), Ok(strategy));
            assert!(help.contains(strategy.as_str()), "{help:?} does not name {strategy}");
            assert!(!strategy.summary().is_empty(), "{strategy}");
            let server_key = strategy.server().map(|server| server.key);
            for needed in strategy.lease_key().into_iter().chain(server_key) {
                assert!(keys.iter().any(|key| key.path == needed), "{strategy}: {needed} is no key");
            }
            if let Some(lease_key) = strategy.lease_key() {
                let overrides = vec![(lease_key.to_owned(), "1ms".to_owned())];
                let refused = Config::load(&Sources { overrides, ..Sources::default() });
                assert_eq!(refused.expect_err("it is too short").key, lease_key);
            }
        }
    }

    #[test]
    fn all_names_are_all_that_can_be_configured() {
        let schema = serde_json::to_value(schemars::schema_for!(StrategyName)).unwrap();
        let variants = schema["oneOf"].as_array().expect("an enumeration");
        let variants: Vec<_> = variants.iter().filter_map(|variant| variant["const"].as_str()).collect();
        assert_eq!(variants, StrategyName::ALL.map(StrategyName::as_str));
    }

    #[test]
    fn who_sells_right_follows_from_lock_and_guard() {
        use StrategyName::{Local, None, Optimistic, Row};
        for strategy in StrategyName::ALL.into_iter().filter(|name| ![None, Local].contains(name)) {
            assert!(strategy.is_right_on(64), "{strategy}");
            assert_eq!(strategy.lease_key().is_none(), [Row, Optimistic].contains(&strategy), "{strategy}");
        }
        assert!(Local.is_right_on(1) && !Local.is_right_on(2) && !None.is_right_on(1));
    }
}
