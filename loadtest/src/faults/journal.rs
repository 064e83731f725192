//! What was broken so far, for whoever watches while it goes on.

use std::sync::{Arc, Mutex, MutexGuard};

use super::FaultMark;

/// The faults of a run, as they are injected and cleared. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct FaultJournal(Arc<Mutex<Vec<FaultMark>>>);

impl FaultJournal {
    /// The faults so far.
    pub fn marks(&self) -> Vec<FaultMark> {
        self.lock().clone()
    }

    /// Adds a fault, and returns its number.
    pub(super) fn add(&self, mark: FaultMark) -> usize {
        let mut marks = self.lock();
        marks.push(mark);
        marks.len() - 1
    }

    /// The number of the fault that was added last.
    pub(super) fn last(&self) -> usize {
        self.lock().len() - 1
    }

    /// Changes what is said of a fault.
    pub(super) fn change(&self, number: usize, change: impl FnOnce(&mut FaultMark)) {
        change(&mut self.lock()[number]);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<FaultMark>> {
        self.0.lock().expect("nothing panics while it holds this")
    }
}
