//! The log: to standard error, as text or as JSON.

use tracing_subscriber::EnvFilter;

use crate::command_line::is_coloured;
use crate::config::{LogFormat, LogSection};

/// Sends logs to standard error; `RUST_LOG` chooses what, `info` unless it is set.
pub fn start_logging(section: &LogSection) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Where a log cannot be written, that is no reason to stop selling.
        .log_internal_errors(false);
    match section.format {
        LogFormat::Text => log.with_ansi(is_coloured(&std::io::stderr())).init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).init(),
    }
}
