//! How orders are combined, guarded and paid.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The longest time within which an order may have to be paid.
const LONGEST_PAYMENT_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);

/// How orders are combined and guarded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckoutSection {
    /// The most orders in one transaction; 1 is textbook mode: one order per lock hold.
    pub max_batch: usize,
    /// How long one lock hold takes further batches while orders wait.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub max_hold: Duration,
    /// How long a hold that has served all orders waits for the next one, where that is likely: after the
    /// last ones, it came as soon. Within max_hold, and not in textbook mode; 0 is not at all.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub linger: Duration,
    /// The most orders that wait for one product on one replica; more are refused at once.
    pub queue: usize,
    /// "version" refuses a write when what it read has changed; "off" shows what the lock alone does. When
    /// unset: "version", but "off" for the strategies none and local, which are always without.
    pub guard: Option<Guard>,
    /// Within which time an order has to be paid, by POST /v1/orders/ID/pay; one that is not expires. When
    /// unset, orders are confirmed as they are placed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub payment_window: Option<Duration>,
    /// What takes the units, where orders have to be paid: "order" reserves them until the payment window is
    /// over, "payment" leaves them to whoever pays first.
    pub decide_by: DecideBy,
    /// Time spent between read and write: the course's shop needs a second to process an order.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub think_time: Duration,
    /// The most lock holds that are remembered for /v1/admin/products/SKU/holds, of all products together; 0
    /// is none.
    pub holds_kept: usize,
}

impl Default for CheckoutSection {
    fn default() -> Self {
        Self {
            max_batch: 256,
            max_hold: Duration::from_millis(10),
            linger: Duration::from_millis(1),
            queue: 10_000,
            guard: None,
            payment_window: None,
            decide_by: DecideBy::Order,
            think_time: Duration::ZERO,
            holds_kept: 10_000,
        }
    }
}

impl CheckoutSection {
    /// By when orders have to be paid, and what that means; `None` where they need not be.
    pub fn payment_rule(&self) -> Option<PaymentRule> {
        self.payment_window.map(|window| PaymentRule { decide_by: self.decide_by, window })
    }

    /// Refuses what cannot work, naming the key.
    pub(super) fn check_payment(&self) -> Result<(), ConfigError> {
        let bounds = Duration::from_millis(10)..=LONGEST_PAYMENT_WINDOW;
        match self.payment_window {
            Some(window) if !bounds.contains(&window) => {
                Err(ConfigError::new("checkout.payment_window", "must be from 10ms to 30days"))
            }
            None if self.decide_by == DecideBy::Payment => {
                let why = "decides by payment, so orders have to be paid: set checkout.payment_window";
                Err(ConfigError::new("checkout.decide_by", why))
            }
            _ => Ok(()),
        }
    }
}

/// How orders are paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaymentRule {
    /// What takes the units.
    pub decide_by: DecideBy,
    /// Within which time an order has to be paid.
    pub window: Duration,
}

/// What takes the units of an order that has to be paid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DecideBy {
    /// The order: they are reserved until it is paid, or its time is over.
    #[default]
    Order,
    /// The payment: whoever pays first has them.
    Payment,
}

impl DecideBy {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Payment => "payment",
        }
    }
}

/// What protects a write from what happened since its read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// The write is refused when the product's version is not the one that was read, or when the lease is
    /// lost.
    Version,
    /// Nothing: the write happens whatever happened.
    Off,
}

impl Guard {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Off => "off",
        }
    }
}
