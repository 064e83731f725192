//! What the tests share.

use std::path::PathBuf;

use loadtest::fleet::FleetPlan;
use order_service::config::StrategyName;

/// The program under test.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_loadtest"))
}

/// Replicas of the program under test.
#[allow(dead_code, reason = "not every test starts replicas")]
pub fn plan(strategy: StrategyName, replicas: usize) -> FleetPlan {
    FleetPlan { program: program(), strategy, replicas, overrides: Vec::new() }
        .with("lock.database.lease", "1s")
}
