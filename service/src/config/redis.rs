//! Redis, for strategy "redis": one server, several of which a majority decides, the primary that sentinels
//! name, or a cluster.

mod access;
mod urls;

use std::path::PathBuf;
use std::time::Duration;

use deadpool_redis::redis::{ConnectionAddr, ConnectionInfo};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::urls::RedisUrls;
use super::tls::TlsFiles;
use super::{ConfigError, Secret, address_of};

/// The key of the addresses.
const URL: &str = "lock.redis.url";

/// Redis, for strategy "redis".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSection {
    /// The address of the server: "redis://USER:PASSWORD@HOST:PORT/DATABASE", or "rediss://" for TLS. Or
    /// those of an odd number of servers that know nothing of each other, separated by commas (in the file,
    /// also a list), of which a majority has to grant the lock (Redlock); or those of sentinels, where
    /// lock.redis.sentinel is set; or those of some nodes of a cluster, where lock.redis.cluster is.
    pub url: RedisUrls,
    /// The name under which Redis Sentinel knows the primary, for example "mymaster"; lock.redis.url has the
    /// addresses of the sentinels then, with the user and the password of the primary.
    pub sentinel: String,
    /// The user of the sentinels themselves, where they ask for one.
    pub sentinel_user: String,
    /// The password of the sentinels themselves, where they ask for one.
    pub sentinel_password: Secret,
    /// Whether the servers are nodes of a Redis Cluster. Each product's lock is on the node that has its
    /// slot.
    pub cluster: bool,
    /// A file with the password of the user in lock.redis.url, in whose place it is; the end of its line is
    /// left out.
    pub password_file: Option<PathBuf>,
    /// A file with the certificates, in PEM, of the authorities that are trusted to vouch for the servers of
    /// "rediss://" addresses; without, those of the system.
    pub ca_file: Option<PathBuf>,
    /// A file with the certificate, in PEM, that is shown to the servers of "rediss://" addresses.
    pub cert_file: Option<PathBuf>,
    /// A file with the private key, in PEM, of the certificate in lock.redis.cert_file.
    pub key_file: Option<PathBuf>,
    /// How long a crashed holder's key keeps others out.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub lease: Duration,
    /// Whether a holder renews its lease; "false" shows what a lock does that ends under its holder.
    pub renew: bool,
}

impl Default for RedisSection {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".into(),
            sentinel: String::new(),
            sentinel_user: String::new(),
            sentinel_password: Secret::default(),
            cluster: false,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            lease: Duration::from_secs(10),
            renew: true,
        }
    }
}

impl RedisSection {
    /// How to connect to each of the addresses, with what the files hold.
    pub(crate) fn connections(&self) -> Result<Vec<ConnectionInfo>, ConfigError> {
        access::complete(self, self.url.connections()?)
    }

