//! A PostgreSQL server and its end.

use std::time::Duration;

use stocklock_lab::{Postgres, Proxy};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(20);

/// The processes of a server's own that serve its connections and its data.
fn children(server: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
    let list = list.expect("Linux lists the children of a process");
    list.split_whitespace().map(|id| id.parse().expect("an id is a number")).collect()
}

/// The state of a process in a letter; `None` when it is gone, or only waits for somebody to take note of its end.
fn state(process: i32) -> Option<char> {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // It follows the name, which is in parentheses and may have anything in it.
    status.rsplit(") ").next()?.chars().next().filter(|state| !"ZX".contains(*state))
}

async fn until_all(processes: &[i32], what: &str, holds: impl Fn(Option<char>) -> bool) {
    let give_up = Instant::now() + PATIENCE;
    for process in processes {
        while !holds(state(*process)) {
            assert!(Instant::now() < give_up, "process {process} {what}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A server whose processes have all been stopped, and those processes.
async fn paused() -> (Postgres, Vec<i32>) {
    let mut postgres = Postgres::start().await.expect("PostgreSQL starts");
    postgres.pause().expect("it runs");
    let mut children = children(postgres.process().id());
    // Some may just have ended.
    until_all(&children, "does not stop", |state| matches!(state, Some('T') | None)).await;
    children.retain(|child| state(*child).is_some());
    assert!(!children.is_empty());
    (postgres, children)
}

#[tokio::test]
async fn a_server_dropped_while_it_is_paused_leaves_no_process_behind() {
    let (postgres, children) = paused().await;
    drop(postgres);
    until_all(&children, "is still there", |state| state.is_none()).await;
}

#[tokio::test]
async fn a_server_killed_while_it_is_paused_starts_again() {
    let (mut postgres, children) = paused().await;
    postgres.kill().await.unwrap();
    until_all(&children, "is still there", |state| state.is_none()).await;
    assert!(postgres.pause().is_err(), "there is nothing to pause");
    postgres.restart().await.unwrap();
}

#[tokio::test]
async fn a_url_leads_to_the_server_or_through_a_proxy() {
    let postgres = Postgres::start().await.unwrap();
    assert_eq!(postgres.url("postgres"), format!("postgres://stocklock@{}/postgres", postgres.address()));
    let proxy = Proxy::start(&postgres.address()).await.unwrap();
    let url = postgres.url_through(&proxy, "postgres");
    assert_eq!(url, format!("postgres://stocklock@{}/postgres", proxy.address()));
}
