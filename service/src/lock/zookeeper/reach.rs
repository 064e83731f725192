//! Whether the ensemble can be reached, and if not, why not: the client goes on trying, and says no more than
//! that it took too long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::CONNECTING;
use super::tls::Tls;
use crate::config::ZookeeperSection;
use crate::lock::tls::hint;

/// How long a server may take to refuse a certificate after it has shown its own.
const REFUSAL: Duration = Duration::from_millis(300);

/// Whether one of the servers takes connections, over TLS where there is some.
pub(super) async fn reachable(config: &ZookeeperSection, tls: Option<&Tls>) -> Result<(), String> {
    let mut refused = Vec::new();
    for (host, port) in config.addresses() {
        let connected = async {
            match tls {
                Some(tls) => explained(shake_hands(host, port, &Arc::new(tls.client.clone())).await?),
                None => TcpStream::connect((host, port)).await.map(drop),
            }
        };
        match timeout(answer_time(config), connected).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => refused.push(format!("{host}:{port}: {error}")),
            Err(_) => refused.push(format!("{host}:{port}: no answer in time")),
        }
    }
    Err(refused.join("; "))
}

/// Whether one of the servers that take connections speaks TLS, which may be why they serve nobody without.
pub(super) async fn speaks_tls(config: &ZookeeperSection) -> Option<String> {
    let client = Arc::new(trusts_nobody());
    for (host, port) in config.addresses() {
        let met = timeout(answer_time(config), shake_hands(host, port, &client)).await;
        if let Ok(Ok(Met::Accepted | Met::Refused(_))) = met {
            return Some(format!("{host}:{port}: it speaks TLS on this port: lock.zookeeper.tls = true"));
        }
    }
    None
}

/// How long a server may take to answer: one that has not spoken TLS before takes its time.
fn answer_time(config: &ZookeeperSection) -> Duration {
    config.session_timeout.max(CONNECTING)
}

/// What a handshake of TLS came to.
enum Met {
    /// It ended well.
    Accepted,
    /// One of the two did not accept the other.
    Refused(io::Error),
    /// The server does not speak TLS.
    Stranger(io::Error),
}

fn explained(met: Met) -> io::Result<()> {
    let (error, hint) = match met {
        Met::Accepted => return Ok(()),
        Met::Refused(error) => {
            let hint = hint("lock.zookeeper", &error.to_string());
            (error, hint)
        }
        Met::Stranger(error) => (error, Some("does it speak TLS on this port? lock.zookeeper.tls".into())),
    };
    let Some(hint) = hint else { return Err(error) };
    Err(io::Error::other(format!("{error} ({hint})")))
}

async fn shake_hands(host: &str, port: u16, client: &Arc<ClientConfig>) -> io::Result<Met> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TcpStream::connect((host, port)).await?;
    let failed = match TlsConnector::from(Arc::clone(client)).connect(name, stream).await {
        // A certificate that is missing or bad is refused when the client is done, since TLS 1.3.
        Ok(mut stream) if stream.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3) => {
            match timeout(REFUSAL, stream.read_u8()).await {
                Ok(Err(error)) => error,
                Ok(Ok(_)) | Err(_) => return Ok(Met::Accepted),
            }
        }
        Ok(_) => return Ok(Met::Accepted),
        Err(error) => error,
    };
    let cause = failed.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    Ok(match cause {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)) => Met::Refused(failed),
        _ => Met::Stranger(failed),
    })
}

/// For servers of which it is asked only whether they speak TLS.
fn trusts_nobody() -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    builder
        .with_safe_default_protocol_versions()
        .expect("ring has what they need")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}