    /// Refuses what cannot work, but for the files, which are read when they are used.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let servers = self.url.connections()?;
        self.check_tls(&servers)?;
        let without_sentinels = [
            ("lock.redis.sentinel_user", self.sentinel_user.is_empty()),
            ("lock.redis.sentinel_password", self.sentinel_password.reveal().is_empty()),
        ];
        match (self.sentinel.is_empty(), self.cluster) {
            (false, true) => {
                let why = "a cluster replaces its primaries itself; lock.redis.sentinel must be empty";
                return Err(ConfigError::new("lock.redis.cluster", why));
            }
            (false, false) => return self.check_alike(&servers, "sentinels"),
            (true, _) => {
                if let Some((key, _)) = without_sentinels.into_iter().find(|(_, is_empty)| !is_empty) {
                    return Err(ConfigError::new(key, "needs lock.redis.sentinel, the name of the primary"));
                }
            }
        }
        if !self.cluster {
            return self.check_majority(&servers);
        }
        if servers.iter().any(|server| server.redis_settings().db() != 0) {
            return Err(ConfigError::new(URL, "a cluster has no database but 0"));
        }
        self.check_alike(&servers, "nodes")
    }

    fn check_tls(&self, servers: &[ConnectionInfo]) -> Result<(), ConfigError> {
        let is_tls = |server: &ConnectionInfo| matches!(server.addr(), ConnectionAddr::TcpTls { .. });
        let is_insecure =
            |server: &ConnectionInfo| matches!(server.addr(), ConnectionAddr::TcpTls { insecure: true, .. });
        if servers.iter().any(is_insecure) {
            let why = "\"#insecure\" would trust anybody; lock.redis.ca_file says whom to trust";
            return Err(ConfigError::new(URL, why));
        }
        let is_tls = servers.iter().all(is_tls);
        self.tls_files().check(is_tls, "is for rediss:// addresses, which lock.redis.url must have")
    }

    fn tls_files(&self) -> TlsFiles<'_> {
        TlsFiles {
            section: "lock.redis",
            ca: self.ca_file.as_deref(),
            cert: self.cert_file.as_deref(),
            key: self.key_file.as_deref(),
        }
    }

    /// Refuses addresses that differ in more than host and port: what they say beside is for all servers.
    fn check_alike(&self, servers: &[ConnectionInfo], what: &str) -> Result<(), ConfigError> {
        let rest = |server: &ConnectionInfo| {
            let settings = server.redis_settings();
            let of = |text: Option<&str>| text.map(str::to_owned);
            (
                matches!(server.addr(), ConnectionAddr::TcpTls { .. }),
                of(settings.username()),
                of(settings.password()),
                settings.db(),
            )
        };
        for (url, server) in self.url.iter().zip(servers) {
            if matches!(server.addr(), ConnectionAddr::Unix(_)) || host_of(server.addr()).contains(',') {
                let why = format!("each of the {what} needs a URL of its own: redis://a,redis://b");
                return Err(ConfigError::new(URL, why));
            }
            if rest(server) != rest(&servers[0]) {
                let why = format!(
                    "{} differs from the first of the {what} in its scheme, user, password or database",
                    address_of(url)
                );
                return Err(ConfigError::new(URL, why));
            }
        }
        Ok(())
    }

    /// Refuses servers of which there is no majority: an even number, where half of them is none, and the
    /// same one twice, which would have two votes.
    fn check_majority(&self, infos: &[ConnectionInfo]) -> Result<(), ConfigError> {
        let refuse = |why: String| Err(ConfigError::new(URL, why));
        if infos.len() == 1 {
            return Ok(());
        }
        if infos.len().is_multiple_of(2) {
            return refuse(format!(
                "must list one server or an odd number of them, not {}: a majority of an even number is no \
                 smaller than that of one more",
                infos.len()
            ));
        }
        let mut known: Vec<String> = Vec::new();
        for (url, info) in self.url.iter().zip(infos) {
            let host = host_of(info.addr());
            if host.contains(',') {
                return refuse("each of several servers needs a URL of its own: redis://a,redis://b".into());
            }
            if known.contains(&host) {
                return refuse(format!("lists {} twice: it would have two votes", address_of(url)));
            }
            known.push(host);
        }
        Ok(())
    }
}

/// The server that an address leads to, whichever of its databases is meant.
fn host_of(address: &ConnectionAddr) -> String {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            format!("{}:{port}", host.to_lowercase())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str) -> Result<(), String> {
        let section = RedisSection { url: url.into(), ..RedisSection::default() };
        section.check().map_err(|error| {
            assert_eq!(error.key, URL);
            error.why
        })
    }

    #[test]
    fn a_majority_needs_an_odd_number_of_different_servers() {
        assert_eq!(check("redis://a"), Ok(()));
        assert_eq!(check("redis://a,redis://b,redis://c:6380"), Ok(()));
        for (url, why) in [
            ("redis://a,redis://b", "an odd number of them, not 2"),
            ("redis://a,redis://b,redis://c,redis://d", "not 4"),
            ("redis://a,redis://b,redis://:x@A:6379/1", "lists redis://A:6379/1 twice"),
            ("redis://a,redis://b,c,redis://d", "a URL of its own"),
            ("redis://a,redis://b,http://c", "URL"),
            ("rediss://a/#insecure", "trust anybody"),
        ] {
            let refused = check(url).expect_err(url);
            assert!(refused.contains(why), "{url}: {refused}");
        }
    }

    #[test]
    fn sentinels_and_nodes_may_be_any_number_but_are_reached_alike() {
        let both = |url: &str| {
            let section = RedisSection { url: url.into(), ..RedisSection::default() };
            let sentinels = RedisSection { sentinel: "mymaster".into(), ..section.clone() };
            let cluster = RedisSection { cluster: true, ..section };
            [sentinels.check(), cluster.check()].map(|checked| checked.map_err(|error| error.to_string()))
        };
        for url in ["redis://a", "redis://a,redis://b", "rediss://u:p@a,rediss://u:p@b"] {
            assert_eq!(both(url), [Ok(()), Ok(())], "{url}");
        }
        for url in ["redis://a,rediss://b", "redis://u:p@a,redis://b", "redis://:p@a,redis://:q@b"] {
            for refused in both(url) {
                let refused = refused.expect_err(url);
                assert!(refused.starts_with(URL) && refused.contains("differs from the first"), "{refused}");
                assert!(!refused.contains(":p@"), "{refused}");
            }
        }
    }
}
