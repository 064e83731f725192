//! Who may change products, and where.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::secrets::{self, Secret};

/// Who may change products.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSection {
    /// The bearer token of the calls under /v1/admin, at least 32 bytes, as `openssl rand -hex 32` makes
    /// them; they are forbidden when it is empty.
    pub token: Secret,
    /// A file that has the token, instead of admin.token, which it outranks; a newline at its end is not
    /// part of it.
    pub token_file: Option<PathBuf>,
    /// An address of their own for the calls under /v1/admin and for /metrics, which are then not found at
    /// server.listen; /livez and /readyz are at both. Port 0 picks a free one, which is printed.
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// Whether a product that exists may be reset, which deletes its orders.
    pub allow_reset: bool,
}

impl AdminSection {
    pub(super) fn read_token(&mut self) -> Result<(), ConfigError> {
        secrets::read_token("admin.token_file", self.token_file.as_deref(), &mut self.token)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.token.check("admin.token")
    }
}
