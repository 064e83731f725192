//! An authority that makes certificates for tests.

use std::path::PathBuf;

use lab::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// An authority, and the files that it has made.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        // Not the name of those whom it vouches for.
        params.distinguished_name = named("an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let authority = Self {
            issuer: issuer.expect("a certificate"),
            directory: tempfile::tempdir().expect("a directory"),
        };
        std::fs::write(authority.file("ca.pem"), authority.issuer.pem()).expect("a file");
        authority
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// Makes a certificate for a name, `NAME.pem` and `NAME.key`, and returns the files of a server that has
    /// it.
    pub fn certify(&self, name: &str, asks_clients: bool) -> TlsFiles {
        self.certify_as(name, named(name), asks_clients)
    }

    /// The same without a common name.
    pub fn certify_namelessly(&self, name: &str) -> TlsFiles {
        self.certify_as(name, DistinguishedName::new(), false)
    }

    fn certify_as(&self, name: &str, distinguished_name: DistinguishedName, asks_clients: bool) -> TlsFiles {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.distinguished_name = distinguished_name;
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (cert_file, key_file) = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
        std::fs::write(&cert_file, certificate.pem()).expect("a file");
        std::fs::write(&key_file, key.serialize_pem()).expect("a file");
        TlsFiles { cert: cert_file, key: key_file, ca: self.file("ca.pem"), asks_clients }
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}
