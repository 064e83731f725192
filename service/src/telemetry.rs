//! Logs, metrics and traces.
//!
//! | module | what it holds |
//! |---|---|
//! | [`logging`] | where the log goes, and in which form |
//! | [`metrics`] | what is counted and measured |
//! | `exposition` | metrics as text, in the two formats that Prometheus reads |
//! | `process` | what the operating system says of the process |
//! | [`otlp`] | the export of spans to a collector |
//! | [`tracer`] | spans of requests |
//! | [`trace`] | the identity of a trace, as requests carry it |

pub mod logging;
pub mod metrics;
mod exposition;
mod process;
pub mod otlp;
pub mod tracer;
pub mod trace;

pub use logging::start_logging;
pub use metrics::{CheckoutMetrics, Exposition, LockMetrics, Metrics, OrderMetrics};
