//! The values of an order, parsed into types that cannot be wrong.

use std::fmt;
use std::sync::Arc;

use crate::api::{self, FieldError, OrderStatus};

/// The most units one order may ask for.
pub const MAX_QUANTITY: i64 = 1_000_000;

/// The most units one restock may add, or a product may start with.
pub const MAX_STOCK: i64 = 1_000_000_000;

/// The most orders, and the most adjustments, that a product may have to be reset. They are deleted in one
/// transaction: SQLite, at 30,000 a second on a slow disk, deletes both in less time than others wait.
pub const MAX_RESETTABLE: i64 = 30_000;

/// A stock keeping unit: a letter or digit, then up to 63 letters, digits, dots, underscores and dashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sku(Arc<str>);

impl Sku {
    /// Parses a SKU.
    pub fn parse(text: &str) -> Result<Self, String> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let goes_on_well = text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if starts_well && goes_on_well && text.len() <= 64 {
            Ok(Self(text.into()))
        } else {
            Err("must be a letter or digit and then at most 63 letters, digits, '.', '_' or '-'".into())
        }
    }

    /// The SKU's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A short text for people: not blank, bounded, without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label<const MAX: usize>(String);

impl<const MAX: usize> Label<MAX> {
    /// Parses a label of at most `MAX` characters.
    pub fn parse(text: String) -> Result<Self, String> {
        if text.chars().all(char::is_whitespace) {
            Err("must not be blank".into())
        } else if text.chars().count() > MAX {
            Err(format!("must have at most {MAX} characters"))
        } else if text.chars().any(char::is_control) {
            Err("must not contain control characters".into())
        } else {
            Ok(Self(text))
        }
    }

    /// The label's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who buys.
pub type Buyer = Label<100>;

/// What people call a product.
pub type ProductName = Label<200>;

/// Why stock was added.
pub type Reason = Label<200>;

/// A number of units: at least one, at most what the constructor allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i64);

impl Quantity {
    /// Parses the quantity of an order.
    pub fn parse(units: i64) -> Result<Self, String> {
        Self::up_to(MAX_QUANTITY, units)
    }

    /// Parses the quantity of a restock.
    pub fn parse_restock(units: i64) -> Result<Self, String> {
        Self::up_to(MAX_STOCK, units)
    }

    fn up_to(max: i64, units: i64) -> Result<Self, String> {
        if (1..=max).contains(&units) { Ok(Self(units)) } else { Err(format!("must be from 1 to {max}")) }
    }

    /// The number of units.
    pub fn units(self) -> i64 {
        self.0
    }
}

/// The client's name for an attempt to change something: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// Parses the value of the `Idempotency-Key` header.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let visible = bytes.iter().all(|b| b.is_ascii_graphic());
        match std::str::from_utf8(bytes) {
            Ok(text) if visible && (1..=255).contains(&text.len()) => Ok(Self(text.into())),
            _ => Err("must be 1 to 255 visible ASCII characters".into()),
        }
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An order to place.
#[derive(Debug, Clone)]
pub struct OrderRequest {
    /// The product to buy.
    pub sku: Sku,
    /// How many units.
    pub quantity: Quantity,
    /// Who buys.
    pub buyer: Buyer,
    /// What makes the order safe to send again.
    pub key: Option<IdempotencyKey>,
}

impl OrderRequest {
    /// Parses the wire form; names every field that is wrong.
    pub fn parse(
        body: api::NewOrder,
        key: Option<Result<IdempotencyKey, String>>,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let sku = check(&mut errors, "sku", Sku::parse(&body.sku));
        let quantity = check(&mut errors, "quantity", Quantity::parse(body.quantity));
        let buyer = check(&mut errors, "buyer", Buyer::parse(body.buyer));
        let key = key.map(|key| check(&mut errors, "Idempotency-Key", key));
        match (sku, quantity, buyer) {
            (Some(sku), Some(quantity), Some(buyer)) if errors.is_empty() => {
                Ok(Self { sku, quantity, buyer, key: key.flatten() })
            }
            _ => Err(errors),
        }
    }

