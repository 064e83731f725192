//! What is logged, and how; where traces go.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// What is logged, and how. Logs go to standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// "text" has lines for people, "json" has one object a line. Logs go to standard error; the variable
    /// RUST_LOG chooses which: "info" unless it is set, "warn" for fewer, "order_service=debug,info" for
    /// more, "info,access=off" for all but requests.
    pub format: LogFormat,
    /// Whether every request is logged. When false, only those are that were answered with a status from 500
    /// on, or took longer than log.slow; of these at most 20 a second.
    pub access: bool,
    /// How long a request may take before it is logged even when log.access is false.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub slow: Duration,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Text, access: false, slow: Duration::from_secs(2) }
    }
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySection {
    /// The OpenTelemetry collector that gets the traces of requests, by OTLP over HTTP: "http://HOST:4318",
    /// to which /v1/traces is added. It is without TLS: the collector is beside the service. When empty,
    /// nothing is traced.
    pub otlp_endpoint: String,
    /// The share of requests that are traced, from 0 to 1, of those that come without a traceparent; those
    /// that come with one are traced if it says that they are sampled.
    pub sample_ratio: f64,
}

impl Default for TelemetrySection {
    fn default() -> Self {
        Self { otlp_endpoint: String::new(), sample_ratio: 1.0 }
    }
}

impl TelemetrySection {
    /// Refuses what cannot work, naming the key.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(ConfigError::new("telemetry.sample_ratio", "must be from 0 to 1"));
        }
        if self.otlp_endpoint.is_empty() {
            return Ok(());
        }
        let refuse = |why: &str| Err(ConfigError::new("telemetry.otlp_endpoint", why));
        let Some(authority) = self.otlp_endpoint.strip_prefix("http://") else {
            return refuse("must begin with http://: the collector is reached without TLS");
        };
        let authority = authority.trim_end_matches('/');
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if authority.contains('@') {
            return refuse("has a user or a password, which are not used");
        }
        if authority.contains(['/', '?', '#', ' ', ',']) || !has_port {
            return refuse("must be http://HOST:PORT");
        }
        Ok(())
    }
}
