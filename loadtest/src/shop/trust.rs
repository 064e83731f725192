//! Whom buyers trust: over TLS, a shop has to prove that it is the one that is named.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::description::Description;

/// Trusts those whom the system trusts, and those whom the description names.
pub(super) fn trusted(shop: &Description) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // Without any, the error of a connection says that its certificate is not trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = &shop.ca_file {
        let pem = std::fs::read(file).with_context(|| format!("ca_file: cannot read {}", file.display()))?;
        let broken = || format!("ca_file: {} is broken", file.display());
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certificates = certificates.with_context(broken)?;
        ensure!(!certificates.is_empty(), "ca_file: {} has no certificate in PEM", file.display());
        for certificate in certificates {
            roots.add(certificate).with_context(broken)?;
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("ring has what they need");
    let mut tls = builder.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}
