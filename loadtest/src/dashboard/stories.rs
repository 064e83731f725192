//! Stories for somebody who sees the program for the first time: one click fills the form and starts the run,
//! and two sentences say what to look for.
//!
//! What tells a run of a story from others is its form: there is nothing to remember beside it.

use std::collections::BTreeSet;

use lab::ServerKind;

use super::form::Form;
use crate::experiments;
use crate::fleet::{StoreKind, servers_of};

/// A story.
#[derive(Debug)]
pub(super) struct Story {
    /// What it is called.
    pub(super) title: &'static str,
    /// What happens in it, in a sentence or two.
    pub(super) plot: &'static str,
    /// Its runs, to be seen in this order.
    pub(super) acts: &'static [Act],
}

/// A part of a story: what a button of it does.
#[derive(Debug)]
pub(super) struct Act {
    /// What the button says.
    pub(super) title: &'static str,
    /// What it does.
    pub(super) does: Does,
    /// What to look for in what it shows, in two sentences.
    pub(super) look_for: &'static str,
}

/// What an act does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Does {
    /// It runs the form of this query.
    Run(&'static str),
    /// It tries the experiment of this name.
    Try(&'static str),
    /// It opens the page at this address.
    Open(&'static str),
}

/// All stories, in the order in which they are best told.
pub(super) static STORIES: [Story; 7] = [
    Story {
        title: "The two hair dryers",
        plot: "Two are left, and several buyers want them at the same moment; each order asks for one or \
               two. First in a shop without a lock, then in one with a lock that all its replicas share.",
        acts: &[Act {
            title: "Sell two hair dryers",
            does: Does::Run(
                "strategy=none&strategy=database&stock=2&buyers=6&orders=12&replicas=2&quantity=1..2\
                 &set=checkout.think_time%3D100ms",
            ),
            look_for: "Under none, the counterexample names two orders that both read the same stock and \
                       were both confirmed: what they bought was sold twice. Under database, whoever \
                       comes second is told that there is not enough, and no unit is sold that is not there.",
        }],
    },
    Story {
        title: "A lock on one machine",
        plot: "The shop locks, but inside each process only. That is enough for one replica, and worth \
               nothing as soon as a second one sells from the same stock.",
        acts: &[
            Act {
                title: "One replica",
                does: Does::Run("strategy=local&stock=300&orders=600&replicas=1"),
                look_for: "The verdict is on the lock alone: one process sells exactly what there is. In the \
                           chart of the stock, both lines stay together down to zero.",
            },
            Act {
                title: "Three replicas",
                does: Does::Run("strategy=local&stock=300&orders=600&replicas=3"),
                look_for: "The same lock and the same load on three replicas oversell: see how the two lines \
                           of the stock part. In the lanes of the lock, several replicas have it at the same \
                           time, each its own.",
            },
        ],
    },
    Story {
        title: "The crashed holder",
        plot: "The replica that has the lock is killed in the middle of an order. Nobody gives the lock \
               back: the others wait until its lease is over, the two seconds for which it was lent.",
        acts: &[
            Act {
                title: "With a lock table",
                does: Does::Run(
                    "strategy=database&stock=500&buyers=16&rate=8&duration=10s&faults=kill%403s\
                     &set=checkout.think_time%3D500ms",
                ),
                look_for: "After the fault nothing is sold for about as long as the lease, two seconds: the \
                           gap is marked in the chart of answers. Then another replica has the lock, and \
                           nothing was oversold or lost.",
            },
            Act {
                title: "With Redis",
                does: Does::Run(
                    "strategy=redis&stock=500&buyers=16&rate=8&duration=10s&faults=kill%403s\
                     &set=checkout.think_time%3D500ms",
                ),
                look_for: "The key in Redis outlives its holder until it expires, after two seconds: that is \
                           the gap in the chart of answers. Then the next replica sets it, and nothing was \
                           oversold or lost.",
            },
            Act {
                title: "With ZooKeeper",
                does: Does::Run(
                    "strategy=zookeeper&stock=500&buyers=16&rate=8&duration=10s&faults=kill%403s\
                     &set=checkout.think_time%3D500ms",
                ),
                look_for: "The node of the dead holder is ephemeral: it vanishes when its session ends, and \
                           only then the next one is woken. See how long the gap is in the chart of answers, \
                           and that nothing was oversold or lost.",
            },
        ],
    },
    Story {
        title: "The paused holder",
        plot: "The replica that has the lock stands still for twice its lease, as in a long garbage \
               collection. Meanwhile another gets the lock; then the first wakes up and writes. The \
               guard, a version number beside the stock, can refuse that.",
        acts: &[
            Act {
                title: "Guard off",
                does: Does::Run(
                    "strategy=database&guard=off&stock=500&buyers=16&rate=8&duration=12s\
                     &faults=pause:2xlease%403s&set=checkout.think_time%3D500ms",
                ),
                look_for: "In the lanes two replicas have the lock at once, and the counterexample names \
                           both orders: the late write overwrote the other's. A lease alone cannot \
                           prevent that.",
            },
            Act {
                title: "Guard on",
                does: Does::Run(
                    "strategy=database&guard=version&stock=500&buyers=16&rate=8&duration=12s\
                     &faults=pause:2xlease%403s&set=checkout.think_time%3D500ms",
                ),
                look_for: "The lanes overlap as before, but nothing is lost: the store refuses the late \
                           write, since the version has moved. It is counted among the stale writes refused.",
            },
        ],
    },
    Story {
        title: "The herd",
        plot: "Many wait for one lock. If each of them watches the whole queue, every release wakes them \
               all; if each watches only the one before, it wakes one.",
        acts: &[Act {
            title: "Wake the herd",
            does: Does::Try("herd"),
            look_for: "Compare the notifications for the same number of waiters: with the herd they grow \
                       with its square. The bytes that went over the wire show the same.",
        }],
    },
    Story {
        title: "The flash sale",
        plot: "A thousand units, two hundred buyers, four thousand orders as fast as they are answered. \
               Which lock sells fastest, and which keeps the slowest buyer waiting least?",
        acts: &[
            Act {
                title: "Without servers",
                does: Does::Run(
                    "strategy=none&strategy=database&strategy=row&strategy=optimistic&stock=1000&buyers=200\
                     &orders=4000",
                ),
                look_for: "In the table, orders/s and p99 say what each lock costs; the first row has none \
                           and oversells, so that its speed does not count. Repeat the run before you \
                           believe a small difference.",
            },
            Act {
                title: "Every lock, on PostgreSQL",
                does: Does::Run(
                    "strategy=none&strategy=database&strategy=redis&strategy=zookeeper&strategy=etcd\
                     &strategy=row&strategy=optimistic&store=postgres&stock=1000&buyers=200&orders=4000",
                ),
                look_for: "In the table, orders/s and p99 say what each lock costs over the network; the \
                           first row has none and oversells, so that its speed does not count. Repeat the \
                           run before you believe a small difference.",
            },
        ],
    },
    Story {
        title: "Your shop",
        plot: "The same purchases, first one after the other and then by more and more buyers at once, in a \
               shop that you describe in a file: any shop with an HTTP interface.",
        acts: &[Act {
            title: "Open the page",
            does: Does::Open("/shop"),
            look_for: "Alone, as much is sold as there is; look for the first number of buyers at which it \
                       is more. The purchases that were too many are listed one by one.",
        }],
    },
];

impl Act {
    /// The form that it runs, if it runs one.
    pub(super) fn form(&self) -> Option<Form> {
        match self.does {
            Does::Run(query) => Some(Form::parse(query)),
            Does::Try(_) | Does::Open(_) => None,
        }
    }

    /// The servers without which it cannot be seen.
    pub(super) fn needs(&self) -> BTreeSet<ServerKind> {
        match self.does {
            Does::Run(_) => {
                let form = self.form().unwrap_or_default();
                let store = StoreKind::ALL.into_iter().find(|store| store.as_str() == form.value("store"));
                let store = store.unwrap_or(StoreKind::Sqlite);
                form.strategies.iter().flat_map(|strategy| servers_of(*strategy, store)).collect()
            }
            Does::Try(name) => {
                let known = experiments::all().into_iter().find(|experiment| experiment.name == name);
                known.map(|experiment| experiment.needs.iter().copied().collect()).unwrap_or_default()
            }
            Does::Open(_) => BTreeSet::new(),
        }
    }
}

/// The story that a form tells, and which part of it; `None` when it was changed.
pub(super) fn told(form: &Form) -> Option<(&'static Story, &'static Act)> {
    let acts = STORIES.iter().flat_map(|story| story.acts.iter().map(move |act| (story, act)));
    acts.into_iter().find(|(_, act)| act.form().is_some_and(|own| own == *form))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_story_can_be_told_and_is_known_by_its_form() {
        for story in &STORIES {
            for act in story.acts {
                let sentences = act.look_for.matches(['.', '?']).count();
                assert_eq!(sentences, 2, "{}: {}", act.title, act.look_for);
                match act.does {
                    Does::Run(query) => {
                        let form = Form::parse(query);
                        let command = form.plan().map(|plan| plan.command_line());
                        assert!(command.is_ok(), "{}: {command:?}", act.title);
                        let again = Form::parse(&form.query());
                        assert!(
                            told(&again).is_some_and(|(_, known)| std::ptr::eq(known, act)),
                            "{}",
                            act.title
                        );
                    }
                    Does::Try(name) => {
                        let known = experiments::all();
                        assert!(known.iter().any(|experiment| experiment.name == name), "{name}");
                    }
                    Does::Open(address) => assert!(address.starts_with('/')),
                }
            }
        }
        assert!(told(&Form::default()).is_none());
    }

    #[test]
    fn a_story_says_what_it_needs() {
        let needs = |title: &str| {
            let acts = STORIES.iter().flat_map(|story| story.acts);
            acts.into_iter().find(|act| act.title == title).expect(title).needs()
        };
        assert_eq!(needs("Sell two hair dryers"), BTreeSet::new());
        assert_eq!(needs("With Redis"), BTreeSet::from([ServerKind::Redis]));
        assert_eq!(needs("Every lock, on PostgreSQL").len(), 4);
        assert_eq!(needs("Wake the herd"), BTreeSet::from([ServerKind::Zookeeper, ServerKind::Etcd]));
    }
}
