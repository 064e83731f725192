//! Real servers to play with.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use order_service::config::{Config, Sources};

use crate::program::{code, loadtest};
use crate::support;

#[test]
fn a_laboratory_says_how_to_use_it_and_is_used_so() {
    let mut lab = Command::new(support::program())
        .args(["lab", "--strategy", "redis", "--replicas", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(lab.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let said: Vec<_> = lines.take_while(|line| !line.starts_with("Ctrl-C")).collect();
    for server in ["PostgreSQL", "Redis", "ZooKeeper", "etcd", "replica"] {
        assert!(said.iter().any(|line| line.starts_with(server)), "{said:#?}");
    }
    let toml: Vec<_> = said.iter().skip_while(|line| *line != "[store]").collect();
    let toml: Vec<_> = toml.into_iter().take_while(|line| !line.starts_with("To fire")).cloned().collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("order-service.toml");
    std::fs::write(&file, toml.join("\n")).unwrap();
    let config = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
    assert_eq!(config.lock.strategy.as_str(), "redis");
    let fire = said.iter().find_map(|line| line.strip_prefix("    loadtest ")).unwrap();
    let output = loadtest(&fire.split(' ').collect::<Vec<_>>());
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let pid = nix::unistd::Pid::from_raw(lab.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(lab.wait().unwrap().code(), Some(130));
}

#[test]
fn a_laboratory_runs_a_command_and_ends_with_it() {
    let output = loadtest(&["lab", "--only", "redis", "--", "sh", "-c", "echo got $REDIS_URL; exit 7"]);
    assert_eq!(code(&output), 7);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("got redis://127.0.0.1:"), "{output:?}");
    let said = [
        "lab",
        "--store",
        "sqlite",
        "--replicas",
        "2",
        "--",
        "sh",
        "-c",
        "echo $SHOP_1 $SHOP_2 \
     $TOKEN",
    ];
    let output = loadtest(&said);
    let words = String::from_utf8_lossy(&output.stdout).split_whitespace().count();
    assert_eq!((code(&output), words), (0, 3), "{output:?}");
    let missing = loadtest(&["lab", "--only", "redis", "--", "no-such-program"]);
    assert_ne!(code(&missing), 0);
    // A request to stop is passed on, and what the command makes of it is waited for.
    let mut lab = Command::new(support::program())
        .args(["lab", "--only", "redis", "--"])
        .args(["sh", "-c", "trap 'echo asked; exit 3' TERM; echo there; while :; do sleep 0.05; done"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(lab.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert_eq!(lines.next().as_deref(), Some("there"));
    let pid = nix::unistd::Pid::from_raw(lab.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().as_deref(), Some("asked"));
    assert_eq!(lab.wait().unwrap().code(), Some(3));
}
