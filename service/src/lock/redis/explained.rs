//! What an error of the connection says about the configuration.

use deadpool_redis::redis::{ConnectionAddr, RedisError};

use super::protocol::other;
use crate::lock::tls::hint;

/// An error with the way out, where it is known.
pub(super) fn explained(error: RedisError, address: &ConnectionAddr) -> RedisError {
    let text = error.to_string();
    let is_tls = matches!(address, ConnectionAddr::TcpTls { .. });
    let has = |what: &str| text.contains(what);
    if is_tls && let Some(hint) = hint("lock.redis", &text) {
        return other(format_args!("{text} ({hint})"));
    }
    let hint = match is_tls {
        true if has("InvalidContentType") || error.is_timeout() => {
            "it may not speak TLS: redis:// instead of rediss://"
        }
        true if error.is_connection_dropped() && !error.is_connection_refusal() => {
            "it may not speak TLS, or may ask for a certificate: lock.redis.cert_file"
        }
        false if error.is_connection_dropped() && !error.is_connection_refusal() => {
            "it may insist on TLS: rediss:// instead of redis://"
        }
        _ => return error,
    };
    other(format_args!("{text} ({hint})"))
}
