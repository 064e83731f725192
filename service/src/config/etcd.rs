//! etcd, for strategy "etcd".

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::{TlsFiles, TlsPem};
use super::{ConfigError, Secret, secrets};

/// etcd, for strategy "etcd".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EtcdSection {
    /// The address of etcd 3.4 or later: "http://HOST:PORT", or "https://" for TLS, or those of several
    /// servers of one cluster, with commas between. It has to compact its history, in which every lock leaves
    /// two revisions.
    pub url: String,
    /// The user, where etcd asks for one.
    pub user: String,
    /// The password of the user in lock.etcd.user.
    pub password: Secret,
    /// A file with the password of the user in lock.etcd.user; the end of its line is left out.
    pub password_file: Option<PathBuf>,
    /// A file with the certificates, in PEM, of the authorities that are trusted to vouch for the servers of
    /// "https://" addresses; without, those of the system.
    pub ca_file: Option<PathBuf>,
    /// A file with the certificate, in PEM, that is shown to the servers of "https://" addresses. Where etcd
    /// has users, the certificate must have no common name: its JSON interface refuses those.
    pub cert_file: Option<PathBuf>,
    /// A file with the private key, in PEM, of the certificate in lock.etcd.cert_file.
    pub key_file: Option<PathBuf>,
    /// What the keys of the locks begin with; the key of this name itself says which data the server has.
    pub prefix: String,
    /// How long a crashed holder's key keeps others out. etcd counts whole seconds, to which this is rounded
    /// up, and may grant more: one and a half times its election time-out at least.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub lease: Duration,
}

impl Default for EtcdSection {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:2379".into(),
            user: String::new(),
            password: Secret::default(),
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            prefix: "/stocklock".into(),
            lease: Duration::from_secs(10),
        }
    }
}

impl EtcdSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.authorities()?;
        let is_key = |prefix: &str| !prefix.is_empty() && !prefix.ends_with('/');
        if !is_key(&self.prefix) || self.prefix.chars().any(char::is_control) {
            let why = "must be a key such as /stocklock, without a slash at its end";
            return Err(ConfigError::new("lock.etcd.prefix", why));
        }
        let is_given = [
            ("lock.etcd.password", !self.password.is_empty()),
            ("lock.etcd.password_file", self.password_file.is_some()),
        ];
        let given = is_given.into_iter().find(|(_, is_given)| *is_given);
        match (self.user.is_empty(), given) {
            (true, Some((key, _))) => return Err(ConfigError::new(key, "needs lock.etcd.user")),
            (false, None) => return Err(ConfigError::new("lock.etcd.user", "needs lock.etcd.password")),
            _ => {}
        }
        self.tls_files().check(self.is_tls(), "is for https:// addresses, which lock.etcd.url must have")
    }

    /// The host and port of each server.
    pub fn authorities(&self) -> Result<Vec<&str>, ConfigError> {
        let why = "must be http://HOST:PORT or https://HOST:PORT, or several of one kind with commas \
                   between, without a path; the user is in lock.etcd.user";
        let refused = || ConfigError::new("lock.etcd.url", why);
        let scheme = self.scheme();
        self.url.split(',').map(|url| authority_of(url, scheme).ok_or_else(refused)).collect()
    }

    /// What the addresses begin with.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_tls() { "https://" } else { "http://" }
    }

    /// Whether the servers are spoken to over TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.url.starts_with("https://")
    }

    /// What TLS to the servers needs, as the files hold it; `None` where they are spoken to without.
    pub(crate) fn tls_pem(&self) -> Result<Option<TlsPem>, ConfigError> {
        self.is_tls().then(|| self.tls_files().read()).transpose()
    }

    /// The user and the password, where there are some.
    pub(crate) fn login(&self) -> Result<Option<(&str, Secret)>, ConfigError> {
        if self.user.is_empty() {
            return Ok(None);
        }
        let password = match &self.password_file {
            Some(file) => Secret::from(&*secrets::read_password("lock.etcd.password_file", file)?),
            None => self.password.clone(),
        };
        Ok(Some((&self.user, password)))
    }

    fn tls_files(&self) -> TlsFiles<'_> {
        TlsFiles {
            section: "lock.etcd",
            ca: self.ca_file.as_deref(),
            cert: self.cert_file.as_deref(),
            key: self.key_file.as_deref(),
        }
    }
}

/// The host and port of a URL that has nothing else but this scheme.
fn authority_of<'a>(url: &'a str, scheme: &str) -> Option<&'a str> {
    let authority = url.strip_prefix(scheme)?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = authority.rsplit_once(':')?;
    let is_strange = |c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c);
    let is_one = !host.is_empty() && !authority.contains(is_strange) && port.parse::<u16>().is_ok();
    is_one.then_some(authority)
}
