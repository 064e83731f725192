//! The votes of one round, and what they come to. Pure.

use crate::lock::Mode;
use crate::lock::redis::server::ServerState;
use crate::lock::{FencingToken, Holder, LockState};

/// How many of so many servers are more than half.
pub(super) fn majority(servers: usize) -> usize {
    servers / 2 + 1
}

/// What a server says to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Vote {
    /// The claim has the lock there. With the server's count of tokens; 0 where it has lost it.
    Granted { count: i64 },
    /// Others stand before it, or have the lock there: the owner, if that is one alone.
    Waits { ahead: u32, place: i64, owner: Option<String> },
}

/// How a round stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Votes that are still to come may decide it.
    Open,
    /// A majority is for the claim.
    Won,
    /// There will be none.
    Lost,
}

/// The votes of a round.
#[derive(Debug)]
pub(super) struct Tally {
    servers: usize,
    mode: Mode,
    /// The counts of those that granted.
    counts: Vec<i64>,
    waits: Vec<(u32, i64, Option<String>)>,
    /// How many have no vote.
    silent: usize,
}

impl Tally {
    pub(super) fn new(servers: usize, mode: Mode) -> Self {
        Self { servers, mode, counts: Vec::new(), waits: Vec::new(), silent: 0 }
    }

    /// Counts a server's vote; `None`: it has none in this round.
    pub(super) fn count(&mut self, vote: Option<&Vote>) {
        match vote {
            Some(Vote::Granted { count }) => self.counts.push(*count),
            Some(Vote::Waits { ahead, place, owner }) => self.waits.push((*ahead, *place, owner.clone())),
            None => self.silent += 1,
        }
    }

    /// Counts those that have not answered as silent. The round is decided then.
    pub(super) fn close(&mut self) {
        self.silent += self.pending();
    }

    fn pending(&self) -> usize {
        self.servers - self.answered() - self.silent
    }

    /// How many have voted.
    pub(super) fn answered(&self) -> usize {
        self.counts.len() + self.waits.len()
    }

    /// How it stands. A round goes on until a majority has voted, where it can: too few votes say that
    /// servers are gone, not that others have the lock. A writer's goes on, where that may help, until a
    /// majority of those who are for it know what was counted before.
    pub(super) fn standing(&self) -> Standing {
        let (granted, majority) = (self.counts.len(), majority(self.servers));
        if granted + self.pending() < majority {
            let is_heard = self.answered() >= majority || self.answered() + self.pending() < majority;
            return if is_heard { Standing::Lost } else { Standing::Open };
        }
        let is_enough = match self.mode {
            Mode::Shared => granted >= majority,
            Mode::Exclusive => self.remembered().is_some(),
        };
        match is_enough || (granted >= majority && self.pending() == 0) {
            true => Standing::Won,
            false => Standing::Open,
        }
    }

    /// The greatest count, where a majority has not lost it: two majorities have a server in common, so it is
    /// greater than every token before.
    pub(super) fn remembered(&self) -> Option<i64> {
        let known = self.counts.iter().filter(|count| **count > 0).count();
        (known >= majority(self.servers)).then(|| self.greatest())
    }

    /// The greatest count of those that granted.
    pub(super) fn greatest(&self) -> i64 {
        self.counts.iter().copied().max().unwrap_or_default()
    }

    /// The greatest place that the claim was given, where a majority has voted.
    pub(super) fn ticket(&self) -> Option<i64> {
        let greatest = self.waits.iter().map(|(_, place, _)| *place).max()?;
        (self.answered() >= majority(self.servers)).then_some(greatest)
    }

    /// Whether a majority has the claim at this place.
    pub(super) fn agrees_on(&self, ticket: i64) -> bool {
        self.waits.iter().filter(|(_, place, _)| *place == ticket).count() >= majority(self.servers)
    }

    /// How many the claim has to wait for, at least; 0 where no other can have a majority: it is split, and
    /// to be tried again soon.
    pub(super) fn ahead(&self) -> u32 {
        let votes = |owner: &str| self.waits.iter().filter(|wait| wait.2.as_deref() == Some(owner)).count();
        let owners = self.waits.iter().filter_map(|wait| wait.2.as_deref());
        let most = owners.map(votes).max().unwrap_or_default();
        let ahead = self.waits.iter().map(|(ahead, ..)| *ahead).max().unwrap_or_default();
        let readers = self.waits.iter().filter(|(ahead, _, owner)| *ahead == 0 && owner.is_none()).count();
        let may_be_held = [most, readers].iter().any(|votes| votes + self.silent >= majority(self.servers));
        ahead.max(u32::from(may_be_held))
    }
}

/// Who has the lock on `key` and who waits, where so many servers were asked and these have answered. A claim
/// whose votes are still coming in has not the lock.
pub(super) fn merge(key: &str, servers: usize, states: &[ServerState]) -> LockState {
    let has_majority = |votes: usize| votes >= majority(servers);
    let mut holders = Vec::new();
    let mut owners: Vec<&str> = Vec::new();
    for (owner, replica, _) in states.iter().filter_map(|state| state.writer.as_ref()) {
        let of_owner = states.iter().filter_map(|state| state.writer.as_ref());
        let of_owner: Vec<_> = of_owner.filter(|(other, ..)| other == owner).collect();
        if !owners.contains(&owner.as_str()) && has_majority(of_owner.len()) {
            owners.push(owner);
            let token = of_owner.iter().map(|(_, _, token)| FencingToken(*token)).max();
            holders.push(holder(key, Mode::Exclusive, token, replica.clone()));
        }
    }
    for owner in states.iter().flat_map(|state| &state.readers) {
        let votes = states.iter().filter(|state| state.readers.contains(owner)).count();
        if !owners.contains(&owner.as_str()) && has_majority(votes) {
            owners.push(owner);
            holders.push(holder(key, Mode::Shared, None, None));
        }
    }
    let holding = owners.len();
    // Who has the lock may still have a place on a server that answered late.
    for owner in states.iter().flat_map(|state| &state.waiting) {
        if !owners.contains(&owner.as_str()) {
            owners.push(owner);
        }
    }
    LockState { holders, waiting: (owners.len() - holding) as u64 }
}

