//! How the servers of a cluster are reached, and as whom.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::sync::Mutex as AsyncMutex;

use super::ApiError;
use crate::config::{ConfigError, EtcdSection, Secret};
use crate::lock::tls::hint;

/// How long a connection may take to come about.
const CONNECTING: Duration = Duration::from_secs(1);

/// A connection that is silent for so long is asked whether it is there.
const SILENT: Duration = Duration::from_secs(5);

pub(super) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The servers of a cluster, and how they are reached.
pub(in crate::lock::etcd) struct Access {
    /// What the URLs of each server's paths begin with.
    pub(super) bases: Vec<String>,
    pub(super) login: Option<Login>,
    tls: Option<Arc<ClientConfig>>,
}

/// A user, and the token that stands for it and its password.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Secret,
    /// What the cluster gave last. It forgets it when it is not used for some minutes, and when it is started
    /// again.
    pub(super) token: AsyncMutex<Option<Arc<str>>>,
}

impl Access {
    /// As the configuration has it, with what the files hold that it names.
    pub(in crate::lock::etcd) fn of(config: &EtcdSection) -> Result<Self, ConfigError> {
        let base = |authority| format!("{}{authority}/v3", config.scheme());
        let login = config.login()?.map(|(user, password)| Login {
            user: user.to_owned(),
            password,
            token: AsyncMutex::default(),
        });
        Ok(Self {
            bases: config.authorities()?.into_iter().map(base).collect(),
            login,
            tls: config.tls_pem()?.map(|pem| pem.client()).transpose()?.map(Arc::new),
        })
    }

    /// How many servers there are.
    pub(in crate::lock::etcd) fn servers(&self) -> usize {
        self.bases.len()
    }

    /// A client with no connections yet.
    pub(super) fn client(&self) -> HttpClient {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECTING));
        connector.set_keepalive(Some(SILENT));
        connector.set_keepalive_interval(Some(SILENT / 5));
        connector.set_keepalive_retries(Some(5));
        let tls = self.tls.clone().unwrap_or_else(|| Arc::new(trusts_nobody()));
        let connector = HttpsConnector::from((connector, tls));
        Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
    }

    /// An error with the way out, where it is known.
    pub(in crate::lock::etcd) fn explained(&self, error: &ApiError) -> String {
        let text = error.to_string();
        let is_ended = ["eof", "closed before", "reset by peer"].iter().any(|end| text.contains(end));
        let hint = match (error, self.tls.is_some()) {
            (ApiError::Connection(_), true) => hint("lock.etcd", &text).or_else(|| {
                let may_be = is_ended || text.contains("InvalidContentType");
                may_be
                    .then(|| "it may not speak TLS, or may ask for a certificate: lock.etcd.cert_file".into())
            }),
            (ApiError::Connection(_), false) if is_ended => {
                Some("it may speak TLS: https:// instead of http://".into())
            }
            (ApiError::Refused { .. }, false) if text.contains("HTTPS") => {
                Some("https:// instead of http://".into())
            }
            (ApiError::Refused { .. }, _) if error.is_denied() => Some(match &self.login {
                None => "it has users: lock.etcd.user".into(),
                Some(login) => {
                    format!("{:?} may not do that with what begins with lock.etcd.prefix", login.user)
                }
            }),
            _ => None,
        };
        hint.map_or(text.clone(), |hint| format!("{text} ({hint})"))
    }
}

/// For a cluster without TLS, to which no connection has it.
fn trusts_nobody() -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    builder
        .with_safe_default_protocol_versions()
        .expect("ring has what they need")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}
