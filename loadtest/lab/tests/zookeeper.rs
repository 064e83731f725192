//! ZooKeeper servers: one, and three that are one service.

use std::time::Duration;

use stocklock_lab::{Direction, Ensemble, Server as _, Zookeeper};
use tokio::time::{Instant, sleep};

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The leader, once it is not `former`.
async fn new_leader(ensemble: &Ensemble, former: usize) -> usize {
    let give_up = Instant::now() + START_TIMEOUT;
    loop {
        match ensemble.leader().await {
            Some(leader) if leader != former => return leader,
            _ => assert!(Instant::now() < give_up, "nobody has replaced server {former}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn until_it_follows(ensemble: &Ensemble, server: usize) {
    let give_up = Instant::now() + START_TIMEOUT;
    loop {
        let state =
            ensemble.monitor(server).await.ok().and_then(|mut monitor| monitor.remove("zk_server_state"));
        if state.as_deref() == Some("follower") {
            return;
        }
        assert!(Instant::now() < give_up, "server {server} is {state:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_ensemble_survives_the_kill_of_its_leader_and_takes_it_back() {
    let mut ensemble = Ensemble::start(3).await.unwrap();
    let addresses: Vec<_> = (0..ensemble.size()).map(|server| ensemble.address(server)).collect();
    assert_eq!(ensemble.url(), addresses.join(","));
    let first = ensemble.leader().await.expect("a complete ensemble has a leader");
    ensemble.kill(first).await.unwrap();
    let second = new_leader(&ensemble, first).await;
    assert_ne!(second, first);
    assert!(ensemble.monitor(first).await.is_err());
    ensemble.restart(first).await.unwrap();
    until_it_follows(&ensemble, first).await;
    assert_eq!(ensemble.leader().await, Some(second));
}

#[tokio::test]
async fn a_leader_that_is_paused_is_replaced_and_follows_when_it_is_resumed() {
    let ensemble = Ensemble::start(3).await.unwrap();
    let first = ensemble.leader().await.expect("a complete ensemble has a leader");
    ensemble.pause(first).unwrap();
    let second = new_leader(&ensemble, first).await;
    ensemble.resume(first).unwrap();
    until_it_follows(&ensemble, first).await;
    assert_eq!(ensemble.leader().await, Some(second));
}

#[tokio::test]
async fn an_ensemble_without_its_majority_has_no_leader() {
    let mut ensemble = Ensemble::start(2).await.unwrap();
    let leader = ensemble.leader().await.expect("a complete ensemble has a leader");
    ensemble.kill(1 - leader).await.unwrap();
    let give_up = Instant::now() + START_TIMEOUT;
    while ensemble.leader().await.is_some() {
        assert!(Instant::now() < give_up, "server {leader} still leads");
        sleep(Duration::from_millis(50)).await;
    }
    ensemble.restart(1 - leader).await.unwrap();
    new_leader(&ensemble, usize::MAX).await;
}

#[tokio::test]
async fn a_server_tells_how_it_is_but_not_while_it_is_paused() {
    let server = Zookeeper::start().await.unwrap();
    assert_eq!(server.url(), server.address());
    assert_eq!(server.monitor().await.unwrap()["zk_server_state"], "standalone");
    server.pause().unwrap();
    assert!(server.monitor().await.is_err());
    server.resume().unwrap();
    assert_eq!(server.monitor().await.unwrap()["zk_server_state"], "standalone");
}

#[tokio::test]
async fn a_follower_whose_link_is_silent_serves_what_it_last_heard() {
    let ensemble = Ensemble::start_linked(3).await.unwrap();
    let leader = ensemble.leader().await.expect("a complete ensemble has a leader");
    let follower = (leader + 1) % 3;
    let state = async |server: usize| ensemble.monitor(server).await.unwrap().remove("zk_server_state");
    let link = ensemble.link(follower, leader);
    link.blackhole(Direction::ToServer);
    link.blackhole(Direction::ToClient);
    // Longer than the second after which a follower of an ensemble without links would give its leader up.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(state(follower).await.as_deref(), Some("follower"));
    assert_eq!(state(leader).await.as_deref(), Some("leader"));
    link.heal();
}
