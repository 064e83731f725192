//! What an error of the client says about the connection and the session.

use zookeeper_client::Error;

/// Whether an error is the connection's, not the session's.
pub(super) fn is_transient(error: &Error) -> bool {
    matches!(
        error,
        Error::ConnectionLoss | Error::Timeout | Error::Custom(_) | Error::Throttled | Error::NoHosts
    )
}

/// Whether the session is over, and another one can be opened.
pub(super) fn is_end_of_session(error: &Error) -> bool {
    matches!(error, Error::SessionExpired | Error::ClientClosed | Error::SessionMoved)
}
