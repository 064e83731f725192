//! A laboratory: processes that live in a temporary directory and die with their owner.
//!
//! The owner may end in any way, by return, panic, Ctrl-C or `kill -9`; nothing it started goes on running.
//! A process is ended in three ways, any of which is enough: its [`Process`] is dropped; the kernel ends it
//! when the owner's process is gone (Linux, also when it is stopped); its standard input ends, where it has
//! called [`die_with_parent`].
//!
//! A module uses only modules that stand below it in this table:
//!
//! | module | what it is |
//! |---|---|
//! | `servers` | the table of all servers that there are, and several of them together |
//! | `zookeeper`, `redis`, `postgres` | servers that are started fresh, one or several |
//! | `etcd` | a server that is started fresh, and keeps its data over a restart |
//! | `pgbouncer` | a pool of connections in front of `postgres` |
//! | `mariadb` | a database of shops that are not ours |
//! | `server` | a server, whichever it is |
//! | `proxy` | a network that can be slow, broken or gone, in front of any of them |
//! | `clock` | a server's own time of day |
//! | `tls` | what a server with TLS is given |
//! | `launch` | what the starts of all servers have in common |
//! | `process` | a child process with a log, which can be killed, paused and resumed |
//! | `limits` | a disk that is full, or a table of open files |
//! | `user`, `spawner`, `parent` | who a process runs as, and what makes it end with its owner |

mod servers;
mod zookeeper;
mod redis;
mod etcd;
mod pgbouncer;
mod postgres;
mod mariadb;
mod server;
mod proxy;
mod clock;
mod tls;
mod launch;
mod process;
mod limits;
mod user;
mod spawner;
mod parent;

use std::path::{Path, PathBuf};

pub use clock::{INSTALL_FAKETIME, can_step_clocks};
pub use etcd::{Etcd, EtcdTls};
pub use launch::ServerError;
pub use mariadb::Mariadb;
pub use parent::die_with_parent;
pub use pgbouncer::Pgbouncer;
pub use postgres::{Postgres, PostgresPair, PostgresTls};
pub use process::{Process, ProcessError};
pub use proxy::{Direction, Proxy};
pub use redis::{Redis, RedisCluster, RedisSentinels, RedisServers, RedisTls};
pub use server::{Server, ServerKind, Setup};
pub use servers::Servers;
pub use tls::TlsFiles;
pub use zookeeper::{Ensemble, Zookeeper, ZookeeperTls};

/// A temporary directory for the files and logs of an experiment.
#[derive(Debug)]
pub struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    /// Makes the directory. It is removed with the value, unless it is [kept](Self::keep).
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { directory: tempfile::Builder::new().prefix("stocklock-lab-").tempdir()? })
    }

    /// The directory of the files and logs; it is there as long as the value.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Leaves the directory where it is, to be read later.
    pub fn keep(mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.directory.path().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_started_in_a_task() {
        fn is_send(_: impl Send) {}
        is_send(Ensemble::start(3));
        is_send(Etcd::start());
        is_send(Postgres::start());
        is_send(Proxy::start("127.0.0.1:1"));
        is_send(Redis::start());
        is_send(RedisCluster::start());
        is_send(RedisSentinels::start("shop"));
        is_send(RedisServers::start(3));
        is_send(Zookeeper::start());
    }
}
