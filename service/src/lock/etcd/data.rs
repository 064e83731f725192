//! Which data the server has, in which generation it counts, and whether it has lost any.
//!
//! A mark is kept beside the locks, which whoever finds none makes at random: a server without the mark that
//! is known has other data. Every key is created on the condition that the mark is the known one. A server
//! that has come back with older data has the mark, but has come to an earlier revision than it had; whoever
//! notices that changes the mark, and by that tells the others, also those who have just begun. Until it is
//! noticed, tokens are counted on from where the older data end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::api::Header;
use crate::lock::Generation;

/// For how many keys it is remembered in which generation they are counted; without, it is asked again.
const MOST_COUNTS: usize = 65_536;

/// The data of a server.
pub(super) struct Data {
    cluster: String,
    pub(super) mark: String,
    /// In which generations its tokens are counted.
    counts: Mutex<HashMap<Arc<str>, Generation>>,
}

impl Data {
    /// What its count is known by.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.cluster, self.mark)
    }

    /// Whether an answer comes from the cluster that has the data.
    pub(super) fn is_of(&self, header: &Header) -> bool {
        header.cluster_id == self.cluster
    }

    /// The generation in which the tokens of `key` are counted, if it is known.
    pub(super) fn generation(&self, key: &str) -> Option<Generation> {
        self.counts().get(key).copied()
    }

    /// Notes the generation in which the tokens of `key` are counted.
    pub(super) fn counts_in(&self, key: &Arc<str>, generation: Generation) {
        let mut counts = self.counts();
        if counts.len() >= MOST_COUNTS {
            counts.clear();
        }
        counts.insert(Arc::clone(key), generation);
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Arc<str>, Generation>> {
        self.counts.lock().expect("nothing panics while it holds this")
    }
}

/// What is known about the server's data.
#[derive(Default)]
pub(super) struct KnownData {
    data: Mutex<Option<Arc<Data>>>,
    /// What the server has come to, as far as is known.
    revision: AtomicI64,
}

/// What the server had come to before something was asked of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked(i64);

impl KnownData {
    /// The data that the server had when it last answered.
    pub(super) fn known(&self) -> Option<Arc<Data>> {
        self.lock().clone()
    }

    /// What the server has come to, as far as is known.
    pub(super) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// To be called before something is asked whose answer may be [older](Self::is_older) than it must be.
    pub(super) fn asks(&self) -> Asked {
        Asked(self.revision())
    }

    /// Whether the answer, which everything that was written before the question has come before, is older
    /// than what was known then.
    pub(super) fn is_older(&self, asked: Asked, header: &Header) -> bool {
        let is_older = header.revision.0 < asked.0;
        if !is_older {
            self.revision.fetch_max(header.revision.0, Ordering::AcqRel);
        }
        is_older
    }

    /// Notes the mark that was found.
    pub(super) fn learnt(&self, header: &Header, mark: String) -> Arc<Data> {
        let cluster = header.cluster_id.clone();
        let mut data = self.lock();
        if let Some(known) = data.as_ref().filter(|known| known.mark == mark && known.is_of(header)) {
            return Arc::clone(known);
        }
        // What was known before was of other data.
        self.revision.store(header.revision.0, Ordering::Release);
        let learnt = Arc::new(Data { cluster, mark, counts: Mutex::default() });
        *data = Some(Arc::clone(&learnt));
        learnt
    }

    /// The server has other data than these.
    pub(super) fn forget(&self, other: &Data) {
        let mut data = self.lock();
        if data.as_ref().is_some_and(|known| known.mark == other.mark && known.cluster == other.cluster) {
            *data = None;
            self.revision.store(0, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Data>>> {
        self.data.lock().expect("nothing panics while it holds this")
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::Number;
    use super::*;

    fn header(cluster: &str, revision: i64) -> Header {
        Header { cluster_id: cluster.into(), revision: Number(revision), term: Number(1) }
    }

    #[test]
    fn an_answer_is_older_if_it_is_behind_what_was_known_when_it_was_asked_for() {
        let known = KnownData::default();
        let data = known.learnt(&header("1", 5), "a".into());
        let (before, concurrently) = (known.asks(), known.asks());
        assert!(!known.is_older(before, &header("1", 7)));
        assert!(!known.is_older(concurrently, &header("1", 6)), "it was asked before the other was answered");
        assert_eq!(known.revision(), 7);
        assert!(known.is_older(known.asks(), &header("1", 6)));
        assert!(data.is_of(&header("1", 6)) && !data.is_of(&header("2", 6)));
        // What is learnt next is of other data.
        known.forget(&data);
        known.forget(&data);
        let next = known.learnt(&header("1", 6), "b".into());
        known.forget(&data);
        assert!(known.known().is_some_and(|known| Arc::ptr_eq(&known, &next)));
        assert_eq!(known.revision(), 6);
        assert_ne!(data.name(), next.name());
    }

    #[test]
    fn generations_are_known_by_key_until_there_are_too_many() {
        let data = KnownData::default().learnt(&header("1", 5), "a".into());
        let generation = Generation { number: 3, is_new: false };
        data.counts_in(&"comb".into(), generation);
        assert_eq!((data.generation("comb"), data.generation("brush")), (Some(generation), None));
        (0..MOST_COUNTS).for_each(|key| data.counts_in(&key.to_string().into(), generation));
        assert_eq!(data.generation("comb"), None);
    }
}