fn holder(key: &str, mode: Mode, token: Option<FencingToken>, replica: Option<String>) -> Holder {
    Holder { key: key.into(), mode, token, replica, expired: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A count is a grant, `w` a wait, `-` silence and `.` what is still to come.
    fn tally(mode: Mode, votes: &str) -> Tally {
        let votes: Vec<_> = votes.split(' ').collect();
        let mut tally = Tally::new(votes.len(), mode);
        for vote in votes {
            match vote {
                "." => {}
                "-" => tally.count(None),
                "w" => tally.count(Some(&Vote::Waits { ahead: 0, place: 1, owner: Some("B".into()) })),
                count => tally.count(Some(&Vote::Granted { count: count.parse().unwrap() })),
            }
        }
        tally
    }

    #[test]
    fn a_majority_that_remembers_wins_and_less_than_one_loses() {
        use Standing::{Lost, Open, Won};
        for (votes, standing, token) in [
            ("7 7 7 . .", Won, Some(7)),
            ("7 7 9 w w", Won, Some(9)),
            // The third has forgotten: another may still remember.
            ("7 7 0 . .", Open, None),
            ("7 7 0 8 .", Won, Some(8)),
            // No other will: a new generation begins.
            ("7 7 0 - w", Won, None),
            ("0 0 0 0 0", Won, None),
            ("7 7 . . .", Open, None),
            ("7 7 w - .", Open, None),
            ("7 7 w - w", Lost, None),
            (". . w w w", Lost, None),
            // A majority may still be heard, if not for the claim.
            ("- - w w .", Open, None),
            ("- - w w w", Lost, None),
            ("- - - w .", Lost, None),
            ("- - - . .", Lost, None),
            ("7 . .", Open, None),
            ("7 7 .", Won, Some(7)),
        ] {
            let tally = tally(Mode::Exclusive, votes);
            assert_eq!((tally.standing(), tally.remembered()), (standing, token), "{votes}");
        }
        // A reader's token is for nobody to be compared with.
        assert_eq!(tally(Mode::Shared, "0 0 0 . .").standing(), Won);
    }

    #[test]
    fn no_two_majorities_are_without_a_server_in_common() {
        for servers in 1..20 {
            assert!(2 * majority(servers) > servers && majority(servers) <= servers);
        }
    }

    #[test]
    fn what_has_not_answered_in_time_is_silent() {
        let mut tally = tally(Mode::Exclusive, "7 7 7 0 .");
        tally.close();
        assert_eq!((tally.standing(), tally.answered()), (Standing::Won, 4));
        let mut tally = self::tally(Mode::Exclusive, "7 7 . . .");
        tally.close();
        assert_eq!((tally.standing(), tally.answered()), (Standing::Lost, 2));
    }

    #[test]
    fn the_ticket_is_the_greatest_place_that_a_majority_gave() {
        let vote = |place| Vote::Waits { ahead: 1, place, owner: None };
        let mut tally = Tally::new(3, Mode::Exclusive);
        tally.count(Some(&vote(4)));
        assert_eq!(tally.ticket(), None);
        tally.count(Some(&vote(6)));
        assert_eq!(tally.ticket(), Some(6));
        assert!(!tally.agrees_on(6));
        tally.count(Some(&vote(6)));
        assert!(tally.agrees_on(6));
    }

    #[test]
    fn a_split_vote_is_told_from_a_holder() {
        assert_eq!(tally(Mode::Exclusive, "7 7 w w -").ahead(), 1, "B may have the one that is silent");
        assert_eq!(tally(Mode::Exclusive, "7 7 7 w w").ahead(), 0);
        assert_eq!(tally(Mode::Exclusive, "w w w w w").ahead(), 1);
    }

    #[test]
    fn a_majority_of_servers_says_who_holds() {
        let writer = |owner: &str, token| Some((owner.to_owned(), Some("one".to_owned()), token));
        let held = |owner, token| ServerState { writer: writer(owner, token), ..ServerState::default() };
        let waits = || ServerState { waiting: vec!["A".into(), "C".into()], ..ServerState::default() };
        let state = merge("k", 3, &[held("A", 4), held("A", 5), waits()]);
        assert_eq!((state.holders.len(), state.waiting), (1, 1));
        assert_eq!(state.holders[0].token, Some(FencingToken(5)));
        assert_eq!(merge("k", 3, &[held("A", 4), held("B", 5), waits()]).holders, []);
        assert_eq!(merge("k", 3, &[held("A", 4), waits()]).holders, [], "the third server is not heard");
        let reads = || ServerState { readers: vec!["A".into(), "B".into()], ..ServerState::default() };
        assert_eq!(merge("k", 3, &[reads(), reads(), waits()]).holders.len(), 2);
    }
}
