//! ZooKeeper, for strategy "zookeeper".

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::{TlsFiles, TlsPem, is_name};
use super::{ConfigError, Secret};

/// ZooKeeper, for strategy "zookeeper".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ZookeeperSection {
    /// The ensemble: "host:port,host:port", with "/chroot" at the end if there is one.
    pub servers: String,
    /// The node under which the locks are; it is made when it is absent.
    pub root: String,
    /// "USER:PASSWORD" of the digest scheme; when it is set, only this user may see or change the locks.
    pub auth: Secret,
    /// Whether the servers are spoken to over TLS, on the ports in lock.zookeeper.servers. It takes a program
    /// that is built with the feature "zookeeper-tls".
    pub tls: bool,
    /// A file with the certificates, in PEM, of the authorities that are trusted to vouch for the servers,
    /// where lock.zookeeper.tls is set; without, those of the system.
    pub ca_file: Option<PathBuf>,
    /// A file with the certificate, in PEM, that is shown to the servers where lock.zookeeper.tls is set.
    pub cert_file: Option<PathBuf>,
    /// A file with the private key, in PEM, of the certificate in lock.zookeeper.cert_file.
    pub key_file: Option<PathBuf>,
    /// How long a crashed holder's session, and so its node, outlives it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub session_timeout: Duration,
    /// What a waiter watches: its "predecessor", or all "siblings" (the herd).
    pub watch: Watch,
}

/// The key that turns TLS on.
const TLS: &str = "lock.zookeeper.tls";

/// Why a build without TLS refuses it.
const WITHOUT_TLS: &str = "this program was built without TLS to ZooKeeper; build it with \
                           `cargo build --release --package order-service --features zookeeper-tls`";

/// Where a server listens, unless it is said.
const PORT: u16 = 2181;

impl Default for ZookeeperSection {
    fn default() -> Self {
        Self {
            servers: "127.0.0.1:2181".into(),
            root: "/stocklock".into(),
            auth: Secret::default(),
            tls: false,
            ca_file: None,
            cert_file: None,
            key_file: None,
            session_timeout: Duration::from_secs(6),
            watch: Watch::Predecessor,
        }
    }
}

impl ZookeeperSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let is_path = |path: &str| {
            path.starts_with('/') && (path == "/" || path[1..].split('/').all(|name| !name.is_empty()))
        };
        let chroot = self.servers.find('/').map(|slash| &self.servers[slash..]);
        if !is_path(&self.root) {
            return Err(ConfigError::new("lock.zookeeper.root", "must be a path such as /stocklock"));
        }
        // After the first path there would be another root for each server.
        let is_one_path = |chroot: &str| is_path(chroot) && !chroot.contains([',', ' ']);
        let is_host = |host: &str| !host.trim().is_empty() && !host.contains(char::is_whitespace);
        if !self.hosts().split(',').all(is_host) || chroot.is_some_and(|chroot| !is_one_path(chroot)) {
            let why = "must be host:port,host:port, with a path such as /shop at the end if there is one";
            return Err(ConfigError::new("lock.zookeeper.servers", why));
        }
        let auth = self.auth.reveal();
        if !auth.is_empty() && auth.find(':').unwrap_or_default() == 0 {
            return Err(ConfigError::new("lock.zookeeper.auth", "must be USER:PASSWORD"));
        }
        self.check_tls(cfg!(feature = "zookeeper-tls"))
    }

    fn check_tls(&self, is_built_in: bool) -> Result<(), ConfigError> {
        if self.tls && !is_built_in {
            return Err(ConfigError::new(TLS, WITHOUT_TLS));
        }
        // A certificate has to be for it.
        if self.tls
            && let Some(host) = self.addresses().find(|(host, _)| !is_name(host)).map(|(host, _)| host)
        {
            let why = format!("{host:?} is no name that a certificate can have, nor an IP address");
            return Err(ConfigError::new("lock.zookeeper.servers", why));
        }
        self.tls_files().check(self.tls, "is for TLS, which lock.zookeeper.tls turns on")
    }

    /// The servers, without the chroot.
    pub fn hosts(&self) -> &str {
        self.servers.split('/').next().unwrap_or_default()
    }

    /// The name or IP address of each server, and its port.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&str, u16)> {
        self.hosts().split(',').map(|host| {
            let (name, port) = match host.rsplit_once(':') {
                Some((name, port)) if !port.ends_with(']') => (name, port.parse().unwrap_or(PORT)),
                _ => (host, PORT),
            };
            (name.trim_start_matches('[').trim_end_matches(']'), port)
        })
    }

    /// What TLS to the servers needs, as the files hold it; `None` where they are spoken to without.
    pub(crate) fn tls_pem(&self) -> Result<Option<TlsPem>, ConfigError> {
        self.tls.then(|| self.tls_files().read()).transpose()
    }

    fn tls_files(&self) -> TlsFiles<'_> {
        TlsFiles {
            section: "lock.zookeeper",
            ca: self.ca_file.as_deref(),
            cert: self.cert_file.as_deref(),
            key: self.key_file.as_deref(),
        }
    }

    /// The node under which the locks are, from the ensemble's own root.
    pub fn absolute_root(&self) -> String {
        let chroot = self.servers.find('/').map_or("", |slash| &self.servers[slash..]);
        let root = format!("{}{}", chroot.trim_end_matches('/'), self.root);
        root.trim_end_matches('/').into()
    }
}

/// What a waiter on ZooKeeper watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Watch {
    /// The node before its own.
    Predecessor,
    /// The whole directory.
    Siblings,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_a_name_and_a_port() {
        let servers = "a,b:1,10.0.0.1:2,[::1],[::2]:3/shop".to_owned();
        let section = ZookeeperSection { servers, ..ZookeeperSection::default() };
        let addresses: Vec<_> = section.addresses().collect();
        assert_eq!(addresses, [("a", PORT), ("b", 1), ("10.0.0.1", 2), ("::1", PORT), ("::2", 3)]);
    }

    #[test]
    fn tls_takes_a_build_that_has_it() {
        let section = ZookeeperSection { tls: true, ..ZookeeperSection::default() };
        assert_eq!(section.check_tls(true), Ok(()));
        let refused = section.check_tls(false).expect_err("it is not there");
        assert!(refused.key == TLS && refused.why.contains("--features zookeeper-tls"), "{refused}");
        let section = ZookeeperSection { servers: "a,not_a name?:1".into(), ..section };
        let refused = section.check_tls(true).expect_err("no certificate has such a name");
        assert_eq!(refused.key, "lock.zookeeper.servers");
    }
}
