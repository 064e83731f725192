//! The configuration: defaults, then `order-service.toml` (or `--config FILE`), then the environment
//! (`STOCKLOCK__SECTION__KEY`), then flags (`--section.key VALUE`). The later layer wins.
//!
//! There is one struct, [`Config`]. The doc comment of a field is its help text: `--help`, the flags and
//! the commented reference file are made from it.

mod admin;
mod checkout;
mod etcd;
mod keys;
mod lock;
mod log;
mod nearest;
mod redis;
mod refusal;
mod secrets;
mod server;
mod store;
mod strategy;
mod tls;
mod zookeeper;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::failpoint::Failpoint;
use crate::order::ProductRequest;

pub use admin::AdminSection;
pub use checkout::{CheckoutSection, DecideBy, Guard, PaymentRule};
pub use etcd::EtcdSection;
pub use keys::{ConfigKey, keys, reference};
pub use lock::{DatabaseSection, LeaseTime, LockConfig, LockSection};
pub use log::{LogFormat, LogSection, TelemetrySection};
pub use nearest::{did_you_mean, nearest};
pub use redis::{RedisSection, RedisUrls};
pub use secrets::Secret;
pub(crate) use secrets::{address_of, is_ambiguous};
pub use server::ServerSection;
pub use store::StoreSection;
pub use strategy::{GuardRule, LockServer, Scope, StrategyName};
pub(crate) use tls::TlsPem;
pub use zookeeper::{Watch, ZookeeperSection};

/// The file that is read when none is named and it exists.
pub const DEFAULT_FILE: &str = "order-service.toml";

/// The longest duration that makes sense for anything here.
const LONGEST: Duration = Duration::from_secs(3600);

/// Everything that can be chosen. Unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How the service is reached.
    pub server: ServerSection,
    /// Where products and orders are kept.
    pub store: StoreSection,
    /// How changes of stock exclude each other.
    pub lock: LockSection,
    /// How orders are combined and guarded.
    pub checkout: CheckoutSection,
    /// Who may change products.
    pub admin: AdminSection,
    /// What is logged, and how.
    pub log: LogSection,
    /// Where traces go.
    pub telemetry: TelemetrySection,
    /// Faults on purpose, for experiments and tests.
    pub failpoints: FailpointsSection,
    /// Products that are created at start when they are absent (only in the file: `[[catalog]]`).
    pub catalog: Vec<CatalogEntry>,
}

/// Faults on purpose at the edges of the critical section, for experiments and tests.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FailpointsSection {
    /// For experiments and tests: "abort" ends the process, as by kill -9, when the lock was handed out;
    /// "stall 2s" waits there, while everything else goes on; "5% abort" does so in 5 of 100 cases.
    pub after_lock: Failpoint,
    /// For experiments and tests: "abort" ends the process, as by kill -9, when the stock was read; "stall
    /// 2s" waits there, while everything else goes on; "5% abort" does so in 5 of 100 cases.
    pub after_read: Failpoint,
    /// For experiments and tests: "abort" ends the process, as by kill -9, just before a write is sent;
    /// "stall 2s" waits there, while everything else goes on; "5% abort" does so in 5 of 100 cases.
    pub before_commit: Failpoint,
    /// For experiments and tests: "abort" ends the process, as by kill -9, when a write is committed and
    /// unanswered; "stall 2s" waits there, while everything else goes on; "5% abort" does so in 5 of 100
    /// cases.
    pub after_commit: Failpoint,
    /// For experiments and tests: "abort" ends the process, as by kill -9, when all are answered and the lock
    /// is held; "stall 2s" waits there, while everything else goes on; "5% abort" does so in 5 of 100 cases.
    pub before_release: Failpoint,
}

impl FailpointsSection {
    /// Whether any of them does anything.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// A product that is created at start when it is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogEntry {
    /// The stock keeping unit.
    pub sku: String,
    /// What people call it.
    pub name: String,
    /// Units in stock.
    pub stock: i64,
}

impl CatalogEntry {
    /// The entry as a product to create.
    pub fn parse(&self) -> Result<ProductRequest, ConfigError> {
        let body = crate::api::PutProduct { name: self.name.clone(), stock: self.stock };
        ProductRequest::parse(&self.sku, body, None).map_err(|errors| {
            let all: Vec<_> = errors.iter().map(|e| format!("{} {}", e.field, e.detail)).collect();
            ConfigError::new(format!("catalog (sku {:?})", self.sku), all.join("; "))
        })
    }
}

impl Config {
    /// The strategy with all that it needs.
    pub fn lock_config(&self) -> LockConfig {
        self.lock.config()
    }

    /// The guard that is in force.
    pub fn guard(&self) -> Guard {
        self.lock.strategy.guard(self.checkout.guard)
    }

