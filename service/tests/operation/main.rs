//! What operators rely on beside the answers: logs, metrics, alerts, traces, and the files to deploy with.
//! Each test has a process of its own, as operators do.

mod alerts;
mod dependencies;
mod deployment;
mod logs;
mod metrics;
mod process;
mod traces;
