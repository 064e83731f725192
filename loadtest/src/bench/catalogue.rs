//! Products to sell, and their audit afterwards.

use anyhow::Context as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use order_service::api::{Audit, CountedFrom};

use crate::client::Client;

/// So many that they are never sold out: the most that the service takes.
const STOCK: i64 = 1_000_000_000;

/// How many products are created or audited at the same time.
const AT_ONCE: usize = 8;

/// How often a product that is still being written is audited again.
const LOOKS: usize = 100;

/// How the products that are ordered are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// All orders are for one product.
    One,
    /// Orders are for so many products, uniformly.
    Uniform(u32),
    /// Orders are for so many products, the product of rank `n` with a weight of `1 / n`.
    Zipf(u32),
}

/// Products of one deployment, with what its customers were told of them.
pub(super) struct Catalogue {
    prefix: String,
    demand: Demand,
    confirmed: u64,
    in_flight: u64,
}

impl Catalogue {
    /// Creates the products, whose SKUs begin with `prefix`.
    pub(super) async fn create(replica: &Client, prefix: String, demand: Demand) -> anyhow::Result<Self> {
        let catalogue = Self { prefix, demand, confirmed: 0, in_flight: 0 };
        let create = |sku: String| async move { replica.create_product(&sku, "Hair dryer", STOCK).await };
        let creating = stream::iter(catalogue.skus().map(create)).buffer_unordered(AT_ONCE);
        creating.try_for_each(|_| async { Ok(()) }).await.context("cannot create the products")?;
        Ok(catalogue)
    }

    /// How the SKUs begin; a hyphen and a number from 1 follow.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// How many products there are.
    pub(super) fn size(&self) -> u32 {
        match self.demand {
            Demand::One => 1,
            Demand::Uniform(size) | Demand::Zipf(size) => size,
        }
    }

    /// The exponent of their distribution.
    pub(super) fn skew(&self) -> u32 {
        u32::from(matches!(self.demand, Demand::Zipf(_)))
    }

    /// The SKUs of all products.
    pub(super) fn skus(&self) -> impl Iterator<Item = String> + use<> {
        let prefix = self.prefix.clone();
        (1..=self.size()).map(move |number| format!("{prefix}-{number}"))
    }

    /// Takes note of orders that were confirmed, and of how many more may have been in flight when their
    /// senders stopped to wait for answers.
    pub(super) fn note(&mut self, confirmed: u64, in_flight: u64) {
        self.confirmed += confirmed;
        self.in_flight += in_flight;
    }

    /// Audits all products, and says what is wrong with them.
    pub(super) async fn audit(&self, replica: &Client) -> anyhow::Result<Vec<String>> {
        let audit = |sku: String| async move {
            for _ in 0..LOOKS {
                let audit = replica.audit(&sku).await?;
                let orders = match audit.counted_from {
                    CountedFrom::Orders => audit.orders.unsigned_abs(),
                    // The replica's word for it; the orders are the evidence.
                    CountedFrom::Counters => replica.orders(&sku).await?.len() as u64,
                };
                // What was in flight when its senders stopped to wait may have been written meanwhile.
                if replica.audit(&sku).await?.version == audit.version {
                    return anyhow::Ok((audit, orders, sku));
                }
            }
            anyhow::bail!("{sku} is still being ordered")
        };
        let audits = stream::iter(self.skus().map(audit)).buffer_unordered(AT_ONCE);
        let audits: Vec<_> = audits.try_collect().await.context("cannot audit what was sold")?;
        let complaints = audits.iter().filter_map(|(audit, orders, sku)| complaint(audit, *orders, sku));
        let mut wrong: Vec<_> = complaints.collect();
        wrong.extend(self.miscount(audits.iter().map(|(_, orders, _)| orders).sum()));
        Ok(wrong)
    }

    /// What is wrong with the number of orders.
    fn miscount(&self, orders: u64) -> Option<String> {
        let most = self.confirmed + self.in_flight;
        let Self { prefix, confirmed, .. } = self;
        (!(*confirmed..=most).contains(&orders)).then(|| {
            format!(
                "{prefix}: {orders} orders, where {confirmed} were confirmed and at most {most} were sent"
            )
        })
    }
}

/// What is wrong with the audit of a product, which has so many orders.
fn complaint(audit: &Audit, orders: u64, sku: &str) -> Option<String> {
    let miscounted = audit.counters_agree == Some(false) || audit.orders.unsigned_abs() != orders;
    if miscounted {
        return Some(format!("{sku}: {orders} orders, where the audit says {audit:?}"));
    }
    let Audit { oversold_units, balanced, duplicate_reads, .. } = audit;
    let duplicates = duplicate_reads.len();
    (*oversold_units != 0 || !balanced || duplicates > 0).then(|| {
        format!("{sku}: {oversold_units} units oversold, balanced: {balanced}, duplicate reads: {duplicates}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_must_be_as_many_as_were_confirmed_but_for_those_in_flight() {
        let mut catalogue = Catalogue { prefix: "p".into(), demand: Demand::One, confirmed: 0, in_flight: 0 };
        catalogue.note(90, 4);
        catalogue.note(10, 4);
        let is_right = |orders| catalogue.miscount(orders).is_none();
        assert_eq!([99, 100, 108, 109].map(is_right), [false, true, true, false]);
    }
}
