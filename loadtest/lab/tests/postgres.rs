//! A PostgreSQL server and its end.

use std::time::Duration;

use stocklock_lab::{Postgres, Proxy, Server as _};
use tokio::time::{Instant, sleep};

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The processes of a server's own that serve its connections and its data.
fn children(server: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
    let list = list.expect("Linux lists the children of a process");
    list.split_whitespace().map(|id| id.parse().expect("an id is a number")).collect()
}

/// The state of a process in a letter; `None` when it is gone, or only waits for somebody to take note of its
/// end.
fn state(process: i32) -> Option<char> {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // It follows the name, which is in parentheses and may have anything in it.
    status.rsplit(") ").next()?.chars().next().filter(|state| !"ZX".contains(*state))
}

async fn until_all(processes: &[i32], what: &str, holds: impl Fn(Option<char>) -> bool) {
    let give_up = Instant::now() + START_TIMEOUT;
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
    assert_eq!(postgres.url(), format!("postgres://stocklock@{}/postgres", postgres.address()));
    let proxy = Proxy::start(&postgres.address()).await.unwrap();
    let url = postgres.url_at(&[proxy.address().to_string()]);
    assert_eq!(url, format!("postgres://stocklock@{}/postgres", proxy.address()));
}

#[tokio::test]
async fn the_time_of_day_can_be_stepped() {
    let postgres = Postgres::start_breakable().await.expect("PostgreSQL starts");
    let ahead = async || {
        let now = postgres.query("SELECT extract(epoch FROM clock_timestamp())").await.expect("a time");
        let system = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
        now.parse::<f64>().expect("seconds") - system.as_secs_f64()
    };
    assert!(ahead().await.abs() < 2.0);
    assert!(postgres.set_clock(100).expect("a clock"), "libfaketime is installed");
    assert!((ahead().await - 100.0).abs() < 2.0);
    assert!(postgres.set_clock(-100).expect("a clock"));
    assert!((ahead().await + 100.0).abs() < 2.0);
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_the_server_goes_on() {
    let mut postgres = Postgres::start_breakable().await.expect("PostgreSQL starts");
    let server = postgres.process().id();
    let more = "INSERT INTO goods SELECT repeat('x', 1000) FROM generate_series(1, 1200)";
    postgres.query(&format!("CREATE TABLE goods (name text); {more}")).await.expect("there is room");
    postgres.fill_disk(true).await.expect("it is limited");
    let error = postgres.query(more).await.expect_err("it is full");
    assert!(error.to_string().contains("could not extend file"), "{error}");
    assert_eq!(postgres.query("SELECT count(*) FROM goods").await.expect("it answers"), "1200");
    postgres.fill_disk(false).await.expect("the limit is lifted");
    postgres.query(more).await.expect("there is room again");
    assert_eq!(postgres.query("SELECT count(*) FROM goods").await.expect("it answers"), "2400");
    assert_eq!((postgres.process().exited(), postgres.process().id()), (None, server));
}

#[tokio::test]
async fn connections_are_ended_one_by_one() {
    let postgres = Postgres::start().await.expect("PostgreSQL starts");
    let sleeping = postgres.query("SELECT pg_sleep(60)");
    let ending = async {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'";
        while postgres.query(count).await.expect("a count") != "1" {
            sleep(Duration::from_millis(10)).await;
        }
        postgres.terminate_backends().await.expect("they are ended");
    };
    let (slept, ()) = tokio::join!(sleeping, ending);
    let error = slept.expect_err("it was ended").to_string();
    assert!(error.contains("terminating connection due to administrator command"), "{error}");
}
