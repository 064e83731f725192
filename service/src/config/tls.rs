//! What a connection over TLS needs, from the files that a section names.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::ConfigError;

/// The files that a section names, in its keys `ca_file`, `cert_file` and `key_file`.
pub(super) struct TlsFiles<'a> {
    pub(super) section: &'static str,
    pub(super) ca: Option<&'a Path>,
    pub(super) cert: Option<&'a Path>,
    pub(super) key: Option<&'a Path>,
}

impl TlsFiles<'_> {
    /// Refuses a certificate without its key, and, where there is no TLS, all: `otherwise` says why.
    pub(super) fn check(&self, is_tls: bool, otherwise: &str) -> Result<(), ConfigError> {
        let refuse = |name: &str, why: &str| Err(ConfigError::new(self.key_of(name), why));
        let files = [(CA, self.ca), (CERT, self.cert), (KEY, self.key)];
        match files.into_iter().find(|(_, file)| file.is_some()) {
            Some((name, _)) if !is_tls => refuse(name, otherwise),
            _ if self.cert.is_some() && self.key.is_none() => {
                refuse(CERT, &format!("needs {}", self.key_of(KEY)))
            }
            _ if self.key.is_some() && self.cert.is_none() => {
                refuse(KEY, &format!("needs {}", self.key_of(CERT)))
            }
            _ => Ok(()),
        }
    }

    /// Reads the files. Fails where one cannot be read, or does not hold what it should.
    pub(super) fn read(&self) -> Result<TlsPem, ConfigError> {
        let authorities = self.ca.map(|file| self.pem(CA, file, "CERTIFICATE")).transpose()?;
        let identity = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some(TlsIdentity {
                certificate: self.pem(CERT, cert, "CERTIFICATE")?,
                key: self.pem(KEY, key, "PRIVATE KEY")?,
            }),
            _ => None,
        };
        Ok(TlsPem { authorities, identity, section: self.section })
    }

    fn pem(&self, name: &str, file: &Path, what: &str) -> Result<String, ConfigError> {
        let refuse = |why: String| ConfigError::new(self.key_of(name), format!("{} {why}", file.display()));
        let text =
            std::fs::read_to_string(file).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        match text.contains("-----BEGIN ") && text.contains(&format!("{what}-----")) {
            true => Ok(text),
            false => Err(refuse(format!("holds no {what} in PEM"))),
        }
    }

    fn key_of(&self, name: &str) -> String {
        format!("{}.{name}", self.section)
    }
}

const CA: &str = "ca_file";
const CERT: &str = "cert_file";
const KEY: &str = "key_file";

/// What the files of a section hold, in PEM.
pub(crate) struct TlsPem {
    /// Who is trusted to vouch for servers; those whom the system trusts where it is `None`.
    pub(crate) authorities: Option<String>,
    /// What is shown to servers that ask for it.
    pub(crate) identity: Option<TlsIdentity>,
    section: &'static str,
}

/// A certificate, and its private key.
pub(crate) struct TlsIdentity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl TlsPem {
    /// A client that verifies servers, also that they have the name by which they were called. Fails where
    /// the files do not hold what they should. Clients that are not made of it can be made after it: the
    /// process has chosen its cryptography then.
    pub(crate) fn client(&self) -> Result<ClientConfig, ConfigError> {
        install_provider();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what they need")
            .with_root_certificates(self.roots()?);
        let Some(identity) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let chain = self.certificates(CERT, &identity.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
        let key = key.map_err(|error| self.broken(KEY, error))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| self.broken(KEY, error))
    }

    /// Those who are trusted to vouch for servers.
    pub(crate) fn trusted(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        match &self.authorities {
            Some(authorities) => self.certificates(CA, authorities),
            None => Ok(rustls_native_certs::load_native_certs().certs),
        }
    }

    fn roots(&self) -> Result<RootCertStore, ConfigError> {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(self.trusted()?);
        match (added, &self.authorities) {
            (0, Some(_)) => Err(self.broken(CA, "no certificate of an authority in it can be read")),
            (0, None) => Err(self.broken(CA, "has to be set: the system trusts no authority")),
            _ => Ok(roots),
        }
    }

    fn certificates(&self, name: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
        certificates
            .collect::<Result<_, _>>()
            .map_err(|error| self.broken(name, format!("it is broken PEM: {error}")))
    }

    fn broken(&self, name: &str, why: impl std::fmt::Display) -> ConfigError {
        ConfigError::new(format!("{}.{name}", self.section), why.to_string())
    }
}

/// Whether a certificate can be for it: the name of a host, or an IP address.
pub(super) fn is_name(host: &str) -> bool {
    ServerName::try_from(host).is_ok()
}

/// Chooses ring for those clients that take what the process has chosen: where more than one is compiled in,
/// they cannot choose themselves. A process that has chosen already keeps its choice.
pub(super) fn install_provider() {
    ring::default_provider().install_default().ok();
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pem(authorities: Option<&str>, certificate: &str, key: &str) -> TlsPem {
        let identity = TlsIdentity { certificate: certificate.into(), key: key.into() };
        TlsPem { authorities: authorities.map(str::to_owned), identity: Some(identity), section: "lock.etcd" }
    }

    #[test]
    fn a_client_is_made_of_what_the_files_hold_or_refused_with_the_key_that_is_to_blame() {
        let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let params = CertificateParams::new(vec!["shop".to_owned()]).expect("parameters");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let (key, other) = (key.serialize_pem(), other.serialize_pem());
        let client = pem(Some(&certificate), &certificate, &key).client();
        assert!(client.is_ok_and(|client| client.client_auth_cert_resolver.has_certs()));
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        let nothing = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (pem, name) in [
            (pem(Some(broken), &certificate, &key), "lock.etcd.ca_file"),
            (pem(Some(nothing), &certificate, &key), "lock.etcd.ca_file"),
            (pem(Some(&certificate), broken, &key), "lock.etcd.cert_file"),
            (pem(Some(&certificate), &certificate, &certificate), "lock.etcd.key_file"),
            (pem(Some(&certificate), &certificate, &other), "lock.etcd.key_file"),
        ] {
            assert_eq!(pem.client().expect_err(name).key, name);
        }
    }
}
