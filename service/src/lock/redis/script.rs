//! Scripts in Redis, called by their hash. The command is written in one piece: a call takes no memory for
//! each of its arguments.

use deadpool_redis::redis::aio::ConnectionLike;
use deadpool_redis::redis::{self, Cmd, ErrorKind, FromRedisValue, RedisResult, RedisWrite, ServerErrorKind};

use super::server::key_of;

/// A Lua script, which the server keeps by the hash of its source.
pub(super) struct Script {
    source: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(source: &'static str) -> Self {
        Self { source, hash: redis::Script::new(source).get_hash().to_owned() }
    }

    /// A call with these of the lock's keys; its arguments are still to come.
    pub(super) fn call(&self, key: &str, parts: &[&str]) -> Cmd {
        let mut call = Cmd::with_capacity(2 + parts.len() + 8, 512);
        call.arg("EVALSHA").arg(&self.hash).arg(parts.len());
        for part in parts {
            call.write_arg_fmt(key_of!(key, part));
        }
        call
    }

    /// Makes a call; a server that does not know the script learns it first.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        call: &Cmd,
        connection: &mut (impl ConnectionLike + Send),
    ) -> RedisResult<T> {
        match call.query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.load(connection).await?;
                call.query_async(connection).await
            }
            result => result,
        }
    }

    /// Makes calls one behind the other, in one round trip.
    pub(super) async fn run_all<T: FromRedisValue>(
        &self,
        calls: impl Iterator<Item = Cmd>,
        connection: &mut (impl ConnectionLike + Send),
    ) -> RedisResult<Vec<T>> {
        let mut pipeline = redis::pipe();
        for call in calls {
            pipeline.add_command(call);
        }
        match pipeline.query_async(connection).await {
            Err(error) if !error.is_io_error() && !error.is_timeout() => {
                self.load(connection).await?;
                pipeline.query_async(connection).await
            }
            result => result,
        }
    }

    async fn load(&self, connection: &mut (impl ConnectionLike + Send)) -> RedisResult<()> {
        redis::cmd("SCRIPT").arg("LOAD").arg(self.source).query_async(connection).await
    }
}
