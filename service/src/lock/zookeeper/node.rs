//! The nodes of a lock: their names, and their order by the numbers in these. Pure.

use uuid::Uuid;

use crate::lock::Mode;

/// A node: `<uuid>-<read|write>-<number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contender<'a> {
    pub(super) name: &'a str,
    pub(super) mode: Mode,
    number: i64,
}

/// All who have or await a lock, in order.
pub(super) struct Contenders<'a>(Vec<Contender<'a>>);

/// When a node has the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn<'a> {
    /// Now: no other keeps it out.
    Now,
    /// Not before this one, the last that keeps it out: any contender for a writer, the last writer for a
    /// reader.
    After(Contender<'a>),
    /// Never: there is no such node.
    Absent,
}

/// What an attempt's node will be called, and where it will be.
pub(super) struct NodeClaim {
    pub(super) directory: String,
    /// The node's name up to its number.
    pub(super) prefix: String,
    pub(super) mode: Mode,
}

impl NodeClaim {
    pub(super) fn new(root: &str, key: &str, mode: Mode) -> Self {
        let prefix = format!("{}-{}-", Uuid::new_v4(), mode_name(mode));
        Self { directory: directory(root, key), prefix, mode }
    }
}

/// Where the nodes of a lock are.
pub(super) fn directory(root: &str, key: &str) -> String {
    format!("{root}/{key}")
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "write",
        Mode::Shared => "read",
    }
}

/// From this number on, the directory is removed when it is empty. Half of what there is.
const WORN: i64 = 1 << 30;

/// From this number on, no contender is let in. The server counts up to 2³¹ − 1, and from there on gives out
/// the same number, or those below zero; until it does, there is room for all who wait at a time.
const USED_UP: i64 = (1 << 31) - (1 << 16);

/// How far a directory's numbers are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wear {
    None,
    Worn,
    UsedUp,
}

/// How far the numbers are used up of the directory that gave one to a node of this name.
pub(super) fn wear(name: &str) -> Wear {
    match Contender::parse(name).map(|contender| contender.number) {
        Some(0..WORN) => Wear::None,
        Some(WORN..USED_UP) => Wear::Worn,
        _ => Wear::UsedUp,
    }
}

impl<'a> Contender<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let is_number = |number: &str| number.bytes().all(|byte| byte.is_ascii_digit());
        let (rest, number) = name.rsplit_once('-').filter(|(_, number)| is_number(number))?;
        let mode = match rest.rsplit_once('-')?.1 {
            "write" => Mode::Exclusive,
            "read" => Mode::Shared,
            _ => return None,
        };
        Some(Self { name, mode, number: number.parse().ok()? })
    }
}

impl<'a> Contenders<'a> {
    /// The queue of the nodes with these names; others are not of this lock. Those whose numbers say nothing
    /// about their order do not stand in it: they are about to be withdrawn.
    pub(super) fn of(names: impl Iterator<Item = &'a str>) -> Self {
        let contenders = names.filter_map(Contender::parse);
        let mut contenders: Vec<_> = contenders.filter(|contender| contender.number < USED_UP).collect();
        contenders.sort_by_key(|contender| contender.number);
        Self(contenders)
    }

    /// Whether it is the turn of the node `name`.
    pub(super) fn turn(&self, name: &str, mode: Mode) -> Turn<'a> {
        let place = self.0.iter().position(|contender| contender.name == name);
        let Some(place) = place else { return Turn::Absent };
        let keeps_out = |other: &&Contender<'_>| mode == Mode::Exclusive || other.mode == Mode::Exclusive;
        self.0[..place].iter().rev().find(keeps_out).map_or(Turn::Now, |other| Turn::After(*other))
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
        let queue = Contenders::of(NAMES.into_iter());
        let before = |name, mode| match queue.turn(name, mode) {
            Turn::After(other) => other.name,
            turn => panic!("{name}: {turn:?}"),
        };
        assert_eq!(queue.turn("c-write-0000000001", Mode::Exclusive), Turn::Now);
        assert_eq!(before("b-read-0000000002", Mode::Shared), "c-write-0000000001");
        // The first edition of the course had 3 and 4 both watch 2, and go together.
        assert_eq!(before("a-write-0000000003", Mode::Exclusive), "b-read-0000000002");
        assert_eq!(before("d-write-0000000004", Mode::Exclusive), "a-write-0000000003");
        assert_eq!(queue.turn("gone-write-0000000000", Mode::Exclusive), Turn::Absent);
    }

    #[test]
    fn numbers_at_their_end_do_not_stand_in_the_queue() {
        for (number, expected) in [
            ("0000000000", Wear::None),
            ("1073741823", Wear::None),
            ("1073741824", Wear::Worn),
            ("2147418111", Wear::Worn),
            ("2147418112", Wear::UsedUp),
            ("2147483647", Wear::UsedUp),
            ("-2147483648", Wear::UsedUp),
            ("-000000001", Wear::UsedUp),
        ] {
            let name = format!("a-write-{number}");
            assert_eq!(wear(&name), expected, "{name}");
            let queue = Contenders::of([&*name, "b-write-0000000007"].into_iter());
            let is_in_it = queue.turn(&name, Mode::Exclusive) != Turn::Absent;
            assert_eq!(is_in_it, expected != Wear::UsedUp, "{name}");
            assert_ne!(queue.turn("b-write-0000000007", Mode::Exclusive), Turn::Absent);
        }
        // Two of the same number, and one below zero: none of them.
        let names = ["a-write-2147483647", "b-write-2147483647", "c-write--2147483648"];
        assert_eq!(Contenders::of(names.into_iter()).holders().count(), 0);
    }

    #[test]
    fn the_front_is_one_writer_or_all_readers_before_the_first() {
        let holders = |names: &[&'static str]| -> Vec<&str> {
            Contenders::of(names.iter().copied()).holders().map(|holder| holder.name).collect()
        };
        assert_eq!(holders(&NAMES), ["c-write-0000000001"]);
        assert_eq!(holders(&["a-read-1", "b-read-2", "c-write-3", "d-read-4"]), ["a-read-1", "b-read-2"]);
        assert_eq!(holders(&[]), [""; 0]);
    }
}
