//! The page on how to gate a merge: its commands are run, and its exit codes are those of the program.

use std::path::Path;
use std::process::{Command, Output};

use crate::program::{loadtest, printed};
use crate::support;

const PAGE: &str = include_str!("../../docs/gate-a-merge.md");

const SHOP: &str = include_str!("../../examples/stocklock/shop.toml");

/// The commands in the page's blocks, each on one line, without what explains them.
fn commands() -> Vec<String> {
    let mut commands = Vec::new();
    for block in PAGE.split("```").skip(1).step_by(2) {
        // What is folded in YAML goes on in the next line.
        let joined = block.replace("run: >-\n          ", "").replace("\n          --", " --");
        let words =
            joined.lines().map(|line| line.trim().trim_start_matches("- ").trim_start_matches("run: "));
        let own = words.filter(|line| line.starts_with("loadtest ") || line.starts_with("if loadtest "));
        commands.extend(own.map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned()));
    }
    commands
}

/// Runs commands by a shell, one after the other, beside two replicas of this project's service under a
/// strategy; returns their exit codes, and what they said.
fn run(commands: &[&String], strategy: &str, directory: &Path) -> (Vec<String>, Output) {
    let program = support::program();
    let path = format!(
        "{}:{}",
        program.parent().expect("a folder").display(),
        std::env::var("PATH").expect("a path")
    );
    // Each in a shell of its own, as a step of a job is.
    let steps = commands.iter().map(|command| format!("sh -c '{command}'; echo $? >> codes\n"));
    let script = steps.collect::<String>();
    let codes = directory.join("codes");
    std::fs::write(&codes, "").expect("it can be written");
    let output = Command::new(&program)
        .args(["lab", "--strategy", strategy, "--store", "sqlite", "--replicas", "2"])
        // A shop that takes a moment, as others do: then the gate is strong enough.
        .args(["--set", "checkout.think_time=2ms", "--", "sh", "-c", &script])
        .current_dir(directory)
        .env("PATH", path)
        .env("GITHUB_STEP_SUMMARY", directory.join("summary.md"))
        .output()
        .expect("the program runs");
    let codes = std::fs::read_to_string(codes).expect("it was written");
    (codes.lines().map(str::to_owned).collect(), output)
}

#[test]
fn every_command_of_the_page_does_what_the_page_says() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["shop.toml", "broken.toml"] {
        std::fs::write(directory.path().join(name), SHOP).unwrap();
    }
    let commands = commands();
    let (twins, right): (Vec<_>, Vec<_>) =
        commands.iter().partition(|command| command.contains("broken.toml"));
    assert_eq!((twins.len(), right.len()), (1, 9), "{commands:#?}");
    let (codes, output) = run(&right, "database", directory.path());
    assert_eq!(codes, ["0"; 9], "{right:#?}: {output:?}");
    for file in ["oversell.json", "oversell.html", "oversell.xml", "summary.md", "locks.xml", "locks.md"] {
        assert!(directory.path().join(file).metadata().is_ok_and(|file| file.len() > 0), "{file}");
    }
    // The same gate, and a shop that has lost its lock; and the job that has to find that out.
    let gate = right.iter().find(|command| command.contains("--junit oversell.xml")).unwrap();
    let (codes, output) = run(&[gate, twins[0]], "none", directory.path());
    assert_eq!(codes, ["1", "0"], "{output:?}");
    let summary = std::fs::read_to_string(directory.path().join("summary.md")).unwrap();
    assert!(summary.contains("OVERSOLD by ") && summary.contains("not-oversold: "), "{summary}");
    let xml = std::fs::read_to_string(directory.path().join("oversell.xml")).unwrap();
    assert!(xml.contains("<failure message=") && xml.contains("type=\"violated\""), "{xml}");
}

#[test]
fn the_page_has_the_exit_codes_of_the_help() {
    let help = printed(&loadtest(&["--help"])).split_whitespace().collect::<Vec<_>>().join(" ");
    let codes: Vec<_> = PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()).collect();
    let codes: Vec<_> = codes.into_iter().filter(|code| code.parse::<u8>().is_ok()).collect();
    assert_eq!(codes, ["0", "1", "2", "64", "69", "74", "99"]);
    for code in codes {
        assert!(help.contains(&format!("{code} ")), "{code}: {help}");
    }
}