    /// Whether `order` is what this request asked for.
    pub fn asked_for(&self, order: &api::Order) -> bool {
        self.sku.as_str() == order.sku
            && self.quantity.units() == order.quantity
            && self.buyer.as_str() == order.buyer
    }
}

/// A product to create, or to reset.
#[derive(Debug, Clone)]
pub struct ProductRequest {
    /// The product.
    pub sku: Sku,
    /// What people call it.
    pub name: ProductName,
    /// Units in stock, zero or more.
    pub stock: i64,
    /// What makes the request safe to send again.
    pub key: Option<IdempotencyKey>,
}

impl ProductRequest {
    /// Parses the wire form; names every field that is wrong.
    pub fn parse(
        sku: &str,
        body: api::PutProduct,
        key: Option<Result<IdempotencyKey, String>>,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let sku = check(&mut errors, "sku", Sku::parse(sku));
        let name = check(&mut errors, "name", ProductName::parse(body.name));
        let stock = if (0..=MAX_STOCK).contains(&body.stock) {
            Ok(body.stock)
        } else {
            Err(format!("must be from 0 to {MAX_STOCK}"))
        };
        let stock = check(&mut errors, "stock", stock);
        let key = key.map(|key| check(&mut errors, "Idempotency-Key", key));
        match (sku, name, stock) {
            (Some(sku), Some(name), Some(stock)) if errors.is_empty() => {
                Ok(Self { sku, name, stock, key: key.flatten() })
            }
            _ => Err(errors),
        }
    }
}

/// Units to add to a product's stock.
#[derive(Debug, Clone)]
pub struct RestockRequest {
    /// The product.
    pub sku: Sku,
    /// How many units.
    pub quantity: Quantity,
    /// Why.
    pub reason: Reason,
    /// What makes the request safe to send again.
    pub key: Option<IdempotencyKey>,
}

impl RestockRequest {
    /// Parses the wire form; names every field that is wrong.
    pub fn parse(
        sku: &str,
        body: api::Restock,
        key: Option<Result<IdempotencyKey, String>>,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let sku = check(&mut errors, "sku", Sku::parse(sku));
        let quantity = check(&mut errors, "quantity", Quantity::parse_restock(body.quantity));
        let reason = check(&mut errors, "reason", Reason::parse(body.reason));
        let key = key.map(|key| check(&mut errors, "Idempotency-Key", key));
        match (sku, quantity, reason) {
            (Some(sku), Some(quantity), Some(reason)) if errors.is_empty() => {
                Ok(Self { sku, quantity, reason, key: key.flatten() })
            }
            _ => Err(errors),
        }
    }
}

/// How many units an order takes from the stock, as it stands.
pub fn units_taken(order: &api::Order) -> i64 {
    match order.status {
        OrderStatus::AwaitingPayment => order.stock_before - order.stock_after,
        OrderStatus::Confirmed => order.quantity,
        OrderStatus::Cancelled | OrderStatus::Expired => 0,
    }
}

/// The status that an order was placed with.
pub fn placed_status(order: &api::Order) -> OrderStatus {
    if order.pay_by.is_some() { OrderStatus::AwaitingPayment } else { OrderStatus::Confirmed }
}

fn check<T>(errors: &mut Vec<FieldError>, field: &str, value: Result<T, String>) -> Option<T> {
    value.map_err(|detail| errors.push(FieldError { field: field.into(), detail })).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_field_is_named() {
        let body = api::NewOrder { sku: "no such sku!".into(), quantity: 0, buyer: "\u{7}".into() };
        let errors = OrderRequest::parse(body, Some(IdempotencyKey::parse(b"a b"))).unwrap_err();
        let fields: Vec<_> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["sku", "quantity", "buyer", "Idempotency-Key"]);
    }

    #[test]
    fn a_quantity_is_at_least_one_and_bounded() {
        assert!(
            [i64::MIN, -1, 0, MAX_QUANTITY + 1, i64::MAX].map(Quantity::parse).iter().all(Result::is_err)
        );
        assert!([1, MAX_QUANTITY].map(Quantity::parse).iter().all(Result::is_ok));
    }

    #[test]
    fn a_label_counts_characters_not_bytes() {
        assert!(Buyer::parse("é".repeat(100)).is_ok());
        assert!(Buyer::parse("é".repeat(101)).is_err());
        assert!(Buyer::parse(" \u{a0} ".into()).is_err());
    }
}
