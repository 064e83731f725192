//! A server that lets a role in over TLS only.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use nix::unistd::User;

/// What a server proves who it is with, and whom it trusts; all in PEM.
#[derive(Debug, Clone)]
pub struct PostgresTls {
    /// The server's certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authority that signs clients' certificates; one is asked for where it is given.
    pub client_authority: Option<String>,
}

/// Who comes in over TLS with a password, and not otherwise.
pub(super) const ROLE: &str = "shop";

/// The password of [`ROLE`].
pub(super) const PASSWORD: &str = "hair dryer";

impl PostgresTls {
    /// Writes what the server reads at its start into its `data`, which is `user`'s.
    pub(super) fn install(&self, data: &Path, user: Option<&User>) -> io::Result<()> {
        let write = |name: &str, text: &str| -> io::Result<()> {
            let file = data.join(name);
            std::fs::write(&file, text)?;
            // The server refuses a key that others may read.
            std::fs::set_permissions(&file, Permissions::from_mode(0o600))?;
            let ids = user.map(|user| (user.uid.as_raw(), user.gid.as_raw()));
            chown(&file, ids.map(|ids| ids.0), ids.map(|ids| ids.1))
        };
        write("server.pem", &self.certificate)?;
        write("server.key", &self.key)?;
        let mut settings = std::fs::read_to_string(data.join("postgresql.conf"))?;
        settings += "\nssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n";
        let mut client = "";
        if let Some(authority) = &self.client_authority {
            write("clients.pem", authority)?;
            settings += "ssl_ca_file = 'clients.pem'\n";
            client = " clientcert=verify-ca";
        }
        write("postgresql.conf", &settings)?;
        let role = format!("hostssl all {ROLE} 127.0.0.1/32 scram-sha-256{client}\n");
        // Whoever made the server still comes in, and nobody else.
        write("pg_hba.conf", &format!("{role}host all stocklock 127.0.0.1/32 trust\n"))
    }
}
