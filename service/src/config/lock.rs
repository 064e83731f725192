//! How changes of stock exclude each other: the strategy, and what each needs.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EtcdSection, RedisSection, StrategyName, ZookeeperSection};

/// How changes of stock exclude each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LockSection {
    /// The locking strategy: none, local, database, redis, zookeeper, etcd, row or
    /// optimistic.
    pub strategy: StrategyName,
    /// The longest time that an order waits for the lock.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub wait: Duration,
    /// The lock table, for strategy "database".
    pub database: DatabaseSection,
    /// Redis, for strategy "redis".
    pub redis: Option<RedisSection>,
    /// ZooKeeper, for strategy "zookeeper".
    pub zookeeper: Option<ZookeeperSection>,
    /// etcd, for strategy "etcd".
    pub etcd: Option<EtcdSection>,
}

impl Default for LockSection {
    fn default() -> Self {
        Self {
            strategy: StrategyName::Database,
            wait: Duration::from_secs(2),
            database: DatabaseSection::default(),
            redis: None,
            zookeeper: None,
            etcd: None,
        }
    }
}

impl LockSection {
    /// The same with a section for every strategy: what there is to be configured.
    pub(super) fn with_all_sections(self) -> Self {
        Self {
            redis: Some(self.redis.unwrap_or_default()),
            zookeeper: Some(self.zookeeper.unwrap_or_default()),
            etcd: Some(self.etcd.unwrap_or_default()),
            ..self
        }
    }

    /// How long leases are that end, with the keys that say so.
    pub(super) fn leases(&self) -> Vec<(&'static str, Duration)> {
        let leases = [
            ("lock.database.lease", self.database.lease.duration()),
            ("lock.redis.lease", self.redis.as_ref().map(|redis| redis.lease)),
            (
                "lock.zookeeper.session_timeout",
                self.zookeeper.as_ref().map(|zookeeper| zookeeper.session_timeout),
            ),
            ("lock.etcd.lease", self.etcd.as_ref().map(|etcd| etcd.lease)),
        ];
        leases.into_iter().filter_map(|(key, lease)| Some((key, lease?))).collect()
    }

    /// The strategy with all that it needs. A section that is not given has the defaults that the help shows.
    pub(super) fn config(&self) -> LockConfig {
        match self.strategy {
            StrategyName::None => LockConfig::None,
            StrategyName::Local => LockConfig::Local,
            StrategyName::Database => LockConfig::Database { lease: self.database.lease },
            StrategyName::Redis => LockConfig::Redis(self.redis.clone().unwrap_or_default()),
            StrategyName::Zookeeper => LockConfig::Zookeeper(self.zookeeper.clone().unwrap_or_default()),
            StrategyName::Etcd => LockConfig::Etcd(self.etcd.clone().unwrap_or_default()),
            StrategyName::Row => LockConfig::Row,
            StrategyName::Optimistic => LockConfig::Optimistic,
        }
    }
}

/// How long a lock that its holder does not renew is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub enum LeaseTime {
    /// For ever: a crashed holder's lock stays until it is deleted by hand.
    Never,
    /// So long after the last renewal.
    For(Duration),
}

impl LeaseTime {
    /// The duration, where the lease ends at all.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::For(duration) => Some(duration),
        }
    }
}

impl Serialize for LeaseTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Never => serializer.serialize_str("never"),
            Self::For(duration) => humantime_serde::serialize(duration, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for LeaseTime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "never" {
            return Ok(Self::Never);
        }
        let expected = || serde::de::Error::custom(format!("expected a duration or \"never\", not {text:?}"));
        humantime::parse_duration(&text).map(Self::For).map_err(|_| expected())
    }
}

/// The lock table, for strategy "database".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSection {
    /// How long a crashed holder's record keeps others out: a duration, or "never".
    pub lease: LeaseTime,
}

impl Default for DatabaseSection {
    fn default() -> Self {
        Self { lease: LeaseTime::For(Duration::from_secs(10)) }
    }
}

/// A locking strategy with all that it needs, so that what cannot be configured cannot exist.
#[derive(Debug, Clone, PartialEq)]
pub enum LockConfig {
    /// No lock, no guard.
    None,
    /// A lock inside one process, no guard.
    Local,
    /// A lock table in the store's database.
    Database {
        /// How long a record is good for after its last renewal.
        lease: LeaseTime,
    },
    /// A key in Redis, or in a majority of several.
    Redis(RedisSection),
    /// Nodes in ZooKeeper.
    Zookeeper(ZookeeperSection),
    /// Keys in etcd.
    Etcd(EtcdSection),
    /// The row lock of the store's transaction.
    Row,
    /// The guard and retries.
    Optimistic,
}
