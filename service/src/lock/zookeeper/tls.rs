//! TLS to the ensemble. The client speaks it where the feature `zookeeper-tls` is on; the configuration is
//! refused that asks for it without.

use rustls::ClientConfig;
use zookeeper_client::{Client, Connector, Error};

use crate::config::{ConfigError, TlsPem, ZookeeperSection};

/// What TLS to the ensemble takes.
pub(super) struct Tls {
    /// For the client of ZooKeeper.
    options: Options,
    /// The same for ours, which finds out what fails.
    pub(super) client: ClientConfig,
}

impl Tls {
    /// As the configuration has it, with what the files hold that it names; `None` where it is without.
    pub(super) fn of(config: &ZookeeperSection) -> Result<Option<Self>, ConfigError> {
        let of = |pem: TlsPem| {
            // First: without a choice of cryptography, of which there are two here, the other one panics.
            let client = pem.client()?;
            Ok(Self { client, options: options(&pem)? })
        };
        config.tls_pem()?.map(of).transpose()
    }
}

#[cfg(feature = "zookeeper-tls")]
type Options = zookeeper_client::TlsOptions;

/// Connects a client, over TLS where there is some.
#[cfg(feature = "zookeeper-tls")]
pub(super) async fn connect(connector: Connector, hosts: &str, tls: Option<&Tls>) -> Result<Client, Error> {
    match tls {
        Some(tls) => connector.with_tls(tls.options.clone()).secure_connect(hosts).await,
        None => connector.connect(hosts).await,
    }
}

#[cfg(feature = "zookeeper-tls")]
fn options(pem: &TlsPem) -> Result<Options, ConfigError> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;

    let refuse = |key: &str, error: Error| ConfigError::new(key, error.to_string());
    let mut authorities = String::new();
    for certificate in pem.trusted()? {
        let text = BASE64.encode(certificate);
        authorities += &format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    }
    let options = Options::new().with_pem_ca(&authorities);
    let options = options.map_err(|error| refuse("lock.zookeeper.ca_file", error))?;
    let Some(identity) = &pem.identity else { return Ok(options) };
    let options = options.with_pem_identity(&identity.certificate, &identity.key);
    options.map_err(|error| refuse("lock.zookeeper.key_file", error))
}

#[cfg(not(feature = "zookeeper-tls"))]
type Options = std::convert::Infallible;

#[cfg(not(feature = "zookeeper-tls"))]
pub(super) async fn connect(connector: Connector, hosts: &str, tls: Option<&Tls>) -> Result<Client, Error> {
    match tls {
        Some(tls) => match tls.options {},
        None => connector.connect(hosts).await,
    }
}

#[cfg(not(feature = "zookeeper-tls"))]
fn options(_: &TlsPem) -> Result<Options, ConfigError> {
    Err(ConfigError::new("lock.zookeeper.tls", "this program was built without it"))
}
