//! Scripts in Redis, called by their hash. The command is written in one piece: a call takes no memory for
//! each of its arguments.

use std::sync::Arc;

use deadpool_redis::redis::aio::ConnectionLike as _;
use deadpool_redis::redis::{
    self, Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, RedisWrite, ServerErrorKind, Value,
    from_redis_value,
};

use super::protocol::key_of;
use super::session::Session;

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
    pub(super) async fn run<T: FromRedisValue>(&self, call: &Cmd, session: &Arc<Session>) -> RedisResult<T> {
        match call.query_async(&mut session.request()).await {
            Err(error) if is_no_script(&error) => {
                self.load(session).await?;
                call.query_async(&mut session.request()).await
            }
            result => result,
        }
    }

    /// The same on a node of a cluster to which the slot of the call's key is being moved.
    pub(super) async fn run_asking<T: FromRedisValue>(
        &self,
        call: &Cmd,
        session: &Arc<Session>,
    ) -> RedisResult<T> {
        let mut asking = redis::pipe();
        asking.cmd("ASKING").ignore().add_command(call.clone());
        let ask = async || {
            let replies = session.request().req_packed_commands(&asking, 0, 2).await?;
            of_value(replies.into_iter().next_back().unwrap_or(Value::Nil))
        };
        match ask().await {
            Err(error) if is_no_script(&error) => {
                self.load(session).await?;
                ask().await
            }
            result => result,
        }
    }

    /// Makes calls one behind the other, in one round trip; each has a result of its own.
    pub(super) async fn run_all<T: FromRedisValue>(
        &self,
        calls: impl Iterator<Item = Cmd>,
        session: &Arc<Session>,
    ) -> RedisResult<Vec<RedisResult<T>>> {
        let mut pipeline = redis::pipe();
        let mut count = 0;
        for call in calls {
            pipeline.add_command(call);
            count += 1;
        }
        let run = async || {
            let replies = session.request().req_packed_commands(&pipeline, 0, count).await?;
            Ok(replies.into_iter().map(of_value).collect::<Vec<_>>())
        };
        let results: Vec<RedisResult<T>> = run().await?;
        if !results.iter().any(|result| result.as_ref().is_err_and(is_no_script)) {
            return Ok(results);
        }
        self.load(session).await?;
        run().await
    }

    async fn load(&self, session: &Arc<Session>) -> RedisResult<()> {
        redis::cmd("SCRIPT").arg("LOAD").arg(self.source).query_async(&mut session.request()).await
    }
}

fn of_value<T: FromRedisValue>(value: Value) -> RedisResult<T> {
    Ok(from_redis_value(value.extract_error()?)?)
}

fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
