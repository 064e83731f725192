//! Buyers who wait for each other before the last step, so that all take it at the same time.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

/// A place to meet. Whoever waits goes on when all who are in the shop wait.
#[derive(Debug)]
pub struct Rendezvous {
    state: Mutex<State>,
    /// How often all have met.
    met: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// Buyers who are in the shop.
    present: usize,
    /// Of those, who wait.
    waiting: usize,
}

impl Rendezvous {
    /// A place for so many buyers, who are all there.
    pub fn of(buyers: usize) -> Self {
        Self { state: Mutex::new(State { present: buyers, waiting: 0 }), met: watch::Sender::new(0) }
    }

    /// Waits for all others who are in the shop. Whoever is dropped while waiting still counts as there.
    pub async fn wait(&self) {
        let mut met = {
            let mut state = self.state();
            state.waiting += 1;
            let met = self.met.subscribe();
            self.go_on(&mut state);
            met
        };
        // The sender is ours, so it is there.
        met.changed().await.ok();
    }

    /// A buyer leaves the shop for good.
    pub fn leave(&self) {
        let mut state = self.state();
        state.present -= 1;
        self.go_on(&mut state);
    }

    fn go_on(&self, state: &mut State) {
        if state.waiting > 0 && state.waiting >= state.present {
            state.waiting = 0;
            self.met.send_modify(|met| *met += 1);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn all_go_on_at_once_and_who_leaves_is_not_waited_for() {
        const BUYERS: usize = 20;
        let (place, arrived) = (Arc::new(Rendezvous::of(BUYERS)), Arc::new(AtomicUsize::new(0)));
        let buyers = (0..BUYERS).map(|number| {
            let (place, arrived) = (Arc::clone(&place), Arc::clone(&arrived));
            tokio::spawn(async move {
                for round in 1..=50 {
                    // Every buyer stays for another number of rounds.
                    if round > 10 + number {
                        break;
                    }
                    arrived.fetch_add(1, Ordering::SeqCst);
                    place.wait().await;
                    let stay = (0..BUYERS).map(|other| round.min(10 + other)).sum::<usize>();
                    assert!(arrived.load(Ordering::SeqCst) >= stay, "somebody went on before all had come");
                }
                place.leave();
            })
        });
        for buyer in buyers.collect::<Vec<_>>() {
            buyer.await.unwrap();
        }
    }
}
