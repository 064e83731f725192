//! What a session of the lock table knows to be gone for good.
//!
//! Tokens and tickets of a key only rise, and an exclusive lock is granted only when no other record of its
//! key is live, nor an earlier ticket. So whoever was granted one need not look, ever again, at records with
//! lower tokens or at tickets before its own. That matters while a transaction elsewhere is open for long:
//! what was deleted meanwhile stands in the index, and would be looked at one by one.
//!
//! It is relied on only in the session in which it was granted: a server that lost something, by a crash or a
//! fail-over, has ended that session. Where somebody sets the table's sequence back under open sessions, the
//! first token shows it: nothing is granted by it, and all that was known is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::lock::leased::Claim;
use crate::lock::{FencingToken, Mode};

/// Of how many keys it is known in a session. Those that are busy are soon known again.
const MOST_KEYS: usize = 4_096;

/// The horizons of keys, in each of the sessions that were opened last.
pub(super) struct Horizons {
    /// By the numbers of their connections, which only rise.
    sessions: Mutex<BTreeMap<u64, Session>>,
    most_sessions: usize,
}

#[derive(Default)]
struct Session {
    /// The last token that was granted in it.
    last: i64,
    keys: HashMap<Arc<str>, Horizon>,
}

/// No record of a key that is live has a lower token, and no ticket a lower number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Horizon {
    token: i64,
    ticket: i64,
}

/// What was granted to a claim: its token, and the ticket that it had waited with.
pub(super) type Grant<'a> = (&'a Claim, FencingToken, Option<i64>);

/// That a session was granted a token that is not above the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tokens of the lock table have gone back: its sequence was set, or its rows are others")]
pub(super) struct TokensWentBack;

impl Horizons {
    /// Of so many sessions at once.
    pub(super) fn new(most_sessions: usize) -> Self {
        Self { sessions: Mutex::default(), most_sessions }
    }

    /// The first tokens, and the first tickets, that may be live of the claims' keys.
    pub(super) fn of(&self, session: u64, claims: &[Arc<Claim>]) -> (Vec<i64>, Vec<i64>) {
        let sessions = self.sessions();
        let horizon = |claim: &Arc<Claim>| {
            let horizon = sessions.get(&session).and_then(|session| session.keys.get(&claim.key));
            horizon.map_or((0, 0), |horizon| (horizon.token, horizon.ticket))
        };
        claims.iter().map(horizon).unzip()
    }

    /// Notes what one statement has granted, and committed, in a session.
    pub(super) fn granted(&self, session: u64, grants: &[Grant<'_>]) -> Result<(), TokensWentBack> {
        let mut sessions = self.sessions();
        let known = sessions.entry(session).or_default();
        if grants.iter().any(|(_, token, _)| token.0 <= known.last) {
            sessions.clear();
            return Err(TokensWentBack);
        }
        for (claim, token, ticket) in grants {
            known.last = known.last.max(token.0);
            // Beside a reader, others may have the lock with lower tokens.
            if claim.mode == Mode::Shared {
                continue;
            }
            if known.keys.len() >= MOST_KEYS && !known.keys.contains_key(&claim.key) {
                known.keys.clear();
            }
            let horizon = known.keys.entry(Arc::clone(&claim.key)).or_default();
            horizon.token = token.0;
            horizon.ticket = horizon.ticket.max(ticket.unwrap_or_default());
        }
        while sessions.len() > self.most_sessions {
            sessions.pop_first();
        }
        Ok(())
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<u64, Session>> {
        self.sessions.lock().expect("nothing panics while it holds this")
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
        let horizons = Horizons::new(2);
        let (exclusive, shared) = (claim("sku", Mode::Exclusive), claim("sku", Mode::Shared));
        let other = claim("other", Mode::Exclusive);
        let of = |session| horizons.of(session, &[Arc::clone(&exclusive), Arc::clone(&other)]);
        let granted = |session, claim: &Claim, token, ticket| {
            horizons.granted(session, &[(claim, FencingToken(token), ticket)])
        };
        let none = (vec![0, 0], vec![0, 0]);
        assert_eq!(of(0), none);
        granted(7, &exclusive, 12, None).expect("it is the first");
        assert_eq!(of(7), (vec![12, 0], vec![0, 0]));
        assert_eq!(of(8), none, "another session");
        granted(7, &shared, 15, Some(4)).expect("it rises");
        assert_eq!(of(7), (vec![12, 0], vec![0, 0]), "others may read beside it");
        granted(7, &exclusive, 16, Some(5)).expect("it rises");
        granted(7, &exclusive, 17, None).expect("it rises");
        assert_eq!(of(7), (vec![17, 0], vec![5, 0]));
        granted(8, &other, 18, None).expect("it is the first");
        assert_eq!((of(7), of(8)), ((vec![17, 0], vec![5, 0]), (vec![0, 18], vec![0, 0])));
        granted(9, &other, 19, None).expect("it is the first");
        assert_eq!((of(7), of(9)), (none, (vec![0, 19], vec![0, 0])), "the oldest is forgotten");
    }

    #[test]
    fn a_token_that_does_not_rise_grants_nothing_and_all_is_forgotten() {
        let horizons = Horizons::new(3);
        let (one, other) = (claim("one", Mode::Exclusive), claim("other", Mode::Shared));
        let of = |session| horizons.of(session, &[Arc::clone(&one)]).0;
        horizons
            .granted(1, &[(&one, FencingToken(50), None), (&other, FencingToken(51), None)])
            .expect("rises");
        horizons.granted(2, &[(&one, FencingToken(52), None)]).expect("the first of its session");
        assert_eq!(horizons.granted(1, &[(&other, FencingToken(51), None)]), Err(TokensWentBack));
        assert_eq!((of(1), of(2)), (vec![0], vec![0]));
        horizons.granted(1, &[(&one, FencingToken(2), None)]).expect("begins anew");
        assert_eq!(of(1), [2]);
    }

    #[test]
    fn horizons_of_few_keys_are_kept() {
        let horizons = Horizons::new(1);
        let claims: Vec<_> =
            (0..=MOST_KEYS).map(|number| claim(&number.to_string(), Mode::Exclusive)).collect();
        for (token, claim) in (1..).zip(&claims) {
            horizons.granted(1, &[(claim, FencingToken(token), None)]).expect("it rises");
        }
        let of = |claim: &Arc<Claim>| horizons.of(1, &[Arc::clone(claim)]).0;
        assert_eq!((of(&claims[0]), of(&claims[MOST_KEYS])), (vec![0], vec![4_097]));
    }
}
