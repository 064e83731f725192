//! Nothing that the load generator starts goes on running without it.
#![cfg(target_os = "linux")]

mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The processes that `parent` has started.
fn children(parent: u32) -> Vec<i32> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name, in brackets, may hold anything; the parent is the second field after it.
        let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        if after.split(' ').nth(1) == Some(&parent.to_string()) {
            children.push(pid);
        }
    }
    children
}

fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; it waits for its new parent to notice.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A comparison that goes on for long, with its three replicas and further servers.
fn comparison(duration: &str, more: &[&str], servers: usize) -> (Child, Vec<i32>) {
    let owner = Command::new(support::program())
        .args(["compare", "--no-control", "--duration", duration])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    until("three replicas are started", || children(owner.id()).len() == servers + 3);
    let replicas = children(owner.id());
    (owner, replicas)
}

const ON_SQLITE: [&str; 2] = ["--strategies", "database"];

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("the process is there");
}

fn id(child: &Child) -> i32 {
    child.id().try_into().expect("a process id")
}

#[test]
fn a_killed_owner_takes_its_replicas_along() {
    let (mut owner, replicas) = comparison("60s", &ON_SQLITE, 0);
    // One is stopped and cannot do anything about it itself.
    signal(replicas[0], Signal::SIGSTOP);
    signal(id(&owner), Signal::SIGKILL);
    owner.wait().expect("the owner ends");
    until("the replicas end with their owner", || !replicas.iter().any(|pid| is_running(*pid)));
}

#[test]
fn a_killed_owner_takes_its_servers_along() {
    for strategy in ["redis", "zookeeper", "etcd"] {
        let (mut owner, mut family) =
            comparison("60s", &["--store", "postgres", "--strategies", strategy], 2);
        // PostgreSQL has a process for each connection.
        let connections: Vec<_> = family.iter().flat_map(|pid| children(pid.unsigned_abs())).collect();
        assert!(connections.len() > 3, "{strategy}: {connections:?}");
        family.extend(connections);
        signal(id(&owner), Signal::SIGKILL);
        owner.wait().expect("the owner ends");
        until("the servers end with their owner", || !family.iter().any(|pid| is_running(*pid)));
    }
}

#[test]
fn an_interrupted_owner_ends_its_replicas() {
    let (mut owner, replicas) = comparison("60s", &ON_SQLITE, 0);
    signal(id(&owner), Signal::SIGINT);
    let status = owner.wait().expect("the owner ends");
    // What was done until then is judged, if anything was.
    assert!(matches!(status.code(), Some(0 | 2)), "{status}");
    until("the replicas end with their owner", || !replicas.iter().any(|pid| is_running(*pid)));
}

#[test]
fn a_replica_that_dies_is_reported() {
    let (owner, replicas) = comparison("3s", &ON_SQLITE, 0);
    signal(replicas[1], Signal::SIGKILL);
    let output = owner.wait_with_output().expect("the owner ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // Before the first order there is no run to judge; afterwards what was done is judged, and this with it.
    assert!(matches!(output.status.code(), Some(69 | 1)), "{said}");
    assert!(said.contains("replica-2 ended with signal: 9"), "{said}");
}
