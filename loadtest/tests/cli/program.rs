//! The program, and what it leaves.

use std::process::{Command, Output};

use loadtest::report::{Report, RunReport};
use loadtest::verdict::{CheckName, Status};
use order_service::config::StrategyName;

use crate::support;

pub fn loadtest(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the program runs")
}

/// The program with arguments, and nothing in its environment that changes how it prints.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(support::program());
    for variable in ["NO_COLOR", "COLUMNS", "GITHUB_STEP_SUMMARY"] {
        command.env_remove(variable);
    }
    command.args(arguments);
    command
}

/// What the program said on standard output.
pub fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the program said on standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

pub fn run_of(report: &Report, strategy: StrategyName) -> &RunReport {
    report.runs.iter().find(|run| run.strategy == strategy).expect("a run of the strategy")
}

/// Runs strategies side by side; answers the exit code, what was printed, and the report.
pub fn compared(arguments: &[&str]) -> (i32, String, Report) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let json = ["--json", file.path().to_str().expect("its name is text")];
    let output = loadtest(&[&["compare"], arguments, &json].concat());
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_slice(&std::fs::read(file.path()).expect("a report"))
        .unwrap_or_else(|error| panic!("{error}: {printed}{}", String::from_utf8_lossy(&output.stderr)));
    (code(&output), printed, report)
}

pub fn status(run: &RunReport, name: CheckName) -> Status {
    run.check(name).expect("the check").status
}

/// Sends a program what Ctrl-C sends.
pub fn interrupt(program: u32) {
    let pid = nix::unistd::Pid::from_raw(program.try_into().expect("an id is a number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
}

/// Replicas of one strategy, each on a store of its own or all on one.
pub async fn deployment(strategy: &str, files: &[&str], lab: &lab::Lab) -> (Vec<lab::Process>, Vec<String>) {
    deployment_with(strategy, files, &[], lab).await
}

/// The same with more flags.
pub async fn deployment_with(
    strategy: &str,
    files: &[&str],
    more: &[&str],
    lab: &lab::Lab,
) -> (Vec<lab::Process>, Vec<String>) {
    let mut replicas = Vec::new();
    let mut targets = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let url = format!("sqlite://{}", lab.file(file).display());
        let mut command = tokio::process::Command::new(support::program());
        command.args(["serve", "--die-with-parent", "--server.listen", "127.0.0.1:0", "--admin.token", "t"]);
        command.args(["--lock.strategy", strategy, "--store.url", &url]).args(more);
        let log = lab.file(&format!("{i}.log"));
        let timeout = std::time::Duration::from_secs(20);
        let started = lab::Process::start("replica", command, log, "listening on ", timeout).await;
        let (replica, address) = started.expect("the replica starts");
        replicas.push(replica);
        targets.push(address);
    }
    (replicas, targets)
}
