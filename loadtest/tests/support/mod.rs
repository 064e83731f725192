//! What the tests share.

use std::path::PathBuf;

use loadtest::fleet::{FleetPlan, StoreKind};
use order_service::config::StrategyName;

/// The program under test.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_loadtest"))
}

/// Replicas of the program under test.
#[allow(dead_code, reason = "not every test starts replicas")]
pub fn plan(strategy: StrategyName, replicas: usize) -> FleetPlan {
    let plan = FleetPlan {
        program: program(),
        strategy,
        store: StoreKind::Sqlite,
        replicas,
        overrides: Vec::new(),
        proxied: false,
        breakable: false,
        ensemble: false,
    };
    match strategy {
        StrategyName::Redis => plan.with("lock.redis.lease", "1s"),
        StrategyName::Zookeeper => plan.with("lock.zookeeper.session_timeout", "1s"),
        _ => plan.with("lock.database.lease", "1s"),
    }
}
