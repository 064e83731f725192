//! How a server is reached: at its address, whose name is resolved each time, or at that of the primary that
//! sentinels name. What answers there has to be one that can be written to.

use std::sync::Arc;

use deadpool_redis::redis::aio::{AsyncPushSender, MultiplexedConnection};
use deadpool_redis::redis::{
    self, AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ProtocolVersion, RedisResult,
};

use super::explained::explained;
use super::protocol::{CHANNEL, COMMAND, other};
use super::sentinel::Sentinels;

/// Connects to one server, whichever that is at the time.
pub(super) struct Dialer {
    /// The server; with sentinels, all but its address.
    info: ConnectionInfo,
    sentinels: Option<Sentinels>,
}

/// A connection that is ready: it has asked for announcements.
pub(super) struct Dialed {
    pub(super) connection: MultiplexedConnection,
    /// Where it leads to.
    pub(super) info: ConnectionInfo,
    pub(super) identity: Identity,
}

impl Dialer {
    pub(super) fn new(info: ConnectionInfo, sentinels: Option<Sentinels>) -> Self {
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        // Not every user may say what library it comes with.
        let settings = settings.set_skip_set_lib_name();
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        // A server that vanishes without a word is given up when it has acknowledged nothing for so long.
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(COMMAND * 2);
        Self { info: info.set_redis_settings(settings).set_tcp_settings(tcp), sentinels }
    }

    /// Makes a connection and asks for announcements. Fails where the server is a replica.
    pub(super) async fn dial(&self, announced: impl AsyncPushSender) -> RedisResult<Dialed> {
        let info = match &self.sentinels {
            None => self.info.clone(),
            Some(sentinels) => at(&self.info, &sentinels.primary().await?),
        };
        let dialed = connect(&info, announced).await;
        // The address is that of the configuration, unless sentinels gave it.
        dialed.map_err(|error| match &self.sentinels {
            None => error,
            Some(sentinels) => {
                other(format_args!("{sentinels} name {} as the primary: {error}", info.addr()))
            }
        })
    }

    /// Whether the sentinels name another primary than the one at `address` by now.
    pub(super) async fn is_replaced(&self, address: &ConnectionAddr) -> bool {
        let Some(sentinels) = &self.sentinels else { return false };
        sentinels.primary().await.is_ok_and(|primary| at(&self.info, &primary).addr() != address)
    }

    /// Whether there are sentinels to be asked.
    pub(super) fn has_sentinels(&self) -> bool {
        self.sentinels.is_some()
    }
}

/// The same at another host and port.
pub(super) fn at(info: &ConnectionInfo, (host, port): &(String, u16)) -> ConnectionInfo {
    let (host, port) = (host.clone(), *port);
    info.clone().set_addr(match info.addr().clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host, port),
    })
}

async fn connect(info: &ConnectionInfo, announced: impl AsyncPushSender) -> RedisResult<Dialed> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(COMMAND))
        .set_response_timeout(Some(COMMAND))
        .set_push_sender(announced);
    let connected = Client::open(info.clone())?.get_multiplexed_async_connection_with_config(&config).await;
    let mut connection = connected.map_err(|error| explained(error, info.addr()))?;
    let identity = Identity::ask(&mut connection).await.map_err(|error| explained(error, info.addr()))?;
    identity.check_primary()?;
    connection.subscribe(CHANNEL).await?;
    Ok(Dialed { connection, info: info.clone(), identity })
}

/// Who a server is: another name after a restart, and where another has become the primary.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// What it calls itself.
    pub(super) name: Arc<str>,
    /// That it may take locks away, if it may.
    pub(super) risk: Option<String>,
    /// Whether it is a node of a cluster; `None` where it does not say.
    pub(super) is_of_cluster: Option<bool>,
    /// Whether it is a sentinel, which has no locks.
    pub(super) is_sentinel: bool,
    /// The primary, where it is a replica.
    follows: Option<String>,
}

impl Identity {
    /// Asks a server who it is.
    pub(super) async fn ask(connection: &mut MultiplexedConnection) -> RedisResult<Self> {
        let info: RedisResult<String> = redis::cmd("INFO").query_async(connection).await;
        match info {
            Ok(info) => Ok(Self::of(&info)),
            Err(error) if error.is_io_error() => Err(error),
            // Without, a server that has lost its count or has become a replica could not be told from
            // another.
            Err(error) => Err(other(format_args!("who it is cannot be asked, by INFO: {error}"))),
        }
    }

    /// Fails where it is a replica, and says of whom.
    pub(super) fn check_primary(&self) -> RedisResult<()> {
        let Some(primary) = &self.follows else { return Ok(()) };
        Err(other(format_args!("READONLY: it is a replica, of {primary}; there is no server to write to")))
    }

    fn of(info: &str) -> Self {
        let value_of = |name| value(info, name).unwrap_or_default();
        let name = format!("{} {}", value_of("run_id"), value_of("master_replid")).into();
        let follows = (value_of("role") == "slave")
            .then(|| format!("{}:{}", value_of("master_host"), value_of("master_port")));
        let is_of_cluster = value(info, "cluster_enabled").map(|enabled| enabled == "1");
        let is_sentinel = value_of("redis_mode") == "sentinel";
        Self { name, risk: eviction_risk(info), is_of_cluster, is_sentinel, follows }
    }
}

/// A value that `INFO` gives.
fn value<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// Says so if the server may take locks away when its memory is full.
fn eviction_risk(info: &str) -> Option<String> {
    let policy = value(info, "maxmemory_policy").filter(|policy| *policy != "noeviction")?;
    let limit = value(info, "maxmemory").filter(|limit| *limit != "0")?;
    Some(format!(
        "Redis evicts keys when its {limit} bytes are full (maxmemory-policy {policy}): also locks that are \
         held, of which there are two holders then; set noeviction, or give the locks a Redis of their own"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_may_take_locks_is_a_risk_where_memory_is_limited() {
        let risk = |limit, policy| {
            eviction_risk(&format!(
                "# Memory\r\nmaxmemory:{limit}\r\nmaxmemory_human:0B\r\nmaxmemory_policy:{policy}\r\n"
            ))
        };
        assert_eq!(risk("0", "allkeys-lru"), None);
        assert_eq!(risk("1000", "noeviction"), None);
        // The keys of locks have an expiry, too.
        for policy in ["allkeys-lru", "volatile-ttl"] {
            let risk = risk("1000", policy).expect("a risk");
            assert!(risk.contains(policy) && risk.contains("1000"), "{risk}");
        }
        assert_eq!(eviction_risk(""), None);
    }

    #[test]
    fn a_replica_and_a_node_of_a_cluster_are_known_by_what_they_say() {
        let primary = Identity::of("role:master\r\nrun_id:a\r\nmaster_replid:b\r\ncluster_enabled:0\r\n");
        assert_eq!((&*primary.name, primary.follows, primary.is_of_cluster), ("a b", None, Some(false)));
        let replica = "role:slave\r\nmaster_host:db\r\nmaster_port:6379\r\ncluster_enabled:1\r\n";
        let replica = Identity::of(replica);
        assert_eq!((replica.follows.as_deref(), replica.is_of_cluster), (Some("db:6379"), Some(true)));
        assert_eq!(Identity::of("").is_of_cluster, None);
    }
}
