//! The queue of a lock: the keys of its contenders, in the order of their creation. Pure.

use super::api::KeyValue;
use crate::lock::{FencingToken, Generation, Mode};

/// One who has or awaits a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contender {
    /// The number of its lease.
    lease: i64,
    pub(super) mode: Mode,
    pub(super) holder: String,
    /// Grows with the revision of the key's creation, and so with the place in the queue.
    pub(super) token: FencingToken,
    /// Of the key's creation.
    revision: i64,
}

/// All who have or await a lock, in order.
pub(super) struct Queue(Vec<Contender>);

/// When a claim has the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Now: no other keeps it out.
    Now { token: FencingToken },
    /// Not before the key of the lease `predecessor` is gone, the last that keeps it out: any contender for a
    /// writer, the last writer for a reader. It is one of so many.
    After { predecessor: i64, ahead: u32 },
    /// Never: it has no key.
    Absent,
}

/// What a contender's key is called in the directory of its lock.
pub(super) fn name_of(lease: i64) -> String {
    format!("{lease:016x}")
}

/// The lease that a contender's key is called by.
pub(super) fn lease_in(name: &str) -> Option<i64> {
    i64::from_str_radix(name, 16).ok().filter(|lease| name_of(*lease) == name)
}

/// What a contender's key says: how it wants the lock, in which generation its token is counted, and in whose
/// name. The generation is that of the data in which the key was created, so that all see the same token.
pub(super) fn value_of(mode: Mode, generation: Generation, holder: &str) -> String {
    format!("{} {} {holder}", mode.name(), generation.number)
}

impl Contender {
    fn parse(directory: &str, found: &KeyValue) -> Option<Self> {
        let lease = lease_in(found.key.0.strip_prefix(directory)?)?;
        let mut value = found.value.0.splitn(3, ' ');
        let (mode, number, holder) = (value.next()?, value.next()?.parse().ok()?, value.next()?);
        let mode = [Mode::Exclusive, Mode::Shared].into_iter().find(|known| known.name() == mode)?;
        let revision = found.create_revision.0;
        let token = FencingToken(Generation { number, is_new: false }.base() + revision);
        Some(Self { lease, mode, holder: holder.into(), token, revision })
    }
}

impl Queue {
    /// The queue of the keys that were found in a lock's directory; others are not of this lock.
    pub(super) fn of(directory: &str, found: &[KeyValue]) -> Self {
        let mut contenders: Vec<_> =
            found.iter().filter_map(|found| Contender::parse(directory, found)).collect();
        contenders.sort_by_key(|contender| contender.revision);
        Self(contenders)
    }

    /// Whether it is the turn of the claim with this lease.
    pub(super) fn turn(&self, lease: i64, mode: Mode) -> Turn {
        let place = self.0.iter().position(|contender| contender.lease == lease);
        let Some(place) = place else { return Turn::Absent };
        let keeps_out = |other: &&Contender| mode == Mode::Exclusive || other.mode == Mode::Exclusive;
        let mut before = self.0[..place].iter().filter(keeps_out);
        let ahead = u32::try_from(before.clone().count()).unwrap_or(u32::MAX);
        match before.next_back() {
            None => Turn::Now { token: self.0[place].token },
            Some(other) => Turn::After { predecessor: other.lease, ahead },
        }
    }

    /// Those at the front: one writer, or readers.
    pub(super) fn holders(&self) -> &[Contender] {
        let readers = self.0.iter().take_while(|contender| contender.mode == Mode::Shared).count();
        let holders = if readers == 0 { self.0.len().min(1) } else { readers };
        &self.0[..holders]
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::{Number, Text};
    use super::*;

    const FIRST: Generation = Generation { number: 0, is_new: false };

    /// A queue of these, with their leases, modes and revisions; in the order in which etcd lists them.
    fn queue(contenders: &[(i64, Mode, i64)]) -> Queue {
        let key = |(lease, mode, revision): &(i64, Mode, i64)| KeyValue {
            key: Text(format!("/s/comb/{}", name_of(*lease))),
            value: Text(value_of(*mode, FIRST, "replica 1")),
            create_revision: Number(*revision),
        };
        let mut found: Vec<_> = contenders.iter().map(key).collect();
        found.push(KeyValue { key: Text("/s/comb/stranger".into()), ..KeyValue::default() });
        found.push(KeyValue { key: Text("/s/comb/00/11".into()), ..KeyValue::default() });
        Queue::of("/s/comb/", &found)
    }

    use Mode::{Exclusive, Shared};

    #[test]
    fn a_writer_waits_for_the_last_before_it_and_a_reader_for_the_last_writer() {
        let queue = queue(&[(1, Exclusive, 30), (2, Shared, 20), (3, Exclusive, 10), (4, Shared, 25)]);
        assert_eq!(queue.turn(3, Exclusive), Turn::Now { token: FencingToken(10) });
        assert_eq!(queue.turn(2, Shared), Turn::After { predecessor: 3, ahead: 1 });
        assert_eq!(queue.turn(4, Shared), Turn::After { predecessor: 3, ahead: 1 });
        assert_eq!(queue.turn(1, Exclusive), Turn::After { predecessor: 4, ahead: 3 });
        assert_eq!(queue.turn(5, Exclusive), Turn::Absent);
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn the_front_is_one_writer_or_all_readers_before_the_first() {
        let holders = |contenders: &[(i64, Mode, i64)]| -> Vec<i64> {
            queue(contenders).holders().iter().map(|holder| holder.lease).collect()
        };
        assert_eq!(holders(&[(1, Exclusive, 2), (2, Exclusive, 1), (3, Shared, 3)]), [2]);
        assert_eq!(holders(&[(1, Shared, 1), (2, Shared, 2), (3, Exclusive, 3), (4, Shared, 4)]), [1, 2]);
        assert_eq!(holders(&[]), [0_i64; 0]);
        assert_eq!(queue(&[(1, Shared, 1)]).holders()[0].holder, "replica 1");
    }

    #[test]
    fn a_token_is_counted_in_the_generation_of_its_key() {
        let second = Generation { number: 2, is_new: true };
        let found = KeyValue {
            key: Text(format!("/s/comb/{}", name_of(1))),
            value: Text(value_of(Exclusive, second, "a replica")),
            create_revision: Number(7),
        };
        let queue = Queue::of("/s/comb/", &[found]);
        assert_eq!(queue.turn(1, Exclusive), Turn::Now { token: FencingToken((2 << 32) + 7) });
        assert_eq!(queue.holders()[0].holder, "a replica");
    }

    #[test]
    fn a_lease_is_read_from_the_name_that_it_has() {
        for lease in [1, 0x4711, i64::MAX] {
            assert_eq!(lease_in(&name_of(lease)), Some(lease));
        }
        for name in ["", "4711", "stranger", "000000000000471G", "00000000000004711"] {
            assert_eq!(lease_in(name), None, "{name}");
        }
    }
}
