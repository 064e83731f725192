//! What happened in an experiment, as a record: the text, the drawing and the file are made from it.

use serde::{Deserialize, Serialize};

/// Something that happened, or was seen to have happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds after the experiment began.
    pub at_ms: f64,
    /// The trial that it belongs to, of an experiment that has several: `guard off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scene: Option<String>,
    /// What it was.
    pub kind: EventKind,
    /// Who did it, or where it was seen; absent for a remark about the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Party>,
    /// Whom it went to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Party>,
    /// A few words for the drawing.
    #[serde(default)]
    pub label: String,
    /// What happened, in a sentence.
    pub what: String,
}

/// What kinds of events there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A remark.
    Note,
    /// A customer sends an order, or one sends another a command.
    Sent,
    /// It is answered, and well.
    Answered,
    /// It is refused.
    Refused,
    /// The lock is asked for.
    Asked,
    /// The lock is granted: `to` holds it from here on.
    Granted,
    /// The same, of a lock that readers share.
    GrantedShared,
    /// `who` gives the lock back.
    Released,
    /// `to` loses the lock without having given it back.
    Lapsed,
    /// The stock is read.
    Read,
    /// The stock is written.
    Written,
    /// A write is refused, since the stock has changed since it was read, or the lease is over.
    StaleRefused,
    /// `who` is ended with `kill -9`.
    Crashed,
    /// `who` is stopped (SIGSTOP).
    Paused,
    /// `who` goes on.
    Resumed,
    /// Something else breaks: a link, a clock, a server.
    Broken,
    /// It is whole again.
    Mended,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 17] = [
        Self::Note,
        Self::Sent,
        Self::Answered,
        Self::Refused,
        Self::Asked,
        Self::Granted,
        Self::GrantedShared,
        Self::Released,
        Self::Lapsed,
        Self::Read,
        Self::Written,
        Self::StaleRefused,
        Self::Crashed,
        Self::Paused,
        Self::Resumed,
        Self::Broken,
        Self::Mended,
    ];

    /// Whether it is a fault, or the end of one.
    pub fn is_fault(self) -> bool {
        matches!(self, Self::Crashed | Self::Paused | Self::Resumed | Self::Broken | Self::Mended)
    }

    /// Whether somebody is told no.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Refused | Self::StaleRefused | Self::Lapsed)
    }
}

/// Somebody or something that takes part.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Party {
    /// As what.
    pub role: Role,
    /// Its name.
    pub name: String,
}

/// As what one takes part; the drawing has them from left to right in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A customer.
    Buyer,
    /// A process that wants the lock: a replica of the service, or a bare client.
    Holder,
    /// What the lock is kept on.
    Lock,
    /// What the orders are kept in.
    Store,
}

impl Party {
    /// A customer.
    pub(super) fn buyer(name: impl Into<String>) -> Self {
        Self { role: Role::Buyer, name: name.into() }
    }

    /// One that wants the lock.
    pub(super) fn holder(name: impl Into<String>) -> Self {
        Self { role: Role::Holder, name: name.into() }
    }

    /// What the lock is kept on.
    pub(super) fn lock(name: impl Into<String>) -> Self {
        Self { role: Role::Lock, name: name.into() }
    }

    /// The database with the orders.
    pub(super) fn database() -> Self {
        Self { role: Role::Store, name: "database".into() }
    }
}
