//! Where in its table a product's row was last written.
//!
//! While a transaction elsewhere is open for long, no version of a row can be cleared away, and whoever looks
//! for the row by its key looks at each version since. Whoever knows where the last one stands looks there
//! first. That is a hint and no more: a statement finds there either the row as it is, or nothing, and then
//! asks the index. So it does not matter whose database a place is of, nor what has become of the row since.

use std::collections::HashMap;
use std::sync::Mutex;

/// Of how many products it is known. Those that sell are soon known again.
const MOST: usize = 4_096;

/// The places of products that this process has written, as PostgreSQL writes a `tid`.
static PLACES: Mutex<Option<HashMap<Box<str>, Box<str>>>> = Mutex::new(None);

/// Notes where a product's row stands.
pub(crate) fn saw(sku: &str, place: &str) {
    let mut places = PLACES.lock().expect("nothing panics while it holds this");
    let places = places.get_or_insert_default();
    if let Some(known) = places.get_mut(sku) {
        *known = place.into();
        return;
    }
    if places.len() >= MOST {
        places.clear();
    }
    places.insert(sku.into(), place.into());
}

/// Where a product's row may stand.
pub(crate) fn place_of(sku: &str) -> Option<Box<str>> {
    PLACES.lock().expect("nothing panics while it holds this").as_ref()?.get(sku).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_of_few_products_is_kept() {
        saw("a product", "(0,1)");
        saw("a product", "(12,7)");
        assert_eq!(place_of("a product").as_deref(), Some("(12,7)"));
        for number in 0..=MOST {
            saw(&format!("product {number}"), "(0,1)");
        }
        assert_eq!((place_of("a product"), place_of("product 0")), (None, None));
        assert_eq!(place_of(&format!("product {MOST}")).as_deref(), Some("(0,1)"));
    }
}
