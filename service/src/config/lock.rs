//! How changes of stock exclude each other: the strategy, and what each needs.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, RedisSection, Secret, StrategyName};

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

/// ZooKeeper, for strategy "zookeeper".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ZookeeperSection {
    /// The ensemble: "host:port,host:port", with "/chroot" at the end if there is one.
    pub servers: String,
    /// The node under which the locks are; it is made when it is absent.
    pub root: String,
    /// "USER:PASSWORD" of the digest scheme; when it is set, only this user may see or change the locks.
    pub auth: Secret,
    /// How long a crashed holder's session, and so its node, outlives it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub session_timeout: Duration,
    /// What a waiter watches: its "predecessor", or all "siblings" (the herd).
    pub watch: Watch,
}

impl Default for ZookeeperSection {
    fn default() -> Self {
        Self {
            servers: "127.0.0.1:2181".into(),
            root: "/stocklock".into(),
            auth: Secret::default(),
            session_timeout: Duration::from_secs(6),
            watch: Watch::Predecessor,
        }
    }
}

impl ZookeeperSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let is_path = |path: &str| {
            path.starts_with('/') && (path == "/" || path[1..].split('/').all(|name| !name.is_empty()))
        };
        let chroot = self.servers.find('/').map(|slash| &self.servers[slash..]);
        if !is_path(&self.root) {
            return Err(ConfigError::new("lock.zookeeper.root", "must be a path such as /stocklock"));
        }
        // After the first path there would be another root for each server.
        let is_one_path = |chroot: &str| is_path(chroot) && !chroot.contains([',', ' ']);
        let is_host = |host: &str| !host.trim().is_empty() && !host.contains(char::is_whitespace);
        if !self.hosts().split(',').all(is_host) || chroot.is_some_and(|chroot| !is_one_path(chroot)) {
            let why = "must be host:port,host:port, with a path such as /shop at the end if there is one";
            return Err(ConfigError::new("lock.zookeeper.servers", why));
        }
        let auth = self.auth.reveal();
        if !auth.is_empty() && auth.find(':').unwrap_or_default() == 0 {
            return Err(ConfigError::new("lock.zookeeper.auth", "must be USER:PASSWORD"));
        }
        Ok(())
    }

    /// The servers, without the chroot.
    pub fn hosts(&self) -> &str {
        self.servers.split('/').next().unwrap_or_default()
    }

    /// The node under which the locks are, from the ensemble's own root.
    pub fn absolute_root(&self) -> String {
        let chroot = self.servers.find('/').map_or("", |slash| &self.servers[slash..]);
        let root = format!("{}{}", chroot.trim_end_matches('/'), self.root);
        root.trim_end_matches('/').into()
    }
}

/// What a waiter on ZooKeeper watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Watch {
    /// The node before its own.
    Predecessor,
    /// The whole directory.
    Siblings,
}

/// etcd, for strategy "etcd".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EtcdSection {
    /// The address of etcd 3.4 or later: "http://HOST:PORT", or those of several servers of one cluster, with
    /// commas between. It has to compact its history, in which every lock leaves two revisions.
    pub url: String,
    /// What the keys of the locks begin with; the key of this name itself says which data the server has.
    pub prefix: String,
    /// How long a crashed holder's key keeps others out. etcd counts whole seconds, to which this is rounded
    /// up, and may grant more: one and a half times its election time-out at least.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub lease: Duration,
}

impl Default for EtcdSection {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:2379".into(),
            prefix: "/stocklock".into(),
            lease: Duration::from_secs(10),
        }
    }
}

impl EtcdSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.authorities()?;
        let is_key = |prefix: &str| !prefix.is_empty() && !prefix.ends_with('/');
        if !is_key(&self.prefix) || self.prefix.chars().any(char::is_control) {
            let why = "must be a key such as /stocklock, without a slash at its end";
            return Err(ConfigError::new("lock.etcd.prefix", why));
        }
        Ok(())
    }

    /// The host and port of each server.
    pub fn authorities(&self) -> Result<Vec<&str>, ConfigError> {
        let why = "must be http://HOST:PORT, or several with commas between, without a path, a user or a \
                   password";
        let refused = || ConfigError::new("lock.etcd.url", why);
        self.url.split(',').map(|url| authority_of(url).ok_or_else(refused)).collect()
    }
}

/// The host and port of a URL that has nothing else.
fn authority_of(url: &str) -> Option<&str> {
    let authority = url.strip_prefix("http://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = authority.rsplit_once(':')?;
    let is_strange = |c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c);
    let is_one = !host.is_empty() && !authority.contains(is_strange) && port.parse::<u16>().is_ok();
    is_one.then_some(authority)
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
