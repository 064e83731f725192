//! What the starts of all servers have in common: free ports, and how they fail.

use std::net::{Ipv4Addr, TcpListener};

use crate::{Process, ProcessError};

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its program is not there.
    #[error("{program} is not installed; {install}")]
    NotInstalled {
        /// Which program was looked for.
        program: &'static str,
        /// What would install it.
        install: &'static str,
    },
    /// Its directory cannot be prepared.
    #[error("cannot prepare {what}: {source}")]
    Prepare {
        /// What failed.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// Its data directory cannot be initialised.
    #[error("its data cannot be made: {0}")]
    Init(String),
    /// It does not start.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// How often a server is started before a taken address is an error.
const ATTEMPTS: usize = 5;

/// What every server says in its log when it finds its address taken, in capitals or not.
const ADDRESS_IN_USE: &str = "address already in use";

impl ServerError {
    /// Whether another process has taken the address between its choice and the server's start.
    pub(crate) fn is_address_in_use(&self) -> bool {
        matches!(self, Self::Process(ProcessError::NotReady { tail, .. }) if says_address_in_use(tail))
    }

    /// For what fails while a server is prepared.
    pub(crate) fn prepare(what: &str) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_owned();
        move |source| Self::Prepare { what, source }
    }
}

/// Calls `start`, which chooses new ports each time, until it does not fail for their being taken.
pub(crate) async fn on_fresh_ports<T, Started: Future<Output = Result<T, ServerError>>>(
    start: impl Fn() -> Started,
) -> Result<T, ServerError> {
    for _ in 1..ATTEMPTS {
        match start().await {
            Err(error) if error.is_address_in_use() => {}
            started_or_failed => return started_or_failed,
        }
    }
    start().await
}

/// A port that no process listens on at this moment.
pub(crate) fn free_port() -> Result<u16, ServerError> {
    Ok(free_ports(1)?[0])
}

/// Different ports that no process listens on at this moment.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>, ServerError> {
    // All are held until the last is chosen, or one might be chosen twice.
    let listeners: Result<Vec<_>, _> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    let ports = listeners.and_then(|listeners| {
        listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<Result<_, _>>()
    });
    ports.map_err(ServerError::prepare("a free port"))
}

/// Whether a server's log says that one of its ports is taken.
pub(crate) fn found_address_in_use(process: &Process) -> bool {
    says_address_in_use(&process.log_tail())
}

fn says_address_in_use(log: &str) -> bool {
    log.to_ascii_lowercase().contains(ADDRESS_IN_USE)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::PathBuf;

    use super::*;

    fn failure(tail: &str) -> ServerError {
        let (name, what, log) = (String::new(), String::new(), PathBuf::new());
        ProcessError::NotReady { name, what, log, tail: tail.into() }.into()
    }

    async fn attempts_until(outcome: impl Fn(usize) -> Result<(), ServerError>) -> (usize, bool) {
        let attempts = Cell::new(0);
        let started = on_fresh_ports(|| {
            attempts.set(attempts.get() + 1);
            std::future::ready(outcome(attempts.get()))
        });
        let started = started.await.is_ok();
        (attempts.get(), started)
    }

    #[tokio::test]
    async fn a_taken_address_is_tried_again_and_nothing_else_is() {
        let taken = || Err(failure("bind: Address already in use"));
        let third = attempts_until(|attempt| if attempt < 3 { taken() } else { Ok(()) });
        assert_eq!(third.await, (3, true));
        assert_eq!(attempts_until(|_| taken()).await, (ATTEMPTS, false));
        assert_eq!(attempts_until(|_| Err(failure("out of memory"))).await, (1, false));
    }

    #[test]
    fn ports_chosen_together_are_different() {
        let mut ports = free_ports(20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
