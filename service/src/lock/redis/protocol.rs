//! What all parts of the lock agree on: names in Redis, times, and kinds of errors.

use std::io;
use std::time::Duration;

use deadpool_redis::redis::{RedisError, ServerError, ServerErrorKind};

/// The name of a part of a lock. The braces keep all parts on one node of a cluster.
macro_rules! key_of {
    ($key:expr, $part:expr) => {
        format_args!("stocklock:{{{}}}:{}", $key, $part)
    };
}
pub(super) use key_of;

/// The channel on which releases are published.
pub(super) const CHANNEL: &str = "stocklock:released";

/// How long one command may take.
pub(super) const COMMAND: Duration = Duration::from_secs(2);

/// How long a note is kept. Who comes later has to read.
pub(super) const NOTE_TTL: Duration = Duration::from_secs(10);

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Whether the request may have been carried out all the same, or the server is out of reach.
pub(super) fn is_of_the_connection(error: &RedisError) -> bool {
    error.is_io_error() || error.is_timeout()
}

/// Whether a server says that it is a replica: nothing was carried out.
pub(super) fn is_of_a_replica(error: &ServerError) -> bool {
    // Redis 6 says so within the words of a script's error.
    matches!(error.kind(), Some(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
        || error.details().is_some_and(|details| details.contains("READONLY"))
}

/// Whether an error says that the server has become a replica: nothing was carried out.
pub(super) fn is_of_a_demotion(error: &RedisError) -> bool {
    let errors = error.clone().into_server_errors();
    errors.is_some_and(|errors| errors.iter().any(|(_, error)| is_of_a_replica(error)))
}

/// An error of the connection, in words.
pub(super) fn other(error: impl std::fmt::Display) -> RedisError {
    io::Error::other(error.to_string()).into()
}
