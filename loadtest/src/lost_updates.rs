//! Lost updates: changes that read the same stock at the same version, so that one of them overwrote the
//! other.

use std::collections::BTreeMap;

/// Changes of a product's stock, by what they read.
#[derive(Debug, Clone)]
pub(crate) struct Readers<T> {
    /// By the version that a change made, and the stock that it read.
    by_read: BTreeMap<(i64, i64), Vec<T>>,
    lost_updates: u64,
}

/// Changes that read the same, which are two at least.
pub(crate) struct Duplicates<'a, T> {
    /// The version that they all made.
    pub(crate) version: i64,
    /// The stock that they all read.
    pub(crate) stock: i64,
    /// The changes, in the order in which they were added.
    pub(crate) readers: &'a [T],
}

impl<T> Default for Readers<T> {
    fn default() -> Self {
        Self { by_read: BTreeMap::new(), lost_updates: 0 }
    }
}

impl<T> Readers<T> {
    /// Adds a change that read `stock` and made `version`.
    pub(crate) fn add(&mut self, version: i64, stock: i64, reader: T) {
        let readers = self.by_read.entry((version, stock)).or_default();
        self.lost_updates += u64::from(!readers.is_empty());
        readers.push(reader);
    }

    /// How many updates were lost: of changes that read the same, all but one.
    pub(crate) fn lost_updates(&self) -> u64 {
        self.lost_updates
    }

    /// The changes of the smallest version that read the same.
    pub(crate) fn first_duplicates(&self) -> Option<Duplicates<'_, T>> {
        let (&(version, stock), readers) = self.by_read.iter().find(|(_, readers)| readers.len() > 1)?;
        Some(Duplicates { version, stock, readers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_that_read_the_same_all_but_one_are_lost() {
        let mut readers = Readers::default();
        for (version, stock, reader) in
            [(1, 9, 'a'), (3, 7, 'b'), (3, 7, 'c'), (2, 8, 'd'), (3, 7, 'e'), (3, 6, 'f')]
        {
            readers.add(version, stock, reader);
        }
        assert_eq!(readers.lost_updates(), 2);
        let first = readers.first_duplicates().expect("three read the same");
        assert_eq!((first.version, first.stock, first.readers), (3, 7, &['b', 'c', 'e'][..]));
    }
}
