//! Locks in this very process, each a participant of its own, where the moment of each step has to be chosen.

use std::sync::Arc;

use lab::{Lab, Server};
use order_service::app::token_generations;
use order_service::config::{Config, Sources, StrategyName};
use order_service::lock::{self, Lock};
use order_service::store::{self, Store};
use order_service::telemetry::Metrics;

use crate::fleet::key_of;

/// Those who contend for a lock.
pub(crate) struct Contenders {
    strategy: StrategyName,
    config: Config,
    store: Arc<dyn Store>,
    /// Has the store.
    _lab: Lab,
}

impl Contenders {
    /// Contenders under a strategy, whose locks are on `server`, with further `keys` of the configuration.
    pub(crate) async fn new(
        strategy: StrategyName,
        server: &dyn Server,
        keys: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let strategy_name = strategy.to_string();
        let store_url = format!("sqlite://{}", lab.file("stocklock.db").display());
        let server_url = server.url();
        let always = [
            ("store.url", store_url.as_str()),
            ("lock.strategy", strategy_name.as_str()),
            (key_of(server.kind()), server_url.as_str()),
        ];
        let overrides = always.iter().chain(keys).map(|(key, value)| ((*key).into(), (*value).into()));
        let config = Config::load(&Sources { overrides: overrides.collect(), ..Sources::default() })?;
        let store = store::connect(&config.store).await?;
        Ok(Self { strategy, config, store, _lab: lab })
    }

    /// One more of them, who shares nothing with the others.
    pub(crate) async fn join(&self, name: &str) -> anyhow::Result<Arc<dyn Lock>> {
        self.join_counted(name, &Metrics::new(self.strategy)).await
    }

    /// One more of them, who counts into `metrics`.
    pub(in crate::experiments) async fn join_counted(
        &self,
        name: &str,
        metrics: &Metrics,
    ) -> anyhow::Result<Arc<dyn Lock>> {
        let mut config = self.config.clone();
        config.server.replica = name.into();
        Ok(lock::connect(&config, token_generations(&self.store), metrics).await?)
    }
}
