//! The table of all servers that there are, and several of them together.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;

use crate::server::{Server, ServerKind, Setup};
use crate::{
    Ensemble, Etcd, Postgres, PostgresPair, Redis, RedisSentinels, RedisServers, ServerError, Zookeeper,
};
use crate::{etcd, postgres, redis, zookeeper};

/// How many processes an ensemble has: the fewest that survive the loss of one.
const ENSEMBLE: usize = 3;

/// What sentinels call the primary.
const PRIMARY: &str = "stocklock";

/// A start that is under way.
type Starting = Pin<Box<dyn Future<Output = Result<Box<dyn Server>, ServerError>> + Send>>;

/// What there is to know of a kind of server.
struct Row {
    /// What it is called where people write it.
    name: &'static str,
    /// What it is called where people read it.
    title: &'static str,
    /// The command that installs it.
    install: &'static str,
    is_installed: fn() -> bool,
    start: fn(Setup) -> Starting,
}

impl ServerKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Postgres, Self::Redis, Self::Zookeeper, Self::Etcd];

    /// The table: a kind without a row does not compile.
    const fn row(self) -> Row {
        match self {
            Self::Postgres => Row {
                name: "postgres",
                title: "PostgreSQL",
                install: postgres::INSTALL_POSTGRES,
                is_installed: Postgres::is_installed,
                start: |setup| match (setup.takes_over[Self::Postgres.number()], setup.is_breakable) {
                    (true, _) => started(PostgresPair::start()),
                    (false, true) => started(Postgres::start_breakable()),
                    (false, false) => started(Postgres::start()),
                },
            },
            Self::Redis => Row {
                name: "redis",
                title: "Redis",
                install: redis::INSTALL_REDIS,
                is_installed: Redis::is_installed,
                start: |setup| match (setup.redis_servers, setup.is_breakable) {
                    _ if setup.takes_over[Self::Redis.number()] => started(RedisSentinels::start(PRIMARY)),
                    (0 | 1, true) => started(Redis::start_breakable()),
                    (0 | 1, false) => started(Redis::start()),
                    (several, true) => started(RedisServers::start_breakable(several)),
                    (several, false) => started(RedisServers::start(several)),
                },
            },
            Self::Zookeeper => Row {
                name: "zookeeper",
                title: "ZooKeeper",
                install: zookeeper::INSTALL_ZOOKEEPER,
                is_installed: Zookeeper::is_installed,
                start: |setup| {
                    let is_ensemble = setup.is_ensemble || setup.takes_over[Self::Zookeeper.number()];
                    match (is_ensemble, setup.is_linked) {
                        (true, true) => started(Ensemble::start_linked(ENSEMBLE)),
                        (true, false) => started(Ensemble::start(ENSEMBLE)),
                        (false, _) => started(Zookeeper::start()),
                    }
                },
            },
            Self::Etcd => Row {
                name: "etcd",
                title: "etcd",
                install: etcd::INSTALL_ETCD,
                is_installed: Etcd::is_installed,
                start: |_| started(Etcd::start()),
            },
        }
    }

    /// The name on command lines and in configurations: `postgres`.
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// The name for people: `PostgreSQL`.
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// The command that installs it.
    pub fn install(self) -> &'static str {
        self.row().install
    }

    /// Whether it is installed.
    pub fn is_installed(self) -> bool {
        (self.row().is_installed)()
    }

    /// Says that it is not installed, and what would install it; `None` when it is.
    pub fn missing(self) -> Option<String> {
        (!self.is_installed()).then(|| format!("{} is not installed; {}", self.title(), self.install()))
    }

    /// Starts one, and waits until it answers.
    pub async fn start(self, setup: Setup) -> Result<Box<dyn Server>, ServerError> {
        (self.row().start)(setup).await
    }
}

fn started<S: Server>(start: impl Future<Output = Result<S, ServerError>> + Send + 'static) -> Starting {
    Box::pin(async { start.await.map(|server| Box::new(server) as Box<dyn Server>) })
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ServerKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| {
            format!("no server {text:?}; there are {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// Servers of different kinds, at most one of each.
#[derive(Debug, Default)]
pub struct Servers(Vec<Box<dyn Server>>);

impl Servers {
    /// Starts one of each of `kinds`.
    pub async fn start(
        kinds: impl IntoIterator<Item = ServerKind>,
        setup: Setup,
    ) -> Result<Self, ServerError> {
        let mut servers = Self::default();
        for kind in kinds {
            if servers.get(kind).is_none() {
                servers.0.push(kind.start(setup).await?);
            }
        }
        Ok(servers)
    }

    /// All, in the order in which they were started.
    pub fn iter(&self) -> impl Iterator<Item = &(dyn Server + 'static)> {
        self.0.iter().map(|server| &**server)
    }

    /// The one of a kind.
    pub fn get(&self, kind: ServerKind) -> Option<&(dyn Server + 'static)> {
        self.iter().find(|server| server.kind() == kind)
    }

    /// The one of a kind, to be changed.
    pub fn get_mut(&mut self, kind: ServerKind) -> Option<&mut (dyn Server + 'static)> {
        self.0.iter_mut().map(|server| &mut **server).find(|server| server.kind() == kind)
    }

    /// The one of a type, for what only that can do.
    pub fn find<S: Server>(&self) -> Option<&S> {
        self.iter().find_map(|server| (server as &dyn Any).downcast_ref())
    }

    /// The one of a type, to be changed.
    pub fn find_mut<S: Server>(&mut self) -> Option<&mut S> {
        self.0.iter_mut().find_map(|server| (&mut **server as &mut dyn Any).downcast_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in ServerKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let unknown = "mysql".parse::<ServerKind>();
        assert_eq!(unknown, Err("no server \"mysql\"; there are postgres, redis, zookeeper, etcd".into()));
    }

    #[tokio::test]
    async fn what_every_server_can_do_it_does() {
        for kind in ServerKind::ALL {
            let mut servers = Servers::start([kind, kind], Setup::default()).await.expect("it starts");
            let server = servers.get_mut(kind).expect("it was started");
            let url = server.url();
            assert!(server.addresses().iter().all(|address| url.contains(address)), "{url}");
            assert!(server.is_led().await, "{kind}");
            assert!(!server.set_clock(1).expect("it is not tried"), "{kind}: its clock is the system's");
            server.pause().await.expect("it is stopped");
            server.resume().expect("it goes on");
            server.kill().await.expect("it is killed");
            server.restart().await.expect("it starts again");
            assert_eq!(server.url(), url);
            // Again, when nothing is to be done.
            server.restart().await.expect("it runs");
            assert_eq!(servers.iter().count(), 1);
        }
    }
}
