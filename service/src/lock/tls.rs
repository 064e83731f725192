//! What an error of TLS says about the configuration.

/// Which key of a section may mend what failed with `error` over TLS, where that is known.
pub(super) fn hint(section: &str, error: &str) -> Option<String> {
    let has = |what: &str| error.contains(what);
    // The second is of an authority that has the name of one that is trusted.
    if has("UnknownIssuer") || has("BadSignature") {
        return Some(format!("its authority is not trusted; {section}.ca_file names one that is"));
    }
    if has("CertificateRequired") {
        return Some(format!("it asks for a certificate: {section}.cert_file"));
    }
    // Before TLS 1.3, also what is said to those who show none.
    let is_refused =
        ["BadCertificate", "CertificateUnknown", "DecryptError", "HandshakeFailure", "UnknownCA"]
            .into_iter()
            .any(has);
    is_refused.then(|| format!("it does not accept the certificate, or wants one, in {section}.cert_file"))
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, CertificateError, Error};

    use super::*;

    #[test]
    fn the_key_is_named_that_mends_it() {
        for (error, key) in [
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "lock.etcd.ca_file"),
            (Error::InvalidCertificate(CertificateError::BadSignature), "lock.etcd.ca_file"),
            (Error::AlertReceived(AlertDescription::CertificateRequired), "lock.etcd.cert_file"),
            (Error::AlertReceived(AlertDescription::BadCertificate), "lock.etcd.cert_file"),
            (Error::AlertReceived(AlertDescription::UnknownCA), "lock.etcd.cert_file"),
            (Error::AlertReceived(AlertDescription::DecryptError), "lock.etcd.cert_file"),
        ] {
            let hint = hint("lock.etcd", &error.to_string());
            assert!(hint.as_ref().is_some_and(|hint| hint.contains(key)), "{error}: {hint:?}");
        }
        assert_eq!(hint("lock.etcd", "connection refused"), None);
    }
}
