//! A lock that counts: how long its leases were waited for and held, and how many were lost.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Acquire, Hold, Lock, LockError, LockState, Mode, Note, Validity, Waited};
use crate::telemetry::LockMetrics;

/// A wrapper that measures any lock.
pub struct InstrumentedLock {
    inner: Arc<dyn Lock>,
    metrics: LockMetrics,
}

impl InstrumentedLock {
    /// A lock like `inner` that counts into `metrics`.
    pub fn new(inner: Arc<dyn Lock>, metrics: LockMetrics) -> Self {
        Self { inner, metrics }
    }
}

#[async_trait]
impl Lock for InstrumentedLock {
    fn begin(&self, key: &str, mode: Mode) -> Box<dyn Acquire> {
        let inner = self.inner.begin(key, mode);
        Box::new(MeasuredAcquire { inner, asked: Instant::now(), metrics: self.metrics.clone() })
    }

    fn lease(&self) -> Option<Duration> {
        self.inner.lease()
    }

    async fn try_out(&self, deadline: Instant) -> Result<(), LockError> {
        // No hold of an order's, and so not counted.
        self.inner.try_out(deadline).await
    }

    async fn state(&self, key: &str) -> Result<LockState, LockError> {
        self.inner.state(key).await
    }

    async fn shutdown(&self) {
        self.inner.shutdown().await;
    }
}

struct MeasuredAcquire {
    inner: Box<dyn Acquire>,
    asked: Instant,
    metrics: LockMetrics,
}

#[async_trait]
impl Acquire for MeasuredAcquire {
    async fn wait(&mut self, deadline: Instant) -> Waited {
        match self.inner.wait(deadline).await {
            Waited::Granted(lease) => {
                let acquired = Instant::now();
                self.metrics.wait_seconds.observe((acquired - self.asked).as_secs_f64());
                self.metrics.holds.inc();
                let validity = lease.validity().clone();
                let metrics = self.metrics.clone();
                let measured = lease.wrap(|inner| Box::new(Measured { inner, acquired, validity, metrics }));
                Waited::Granted(measured)
            }
            waited => {
                if let Waited::Pending(error) | Waited::Failed(error) = &waited {
                    match error {
                        LockError::Timeout => self.metrics.timeouts.inc(),
                        LockError::Unavailable { .. } => self.metrics.errors.inc(),
                    };
                }
                waited
            }
        }
    }
}

struct Measured {
    inner: Option<Box<dyn Hold>>,
    acquired: Instant,
    validity: Validity,
    metrics: LockMetrics,
}

#[async_trait]
impl Hold for Measured {
    async fn release(mut self: Box<Self>, note: Option<Note>) {
        let inner = self.inner.take();
        drop(self); // the hold ends when the release is sent, not when it is answered
        if let Some(inner) = inner {
            inner.release(note).await;
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.metrics.hold_seconds.observe(self.acquired.elapsed().as_secs_f64());
        if self.validity.check().is_err() {
            self.metrics.lost_leases.inc();
        }
    }
}
