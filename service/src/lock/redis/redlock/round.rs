//! One round of votes for a claim: all servers are asked at the same time, and the round is over as soon as
//! it is decided. What comes later is put right by whoever waits for it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool_redis::redis::RedisError;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, timeout_at};

use super::claims::{Traces, Turn};
use super::node::Node;
use super::tally::{Standing, Tally, Vote};
use crate::lock::FencingToken;
use crate::lock::leased::Claim;
use crate::lock::redis::protocol::is_of_the_connection;

/// A round that is going on, or whose late votes are still to come.
pub(super) struct Round {
    claim: Arc<Claim>,
    fate: Arc<OnceLock<Fate>>,
    /// When the servers must have answered.
    deadline: Instant,
    votes: UnboundedReceiver<Voted>,
    /// Those that have not answered.
    pending: Vec<Arc<Node>>,
    /// Those that are for the claim.
    granted: Vec<Granted>,
    /// Why servers have no vote.
    pub(super) errors: Vec<String>,
    /// How many servers have not come to the end of an earlier request of the claim.
    pub(super) busy: usize,
    pub(super) tally: Tally,
}

/// What a round has come to.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// A majority knows this token.
    Won(FencingToken),
    /// Whatever was got is given back.
    Lost,
}

/// A server that was asked, with its turn.
struct Asked {
    node: Arc<Node>,
    claim: Arc<Claim>,
    fate: Arc<OnceLock<Fate>>,
    _turn: Turn,
}

/// A vote, or why there is none.
struct Voted {
    asked: Asked,
    vote: Result<Vote, RedisError>,
}

/// A server that is for the claim, and what it has counted.
struct Granted {
    asked: Asked,
    count: i64,
}

impl Round {
    /// Asks all servers that answer, each of which has so long, and waits until it is decided.
    pub(super) async fn ask(
        nodes: &[Arc<Node>],
        claim: &Arc<Claim>,
        traces: &Arc<Traces>,
        limit: Duration,
    ) -> Self {
        let sent = Instant::now();
        let (sender, votes) = mpsc::unbounded_channel();
        let mut round = Self {
            claim: Arc::clone(claim),
            fate: Arc::default(),
            deadline: sent + limit,
            votes,
            pending: Vec::new(),
            granted: Vec::new(),
            errors: Vec::new(),
            busy: 0,
            tally: Tally::new(nodes.len(), claim.mode),
        };
        for (server, node) in nodes.iter().enumerate() {
            if !node.answers() {
                round.tally.count(None);
                round.errors.push(format!("{}: it does not answer", node.address));
                continue;
            }
            let Some(turn) = traces.turn(server) else {
                round.tally.count(None);
                round.busy += 1;
                continue;
            };
            let (node, claim, fate) = (Arc::clone(node), Arc::clone(claim), Arc::clone(&round.fate));
            round.pending.push(Arc::clone(&node));
            let asked = Asked { node, claim, fate, _turn: turn };
            tokio::spawn(asked.vote(server, Arc::clone(traces), sender.clone()));
        }
        drop(sender);
        round.until_decided(sent).await;
        round
    }

    async fn until_decided(&mut self, sent: Instant) {
        while self.tally.standing() == Standing::Open {
            match timeout_at(self.deadline, self.votes.recv()).await {
                Ok(Some(voted)) => self.note(voted),
                // All have answered.
                Ok(None) => self.tally.close(),
                Err(_) => {
                    self.tally.close();
                    for node in &self.pending {
                        node.is_late_since(sent);
                        self.errors.push(format!("{}: no answer in time", node.address));
                    }
                }
            }
        }
    }

    fn note(&mut self, Voted { asked, vote }: Voted) {
        self.tally.count(vote.as_ref().ok());
        self.pending.retain(|node| !Arc::ptr_eq(node, &asked.node));
        match vote {
            Ok(Vote::Granted { count }) => self.granted.push(Granted { asked, count }),
            Ok(Vote::Waits { .. }) => {}
            Err(error) => {
                self.errors.push(format!("{}: {error}", asked.node.address));
                // It may have been for the claim, all the same.
                self.granted.push(Granted { asked, count: 0 });
            }
        }
    }

