//! What an attempt last heard from the ensemble: the reason that is given when it has no lock by its
//! deadline.

use std::fmt;
use std::sync::{Mutex, MutexGuard};

use zookeeper_client::Error;

use super::error::is_transient;
use crate::lock::pending_reply::PendingReply;

/// What went wrong with the connection and has not come right since, and the reply that is waited for.
#[derive(Default)]
pub(super) struct AttemptStatus {
    last_error: Mutex<Option<String>>,
    pub(super) reply: PendingReply,
}

impl AttemptStatus {
    /// Notes that the connection failed.
    pub(super) fn failed(&self, error: &impl fmt::Display) {
        *self.lock() = Some(error.to_string());
    }

    /// Notes that the connection works.
    pub(super) fn recovered(&self) {
        self.lock().take();
    }

    /// Passes a result on, unless the connection failed, which is noted: `None` where the request is to be
    /// sent again, since the session may well live.
    pub(super) fn unless_transient<T>(&self, result: Result<T, Error>) -> Option<Result<T, Error>> {
        match result {
            Err(error) if is_transient(&error) => {
                self.failed(&error);
                None
            }
            result => Some(result),
        }
    }

    /// The error that lasts, or else that a reply has been pending for too long.
    pub(super) fn last_error(&self) -> Option<String> {
        let no_reply = || Some(format!("no answer for {} ms", self.reply.is_suspicious()?.as_millis()));
        self.lock().clone().or_else(no_reply)
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.last_error.lock().expect("nothing panics while it holds this")
    }
}
