//! The kinds of problem documents (RFC 9457) with which the service answers what it does not do.

use std::fmt;

use order_service::api::Problem;

/// What the type of a problem document begins with; the kind's slug follows.
const TYPES: &str = "/problems/";

/// A kind of problem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// Admin calls are switched off.
    AdminDisabled,
    /// Something that the service depends on is not available.
    DependencyDown,
    /// Another request with the same idempotency key is under way.
    IdempotencyInFlight,
    /// The idempotency key belongs to another request.
    IdempotencyKeyReused,
    /// There is not enough stock.
    InsufficientStock,
    /// The lock was not free in time.
    LockTimeout,
    /// The request cannot be read.
    Malformed,
    /// The path does not know the method.
    MethodNotAllowed,
    /// There is no such order.
    NoSuchOrder,
    /// There is no such product.
    NoSuchProduct,
    /// There is nothing at the path.
    NoSuchRoute,
    /// The order cannot be cancelled.
    NotCancellable,
    /// The order cannot be paid.
    NotPayable,
    /// The order was changed at the same moment.
    OrderChanged,
    /// It is not known whether something was written.
    OutcomeUnknown,
    /// There is too much to do.
    Overloaded,
    /// The body is too long.
    PayloadTooLarge,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The product exists and may not be reset.
    ResetNotAllowed,
    /// The replica is stopping.
    ShuttingDown,
    /// The product has too many orders to be reset.
    TooManyOrders,
    /// The credentials are missing or wrong.
    Unauthorized,
    /// The media type of the body is not JSON.
    UnsupportedMediaType,
    /// The request can be read, and has fields that are wrong.
    Validation,
    /// The slug of a kind that is not known here, as another service may have it.
    Other(String),
}

impl ProblemKind {
    /// All kinds that are known by name.
    pub const ALL: [Self; 24] = [
        Self::AdminDisabled,
        Self::DependencyDown,
        Self::IdempotencyInFlight,
        Self::IdempotencyKeyReused,
        Self::InsufficientStock,
        Self::LockTimeout,
        Self::Malformed,
        Self::MethodNotAllowed,
        Self::NoSuchOrder,
        Self::NoSuchProduct,
        Self::NoSuchRoute,
        Self::NotCancellable,
        Self::NotPayable,
        Self::OrderChanged,
        Self::OutcomeUnknown,
        Self::Overloaded,
        Self::PayloadTooLarge,
        Self::RequestTimeout,
        Self::ResetNotAllowed,
        Self::ShuttingDown,
        Self::TooManyOrders,
        Self::Unauthorized,
        Self::UnsupportedMediaType,
        Self::Validation,
    ];

    /// The kind of a problem document.
    pub fn of(problem: &Problem) -> Self {
        Self::from_slug(problem.kind.strip_prefix(TYPES).unwrap_or(&problem.kind))
    }

    /// The kind with this slug.
    pub fn from_slug(slug: &str) -> Self {
        let known = Self::ALL.into_iter().find(|kind| kind.slug() == slug);
        known.unwrap_or_else(|| Self::Other(slug.into()))
    }

    /// The last part of the problem document's type.
    pub fn slug(&self) -> &str {
        match self {
            Self::AdminDisabled => "admin-disabled",
            Self::DependencyDown => "dependency-down",
            Self::IdempotencyInFlight => "idempotency-in-flight",
            Self::IdempotencyKeyReused => "idempotency-key-reused",
            Self::InsufficientStock => "insufficient-stock",
            Self::LockTimeout => "lock-timeout",
            Self::Malformed => "malformed",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::NoSuchOrder => "no-such-order",
            Self::NoSuchProduct => "no-such-product",
            Self::NoSuchRoute => "no-such-route",
            Self::NotCancellable => "not-cancellable",
            Self::NotPayable => "not-payable",
            Self::OrderChanged => "order-changed",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Overloaded => "overloaded",
            Self::PayloadTooLarge => "payload-too-large",
            Self::RequestTimeout => "request-timeout",
            Self::ResetNotAllowed => "reset-not-allowed",
            Self::ShuttingDown => "shutting-down",
            Self::TooManyOrders => "too-many-orders",
            Self::Unauthorized => "unauthorized",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::Validation => "validation",
            Self::Other(slug) => slug,
        }
    }

    /// Whether the refusal says nothing of the request itself: the same request may be served later.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::LockTimeout
                | Self::Overloaded
                | Self::DependencyDown
                | Self::ShuttingDown
                | Self::IdempotencyInFlight
                | Self::OrderChanged
        )
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.slug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_its_slug_and_an_unknown_one_is_kept() {
        for kind in ProblemKind::ALL {
            assert_eq!(ProblemKind::from_slug(kind.slug()), kind);
        }
        assert_eq!(ProblemKind::from_slug("sold-out-elsewhere").to_string(), "sold-out-elsewhere");
    }
}
