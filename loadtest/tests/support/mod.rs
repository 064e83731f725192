//! What the tests share.

use std::path::PathBuf;

use lab::Setup;
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
        setup: Setup::default(),
    };
    match strategy.lease_key() {
        Some(key) => plan.with(key, "1s"),
        None => plan,
    }
}