    /// The keys of tokens that are short enough to be guessed by those who can reach the service from
    /// elsewhere.
    pub fn weak_tokens(&self) -> impl Iterator<Item = &'static str> {
        let server = [Some(self.server.listen), None];
        // It lists and cancels orders, too.
        let admin = [Some(self.server.listen), self.admin.listen];
        let tokens =
            [("server.token", &self.server.token, server), ("admin.token", &self.admin.token, admin)];
        tokens.into_iter().filter_map(|(key, token, listeners)| {
            let is_reached = listeners.into_iter().flatten().any(|address| !is_loopback(address));
            (is_reached && token.is_weak()).then_some(key)
        })
    }

    /// The name of this replica.
    pub fn replica(&self) -> String {
        if !self.server.replica.is_empty() {
            return self.server.replica.clone();
        }
        let host =
            hostname::get().map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned());
        format!("{host}-{}", std::process::id())
    }

    /// Reads all layers and refuses what cannot work, naming the key.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let file = match &sources.file {
            Some(file) => Some(file.clone()),
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists()),
        };
        Self::merged(file, sources)
    }

    /// The defaults with these keys, and no other layer.
    pub fn of(keys: &[(String, String)]) -> Result<Self, ConfigError> {
        Self::merged(None, &Sources { overrides: keys.to_vec(), ..Sources::default() })
    }

    fn merged(file: Option<PathBuf>, sources: &Sources) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(config::File::from(file).format(config::FileFormat::Toml));
        }
        let environment = config::Environment::with_prefix("STOCKLOCK")
            .prefix_separator("__")
            .separator("__")
            .source(Some(sources.environment.clone()));
        builder = builder.add_source(environment);
        for (key, value) in &sources.overrides {
            builder = builder
                .set_override(key, value.as_str())
                .map_err(|error| ConfigError::new(key, error.to_string()))?;
        }
        let layers = builder.build().map_err(|error| {
            ConfigError::new("configuration", secrets::without_quotation(&error.to_string()))
        })?;
        let mut config: Self = serde_path_to_error::deserialize(layers)
            .map_err(|error| refusal::refused(error.path().to_string(), &error.into_inner().to_string()))?;
        config.server.read_token()?;
        config.admin.read_token()?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, why: &str| Err(ConfigError::new(key, why));
        let ms = Duration::from_millis;
        let leases = self.lock.leases().into_iter().map(|(key, lease)| (key, lease, ms(100)));
        let durations = [
            ("server.request_timeout", self.server.request_timeout, ms(1)),
            ("server.drain", self.server.drain, ms(0)),
            ("server.keep_alive", self.server.keep_alive, ms(1)),
            ("server.head_timeout", self.server.head_timeout, ms(1)),
            ("server.write_timeout", self.server.write_timeout, ms(1)),
            ("store.timeout", self.store.timeout, ms(10)),
            ("lock.wait", self.lock.wait, ms(1)),
            ("checkout.max_hold", self.checkout.max_hold, ms(0)),
            ("checkout.linger", self.checkout.linger, ms(0)),
            ("checkout.think_time", self.checkout.think_time, ms(0)),
            ("log.slow", self.log.slow, ms(0)),
        ];
        for (key, duration, least) in durations.into_iter().chain(leases) {
            if !(least..=LONGEST).contains(&duration) {
                let (least, longest) =
                    (humantime::format_duration(least), humantime::format_duration(LONGEST));
                return refuse(key, &format!("must be from {least} to {longest}"));
            }
        }
        self.server.check()?;
        self.admin.check()?;
        if !(1..=10_000).contains(&self.checkout.max_batch) {
            return refuse("checkout.max_batch", "must be from 1 to 10000");
        }
        if !(1..=1_000_000).contains(&self.checkout.queue) {
            return refuse("checkout.queue", "must be from 1 to 1000000");
        }
        if self.checkout.holds_kept > 1_000_000 {
            return refuse("checkout.holds_kept", "must be from 0 to 1000000");
        }
        self.store.check()?;
        self.checkout.check_payment()?;
        self.telemetry.check()?;
        let strategy = self.lock.strategy;
        match (strategy.guard_rule(), self.checkout.guard) {
            (GuardRule::Without, Some(Guard::Version)) => {
                let why = format!("the strategy {strategy} is always without; use \"off\"");
                return refuse("checkout.guard", &why);
            }
            (GuardRule::Always, Some(Guard::Off)) => {
                let why = format!("the strategy {strategy} is the guard; use \"version\"");
                return refuse("checkout.guard", &why);
            }
            _ => {}
        }
        if let Some(redis) = &self.lock.redis {
            redis.check()?;
        }
        if let Some(zookeeper) = &self.lock.zookeeper {
            zookeeper.check()?;
        }
        if let Some(etcd) = &self.lock.etcd {
            etcd.check()?;
        }
        self.catalog.iter().try_for_each(|entry| entry.parse().map(drop))
    }
}

/// Whether only this machine comes to an address.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Where the layers come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, which must exist; [`DEFAULT_FILE`] if it exists when this is `None`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: config::Map<String, String>,
    /// Keys and values that win over all else.
    pub overrides: Vec<(String, String)>,
}

impl Sources {
    /// The environment of this process. Values that are not UTF-8 are refused if they are ours.
    pub fn environment() -> Result<config::Map<String, String>, ConfigError> {
        let ours = |name: &OsString| name.to_string_lossy().starts_with("STOCKLOCK__");
        std::env::vars_os()
            .filter(|(name, _)| ours(name))
            .map(|(name, value)| {
                let name = name.to_string_lossy().into_owned();
                match value.into_string() {
                    Ok(value) => Ok((name, value)),
                    Err(_) => Err(ConfigError::new(name, "must be UTF-8")),
                }
            })
            .collect()
    }
}

/// A configuration that cannot work: the key, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct ConfigError {
    /// The key.
    pub key: String,
    /// What is wrong with its value.
    pub why: String,
}

impl ConfigError {
    /// A configuration that cannot work.
    pub fn new(key: impl Into<String>, why: impl Into<String>) -> Self {
        Self { key: key.into(), why: why.into() }
    }
}

#[cfg(test)]
mod tests;
