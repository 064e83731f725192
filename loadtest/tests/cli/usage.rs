//! Command lines that cannot be carried out, and what is said of them.

use std::path::Path;

use crate::program::{code, command, loadtest, printed, said};

/// That the same would be refused again.
const REFUSED: i32 = 64;

/// That something is not there, and may be another time.
const UNAVAILABLE: i32 = 69;

#[test]
fn what_cannot_be_carried_out_is_named_once_with_a_code_that_says_whether_to_try_again() {
    for (arguments, expected, named) in [
        (&["fly"][..], REFUSED, "fly"),
        (&["compare", "--replicas", "0"], REFUSED, "--replicas"),
        (&["compare", "--quantity", "3..1"], REFUSED, "--quantity"),
        (&["compare", "--set", "lock.strategy=none"], REFUSED, "set by the laboratory"),
        (&["compare", "--strategies", "row", "--set", "checkout.max_batch=0"], REFUSED, "checkout.max_batch"),
        (&["demo", "--rate", "-1"], REFUSED, "--rate"),
        (&["run"], REFUSED, "required arguments were not provided"),
        (&["run", "--target", "http://127.0.0.1:1", "--fault", "kill@1s"], REFUSED, "laboratory"),
        (&["run", "--target", "ftp://127.0.0.1"], REFUSED, "http://"),
        (&["run", "--target", "http://127.0.0.1:9"], UNAVAILABLE, "http://127.0.0.1:9"),
        (&["run", "--target-file", "no/such.toml"], REFUSED, "no/such.toml"),
        (&["experiment", "perpetual-motion"], REFUSED, "'perpetual-motion'"),
        (&["bench", "--only", "cold"], REFUSED, "'cold'"),
        (&["report", "no/such.json"], REFUSED, "no/such.json"),
        (&["report", "Cargo.toml"], REFUSED, "Cargo.toml is no JSON"),
        (&["serve", "--config", "no/such.toml"], REFUSED, "no/such.toml"),
        (&["serve", "--lock.strategy", "redis", "--lock.redis.url", "http://x"], REFUSED, "Redis"),
        // The strategy alone is enough, and somewhere nobody listens.
        (
            &["serve", "--lock.strategy", "redis", "--lock.redis.url", "redis://127.0.0.1:1"],
            UNAVAILABLE,
            "127.0.0.1:1",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("Cargo.toml"), "[package]").unwrap();
        let output = command(arguments).current_dir(directory.path()).output().unwrap();
        let said = said(&output);
        assert_eq!(code(&output), expected, "{arguments:?}: {said}");
        assert_eq!(said.matches(named).count(), 1, "{arguments:?}: {said}");
        for word in ["panicked", "RUST_BACKTRACE", "Error(", "Os {", "enum ", "variant", "struct "] {
            assert!(!said.contains(word), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn what_is_near_to_a_name_is_suggested() {
    for (arguments, meant) in [
        (&["compare", "--strateges", "row"][..], "'--strategies'"),
        (&["compare", "--strategies", "redsi"], "'redis'"),
        (&["compare", "--store", "postgre"], "'postgres'"),
        (&["compare", "--set", "lock.wiat=1s"], "\"lock.wait\""),
        (&["compare", "--fault", "kil@1s"], "\"kill\""),
        (&["compare", "--fault", "restart:redi@1s"], "restart:redis@2s"),
        (&["comprae"], "'compare'"),
        (&["experiment", "redis-expire"], "'redis-expiry'"),
        (&["lab", "--only", "zoo-keeper"], "'zookeeper'"),
        (&["serve", "--lock.strategy", "zookeper"], "'zookeeper'"),
        (&["completions", "bahs"], "'bash'"),
    ] {
        let output = loadtest(arguments);
        assert_eq!(code(&output), REFUSED, "{arguments:?}");
        assert!(said(&output).contains(meant), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_anything_is_run() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept.json");
    std::fs::write(&kept, "kept").unwrap();
    let kept = kept.to_str().unwrap();
    for (flag, command) in [
        ("--json", &["compare", "--strategies", "row"][..]),
        ("--html", &["demo"]),
        ("--junit", &["run", "--target", "http://127.0.0.1:1"]),
        ("--github-summary", &["compare"]),
        ("--json", &["experiment", "oversell"]),
        ("--markdown", &["soak"]),
        ("--json", &["bench"]),
    ] {
        for file in ["no/such/directory/report", "/"] {
            let output = loadtest(&[command, &[&format!("{flag}={file}")]].concat());
            assert_eq!(code(&output), REFUSED, "{command:?} {flag}: {output:?}");
            assert!(said(&output).contains(file), "{output:?}");
            assert_eq!(printed(&output), "", "{output:?}");
        }
    }
    // What is there stays until there is something to put in its place; and no empty file is left.
    let new = directory.path().join("new.json");
    for file in [kept, new.to_str().unwrap()] {
        let output = loadtest(&["run", "--target", "http://127.0.0.1:1", "--json", file]);
        assert_eq!(code(&output), UNAVAILABLE, "{output:?}");
    }
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "kept");
    assert!(!Path::new(&new).exists());
    // Standard output takes one of them.
    let output = loadtest(&["compare", "--json", "-", "--html", "-"]);
    assert_eq!(code(&output), REFUSED, "{output:?}");
    let output = loadtest(&["compare", "--github-summary"]);
    assert!(code(&output) == REFUSED && said(&output).contains("GITHUB_STEP_SUMMARY"), "{output:?}");
}

#[test]
fn the_exit_codes_are_in_the_help() {
    for arguments in [&["--help"][..], &["-h"]] {
        let help = printed(&loadtest(arguments)).split_whitespace().collect::<Vec<_>>().join(" ");
        for code in
            ["0 every", "1 something is violated", "2 inconclusive", "64 ", "69 ", "74 ", "99 ", "130 "]
        {
            assert!(help.contains(code), "{help}");
        }
    }
}
