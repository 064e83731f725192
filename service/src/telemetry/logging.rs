//! The log: to standard error, as text or as JSON.

use std::fmt;
use std::io::stderr;
use std::sync::OnceLock;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::command_line::is_coloured;
use crate::config::{LogFormat, LogSection};

/// How many lines wait for whoever reads the log. Those that come when it is full are dropped.
const WAITING_LINES: usize = 10_000;

/// Counts the lines that were dropped, once there is a log.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Sends logs to standard error; `RUST_LOG` chooses what, `info` unless it is set. Lines are written by a
/// thread of their own: a log that nobody reads, or that cannot be written, is no reason to stop selling.
/// The drop of the guard waits until what was logged before is written, for a second at most.
#[must_use = "its drop ends the log"]
pub fn start_logging(section: &LogSection) -> WorkerGuard {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES);
    let (writer, guard) = lines.thread_name("log").finish(stderr());
    DROPPED.set(writer.error_counter()).ok();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    match section.format {
        LogFormat::Text => log.with_ansi(is_coloured(&stderr())).init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).init(),
    }
    guard
}

/// The metrics of this process's log.
#[derive(Debug)]
pub(super) struct Log;

impl Collector for Log {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let dropped = DROPPED.get().map_or(0, ErrorCounter::dropped_lines);
        let dropped = ConstCounter::new(u64::try_from(dropped).unwrap_or(u64::MAX));
        let help = "Lines of the log that were dropped, since nobody read those before.";
        dropped.encode(encoder.encode_descriptor("log_lines_dropped", help, None, dropped.metric_type())?)
    }
}
