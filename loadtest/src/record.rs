//! The record of a run: what was sent, and what was answered.

use std::time::{Duration, Instant};

use crate::attempt::Attempt;
use crate::side_operation::SideOperation;

/// Everything that a run has sent, and what was answered.
#[derive(Debug, Clone)]
pub struct Record {
    /// Every attempt, in the order of their indices; a replay follows its original.
    pub attempts: Vec<Attempt>,
    /// Cancellations, restocks and reads of the stock.
    pub side_operations: Vec<SideOperation>,
    /// From the first attempt to the last answer.
    pub took: Duration,
    /// The processor time that this process spent meanwhile.
    pub processor_time: Duration,
    /// When the first attempt could be sent, by this host's monotonic clock.
    pub begun_ns: u64,
    /// The same moment, from which the times of attempts count.
    pub start: Instant,
}

impl Record {
    /// Puts the attempts in the order of their indices, and each before its repetitions, in the order in
    /// which they were sent.
    pub(crate) fn sort(&mut self) {
        self.attempts.sort_by_key(|attempt| (attempt.index, attempt.replay, attempt.sent));
    }
}
