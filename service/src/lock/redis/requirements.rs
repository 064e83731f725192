//! What a server has to be, which is asked at the start: of a cluster or not, as the configuration says, and
//! with a user who may do what the lock does.

use std::sync::Arc;

use deadpool_redis::redis::RedisResult;

use super::protocol::CHANNEL;
use super::script::Script;
use super::session::Session;
use crate::config::ConfigError;
use crate::lock::{ConnectError, LockError};

/// What Redis is called in errors.
pub(super) const NAME: &str = "Redis";

/// The key on which the commands are tried.
const PROBE: &str = "start";

/// The least that an ACL has to allow, as it is written for `ACL SETUSER`.
const LEAST_RULE: &str = "~stocklock:* &stocklock:* +select +info +ping +unwatch \
     +subscribe +evalsha +script|load +exists +get +set +incr +getdel +del +hset +hget +hmget +hdel +hincrby \
     +pexpire +pttl +zadd +zrange +zrem +zremrangebyscore +zrevrange +zscore +time +publish";

/// Refuses a server that is of a cluster, or is not, where it should be the other, and one whose user may not
/// do what has to be done.
pub(super) async fn check(
    address: &str,
    session: &Arc<Session>,
    is_of_cluster: bool,
) -> Result<(), ConnectError> {
    let refuse = |key: &str, why: String| Err(ConfigError::new(key, format!("{address} {why}")).into());
    if session.identity.is_sentinel {
        let why = "is a sentinel: this must be the name of the primary".into();
        return refuse("lock.redis.sentinel", why);
    }
    // One that does not say so tells by what it answers.
    match session.identity.is_of_cluster.unwrap_or(is_of_cluster) {
        true if !is_of_cluster => {
            return refuse("lock.redis.cluster", "is a node of a Redis Cluster: this must be true".into());
        }
        false if is_of_cluster => {
            return refuse("lock.redis.cluster", "is no node of a Redis Cluster: this must be false".into());
        }
        _ => {}
    }
    // A node of a cluster may not have the key on which the commands are tried: another one is asked then.
    match missing(session).await {
        Ok(Some(missing)) => refuse("lock.redis.url", missing),
        Err(error) if !error.is_cluster_error() => Err(unavailable(address, error).into()),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Says that what is at an address cannot be used now.
pub(super) fn unavailable(address: &str, error: impl std::fmt::Display) -> LockError {
    LockError::Unavailable { dependency: NAME, reason: format!("{address}: {error}") }
}

/// What the user may not do that the lock does, in words; `None`: it may do all.
async fn missing(session: &Arc<Session>) -> RedisResult<Option<String>> {
    let script = Script::new(include_str!("permissions.lua"));
    let mut call = script.call(PROBE, &["probe"]);
    call.arg(CHANNEL);
    let mut denied: Vec<String> = script.run(&call, session).await?;
    denied.dedup();
    let words =
        || format!("does not let its user run {}; the least it needs: {LEAST_RULE}", denied.join(", "));
    Ok((!denied.is_empty()).then(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPTS: [&str; 5] = [
        include_str!("acquire.lua"),
        include_str!("release.lua"),
        include_str!("renew.lua"),
        include_str!("redlock/acquire.lua"),
        include_str!("redlock/raise.lua"),
    ];

    #[test]
    fn whatever_a_script_calls_is_tried_at_the_start_and_in_the_least_rule() {
        let tried = include_str!("permissions.lua");
        for script in SCRIPTS {
            for call in script.split("redis.call('").skip(1) {
                let command = call.split('\'').next().expect("a command");
                assert!(tried.contains(&format!("{{ '{command}'")), "{command} is not tried");
                let allowed = format!("+{}", command.to_lowercase());
                assert!(LEAST_RULE.split_whitespace().any(|rule| rule == allowed), "{allowed}");
            }
        }
    }
}
