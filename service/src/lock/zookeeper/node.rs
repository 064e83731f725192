//! The nodes of a lock, in the order of their numbers. Pure.

use crate::lock::Mode;

/// A node: `<uuid>-<read|write>-<number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contender<'a> {
    pub(super) name: &'a str,
    pub(super) mode: Mode,
    number: i64,
}

/// All who have or await a lock, in order.
pub(super) struct Queue<'a>(Vec<Contender<'a>>);

pub(super) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "write",
        Mode::Shared => "read",
    }
}

impl<'a> Contender<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (rest, number) = name.rsplit_once('-')?;
        let mode = match rest.rsplit_once('-')?.1 {
            "write" => Mode::Exclusive,
            "read" => Mode::Shared,
            _ => return None,
        };
        Some(Self { name, mode, number: number.parse().ok()? })
    }
}

impl<'a> Queue<'a> {
    /// The queue of the nodes with these names; others are not of this lock.
    pub(super) fn of(names: impl Iterator<Item = &'a str>) -> Self {
        let mut contenders: Vec<_> = names.filter_map(Contender::parse).collect();
        contenders.sort_by_key(|contender| contender.number);
        Self(contenders)
    }

    /// The last one before `name` that keeps it out: anybody for a writer, the last writer for a reader.
    /// `None`: there is no such node. `Some(None)`: nobody keeps it out.
    pub(super) fn before(&self, name: &str, mode: Mode) -> Option<Option<&Contender<'a>>> {
        let place = self.0.iter().position(|contender| contender.name == name)?;
        let keeps_out = |other: &&Contender<'_>| mode == Mode::Exclusive || other.mode == Mode::Exclusive;
        Some(self.0[..place].iter().rev().find(keeps_out))
    }

    /// Those at the front: one writer, or readers.
    pub(super) fn holders(&self) -> impl Iterator<Item = &Contender<'a>> {
        let readers = self.0.iter().take_while(|contender| contender.mode == Mode::Shared).count();
        let holders = if readers == 0 { self.0.len().min(1) } else { readers };
        self.0[..holders].iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] =
        ["a-write-0000000003", "b-read-0000000002", "c-write-0000000001", "d-write-0000000004", "stranger"];

    #[test]
    fn a_writer_waits_for_the_last_before_it_and_a_reader_for_the_last_writer() {
        let queue = Queue::of(NAMES.into_iter());
        let before = |name, mode| queue.before(name, mode).map(|other| other.map(|other| other.name));
        assert_eq!(before("c-write-0000000001", Mode::Exclusive), Some(None));
        assert_eq!(before("b-read-0000000002", Mode::Shared), Some(Some("c-write-0000000001")));
        // The first edition of the course had 3 and 4 both watch 2, and go together.
        assert_eq!(before("a-write-0000000003", Mode::Exclusive), Some(Some("b-read-0000000002")));
        assert_eq!(before("d-write-0000000004", Mode::Exclusive), Some(Some("a-write-0000000003")));
        assert_eq!(before("gone-write-0000000000", Mode::Exclusive), None);
    }

    #[test]
    fn the_front_is_one_writer_or_all_readers_before_the_first() {
        let holders = |names: &[&'static str]| -> Vec<&str> {
            Queue::of(names.iter().copied()).holders().map(|holder| holder.name).collect()
        };
        assert_eq!(holders(&NAMES), ["c-write-0000000001"]);
        assert_eq!(holders(&["a-read-1", "b-read-2", "c-write-3", "d-read-4"]), ["a-read-1", "b-read-2"]);
        assert_eq!(holders(&[]), [""; 0]);
    }
}
