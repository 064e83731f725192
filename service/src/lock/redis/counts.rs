//! In which generation the tokens of each key are counted on a server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::lock::Generation;

/// For how many keys it is remembered in which generation they are counted; without, it is asked again.
const MOST_COUNTS: usize = 65_536;

/// In which generation the tokens of each key are counted, as it was learnt over one connection: over another
/// there may be another server.
#[derive(Default)]
pub(super) struct Counts {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Over which connection all this was learnt.
    session: u64,
    generations: HashMap<Arc<str>, Generation>,
}

impl Counts {
    /// The generation of a key, if it was learnt over this connection.
    pub(super) fn of(&self, session: u64, key: &str) -> Option<Generation> {
        let known = self.known();
        known.generations.get(key).filter(|_| known.session == session).copied()
    }

    /// Notes what was learnt over a connection.
    pub(super) fn learnt(&self, session: u64, key: &Arc<str>, generation: Generation) {
        let mut known = self.known();
        if known.session < session || known.generations.len() >= MOST_COUNTS {
            *known = Known { session, ..Known::default() };
        }
        if known.session == session {
            // It is new for one attempt.
            known.generations.insert(Arc::clone(key), Generation { is_new: false, ..generation });
        }
    }

    /// Forgets a key, which may be counted elsewhere from now on.
    pub(super) fn forget(&self, key: &str) {
        self.known().generations.remove(key);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds this")
    }
}
