//! How much code each lock is: a measure of how hard it was to make.

use order_service::config::StrategyName;

/// What the lock table and Redis have in common: owners, waiting, renewal and release.
const LEASED: [&str; 5] = [
    include_str!("../../../../service/src/lock/releaser.rs"),
    include_str!("../../../../service/src/lock/leased.rs"),
    include_str!("../../../../service/src/lock/leased/claim_release.rs"),
    include_str!("../../../../service/src/lock/leased/renewer.rs"),
    include_str!("../../../../service/src/lock/leased/wakeups.rs"),
];

/// The lock table, in one dialect of the two.
const DATABASE: [&str; 2] = [
    include_str!("../../../../service/src/lock/database.rs"),
    include_str!("../../../../service/src/lock/database/postgres.rs"),
];

const REDIS: [&str; 5] = [
    include_str!("../../../../service/src/lock/redis.rs"),
    include_str!("../../../../service/src/lock/redis/script.rs"),
    include_str!("../../../../service/src/lock/redis/acquire.lua"),
    include_str!("../../../../service/src/lock/redis/release.lua"),
    include_str!("../../../../service/src/lock/redis/renew.lua"),
];

const ZOOKEEPER: [&str; 8] = [
    include_str!("../../../../service/src/lock/releaser.rs"),
    include_str!("../../../../service/src/lock/zookeeper.rs"),
    include_str!("../../../../service/src/lock/zookeeper/attempt_status.rs"),
    include_str!("../../../../service/src/lock/zookeeper/enqueue.rs"),
    include_str!("../../../../service/src/lock/zookeeper/error.rs"),
    include_str!("../../../../service/src/lock/zookeeper/node.rs"),
    include_str!("../../../../service/src/lock/zookeeper/node_release.rs"),
    include_str!("../../../../service/src/lock/zookeeper/session.rs"),
];

/// Lines of the lock that are neither empty nor comments nor tests.
pub(super) fn code_lines(strategy: StrategyName) -> usize {
    let files: Vec<_> = match strategy {
        StrategyName::Database => DATABASE.iter().chain(&LEASED).collect(),
        StrategyName::Redis => REDIS.iter().chain(&LEASED).collect(),
        StrategyName::Zookeeper => ZOOKEEPER.iter().collect(),
        _ => Vec::new(),
    };
    files.into_iter().map(|file| count(file)).sum()
}

fn count(file: &str) -> usize {
    let code = file.split("#[cfg(test)]").next().unwrap_or_default().lines().map(str::trim);
    code.filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with("--")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_tests_are_no_code() {
        assert_eq!(
            count("//! What it is.\n\nfn f() {\n    // why\n    g();\n}\n#[cfg(test)]\nmod tests {}\n"),
            3
        );
        assert_eq!(count("-- why\nreturn 1\n"), 1);
    }
}
