//! What a session of the lock table knows to be gone for good.
//!
//! Tokens and tickets of a key only rise, and an exclusive lock is granted only when no other record of its
//! key is live, nor an earlier ticket. So whoever was granted one need not look, ever again, at records with
//! lower tokens or at tickets before its own. That matters while a transaction elsewhere is open for long:
//! what was deleted meanwhile stands in the index, and would be looked at one by one.
//!
//! It is relied on only in the session in which it was granted: a server that lost something, by a crash or a
//! fail-over, has ended that session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::lock::leased::Claim;
use crate::lock::{FencingToken, Mode};

/// Of how many keys it is known. Those that are busy are soon known again.
const MOST_KEYS: usize = 4_096;

/// The horizons of keys, in the session that was used last.
#[derive(Default)]
pub(super) struct Horizons(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The number of the session's connection.
    session: u64,
    keys: HashMap<Arc<str>, Horizon>,
}

/// No record of a key that is live has a lower token, and no ticket a lower number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Horizon {
    token: i64,
    ticket: i64,
}

impl Horizons {
    /// The first tokens, and the first tickets, that may be live of the claims' keys.
    pub(super) fn of(&self, session: u64, claims: &[Arc<Claim>]) -> (Vec<i64>, Vec<i64>) {
        let known = self.0.lock().expect("nothing panics while it holds this");
        let horizon = |claim: &Arc<Claim>| {
            let of_its_session = known.keys.get(&claim.key).filter(|_| known.session == session);
            of_its_session.map_or((0, 0), |horizon| (horizon.token, horizon.ticket))
        };
        claims.iter().map(horizon).unzip()
    }

    /// Notes what was granted, and committed, in a session; with the ticket that had been waited with.
    pub(super) fn granted(&self, session: u64, claim: &Claim, token: FencingToken, ticket: Option<i64>) {
        // Other readers may have the lock with a lower token.
        if claim.mode == Mode::Shared {
            return;
        }
        let mut known = self.0.lock().expect("nothing panics while it holds this");
        if known.session != session || known.keys.len() >= MOST_KEYS && !known.keys.contains_key(&claim.key) {
            *known = Known { session, keys: HashMap::new() };
        }
        let horizon = known.keys.entry(Arc::clone(&claim.key)).or_default();
        horizon.token = horizon.token.max(token.0);
        horizon.ticket = horizon.ticket.max(ticket.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use uuid::Uuid;

    use super::*;

    fn claim(key: &str, mode: Mode) -> Arc<Claim> {
        let (key, holder, lease) = (key.into(), "replica".into(), None);
        Arc::new(Claim { key, mode, owner: Uuid::nil(), holder, lease, is_abandoned: AtomicBool::default() })
    }

    #[test]
    fn only_exclusive_grants_of_the_same_session_set_a_horizon() {
        let horizons = Horizons::default();
        let (exclusive, shared) = (claim("sku", Mode::Exclusive), claim("sku", Mode::Shared));
        let of =
            |session| horizons.of(session, &[claim("sku", Mode::Exclusive), claim("other", Mode::Shared)]);
        assert_eq!(of(0), (vec![0, 0], vec![0, 0]));
        horizons.granted(7, &exclusive, FencingToken(12), None);
        assert_eq!(of(7), (vec![12, 0], vec![0, 0]));
        assert_eq!(of(8), (vec![0, 0], vec![0, 0]), "another session");
        horizons.granted(7, &shared, FencingToken(15), Some(4));
        assert_eq!(of(7), (vec![12, 0], vec![0, 0]), "others may read beside it");
        horizons.granted(7, &exclusive, FencingToken(16), Some(5));
        horizons.granted(7, &exclusive, FencingToken(17), None);
        assert_eq!(of(7), (vec![17, 0], vec![5, 0]));
        horizons.granted(8, &claim("other", Mode::Exclusive), FencingToken(18), None);
        assert_eq!((of(7), of(8)), ((vec![0, 0], vec![0, 0]), (vec![0, 18], vec![0, 0])));
    }

    #[test]
    fn horizons_of_few_keys_are_kept() {
        let horizons = Horizons::default();
        for number in 0..=MOST_KEYS {
            let granted = claim(&number.to_string(), Mode::Exclusive);
            horizons.granted(1, &granted, FencingToken(1), None);
        }
        assert_eq!(horizons.of(1, &[claim("0", Mode::Exclusive)]).0, [0]);
        assert_eq!(horizons.of(1, &[claim(&MOST_KEYS.to_string(), Mode::Exclusive)]).0, [1]);
    }
}