    /// Lets a majority know the token. `false`: there is none that could be.
    pub(super) async fn make_known(&mut self, token: FencingToken, enough: usize, limit: Duration) -> bool {
        let (sender, mut raised) = mpsc::unbounded_channel();
        let (known, behind): (Vec<_>, _) =
            std::mem::take(&mut self.granted).into_iter().partition(|granted| granted.count == token.0);
        self.granted = known;
        for granted in behind {
            tokio::spawn(granted.asked.raise(token, sender.clone()));
        }
        drop(sender);
        let deadline = Instant::now() + limit;
        while self.granted.len() < enough {
            match timeout_at(deadline, raised.recv()).await {
                Ok(Some(granted)) => self.granted.push(granted),
                Ok(None) | Err(_) => break,
            }
        }
        let is_known = self.granted.len() >= enough;
        // Those that are still to come are seen to by themselves.
        self.decide(if is_known { Fate::Won(token) } else { Fate::Lost });
        raised.close();
        while let Ok(granted) = raised.try_recv() {
            self.granted.push(granted);
        }
        is_known
    }

    /// Ends the round: the claim has the lock, with this token.
    pub(super) fn win(mut self, token: FencingToken) {
        self.decide(Fate::Won(token));
        self.settle();
    }

    /// Ends the round: whatever was got is given back.
    pub(super) fn lose(mut self) {
        self.decide(Fate::Lost);
        self.settle();
    }

    fn decide(&mut self, fate: Fate) {
        // The first decision stands.
        self.fate.set(fate).ok();
    }

    /// Puts all servers right whose votes are there; those of which they are still to come do so themselves.
    fn settle(&mut self) {
        self.votes.close();
        while let Ok(voted) = self.votes.try_recv() {
            self.note(voted);
        }
        for granted in self.granted.drain(..) {
            if granted.is_to_settle() {
                tokio::spawn(granted.settle());
            }
        }
    }

    /// Which claim it is about.
    pub(super) fn claim(&self) -> &Arc<Claim> {
        &self.claim
    }
}

impl Asked {
    async fn vote(self, server: usize, traces: Arc<Traces>, votes: UnboundedSender<Voted>) {
        let vote = self.node.acquire(&self.claim, traces.ticket()).await;
        if vote.as_ref().is_err_and(is_of_the_connection) {
            traces.doubt(server);
        }
        // Where the round is over, the vote is too late to be counted.
        let Err(mpsc::error::SendError(Voted { asked, vote })) = votes.send(Voted { asked: self, vote })
        else {
            return;
        };
        match vote {
            Ok(Vote::Granted { count }) => Granted { asked, count }.settle().await,
            Ok(Vote::Waits { .. }) => {}
            Err(_) => Granted { asked, count: 0 }.settle().await,
        }
    }

    async fn raise(self, token: FencingToken, raised: UnboundedSender<Granted>) {
        if let Ok(true) = self.node.raise(&self.claim, token).await {
            let granted = Granted { asked: self, count: token.0 };
            if let Err(mpsc::error::SendError(granted)) = raised.send(granted) {
                granted.settle().await;
            }
        } else {
            Granted { asked: self, count: 0 }.give_back_if_lost().await;
        }
    }
}

impl Granted {
    /// Whether something is left to do on the server.
    fn is_to_settle(&self) -> bool {
        match self.asked.fate.get() {
            Some(Fate::Lost) => true,
            Some(Fate::Won(token)) => self.count < token.0,
            None => false,
        }
    }

    /// Gives back what came to nothing, and lets a server that is for the claim know its token. Without a
    /// fate the attempt has gone, and its release comes.
    async fn settle(self) {
        let Asked { node, claim, fate, .. } = &self.asked;
        match fate.get() {
            Some(Fate::Lost) => drop(node.release(claim).await),
            Some(Fate::Won(token)) if self.count < token.0 => drop(node.raise(claim, *token).await),
            Some(Fate::Won(_)) | None => {}
        }
    }

    async fn give_back_if_lost(self) {
        if let Some(Fate::Lost) = self.asked.fate.get() {
            self.asked.node.release(&self.asked.claim).await.ok();
        }
    }
}
