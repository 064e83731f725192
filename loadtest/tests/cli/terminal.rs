//! The program on a terminal: colours, width, and a run while it goes on.

use std::process::Command;

use crate::program::{command, loadtest, printed};
use crate::support;

/// What the program shows on a terminal of 80 columns, and its exit code.
fn on_terminal(arguments: &[&str], variables: &[(&str, &str)]) -> (String, Option<i32>) {
    let words = std::iter::once(support::program().display().to_string());
    let words: Vec<_> = words.chain(arguments.iter().map(|word| format!("'{word}'"))).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command"]);
    script.arg(format!("stty cols 80 rows 24; {}", words.join(" "))).arg("/dev/null");
    script.env("TERM", "xterm-256color").env_remove("NO_COLOR").env_remove("COLUMNS");
    let output = script.envs(variables.iter().copied()).output().expect("script is in util-linux");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

/// A text without what moves the cursor and changes colours.
fn plain(text: &str) -> String {
    let codes = regex::Regex::new("\x1b\\[[0-9;?]*[A-Za-z]").expect("an expression");
    codes.replace_all(text, "").into_owned()
}

const RED: &str = "\x1b[38;5;9m";

#[test]
fn colours_are_for_terminals_and_for_those_who_want_them() {
    let load = ["compare", "--strategies", "none", "--orders", "300", "--stock", "100"];
    let (coloured, code) = on_terminal(&load, &[]);
    assert_eq!(code, Some(0), "{coloured}");
    assert!(coloured.contains(RED), "{coloured:?}");
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let (plain, _) = on_terminal(&load, &[variable]);
        assert!(
            plain.contains("OVERSOLD") && !plain.contains(RED) && !plain.contains("\x1b[1;31m"),
            "{plain:?}"
        );
    }
    assert!(!printed(&loadtest(&load)).contains('\x1b'));
}

#[test]
fn tables_are_readable_at_80_columns() {
    let load = ["compare", "--strategies", "none,zookeeper,row", "--orders", "600", "--stock", "300"];
    let narrow = command(&load).env("COLUMNS", "80").output().unwrap();
    for (table, is_narrow) in [(printed(&narrow), true), (printed(&loadtest(&load)), false)] {
        let widest = table.lines().map(|line| line.chars().count()).max().unwrap_or_default();
        assert_eq!(widest <= 80, is_narrow, "{table}");
        for title in ["verdict", "oversold", "orders/s", "p99 ms", "lock wait p99", "longest gap"] {
            let heads: String = table.lines().filter(|line| line.starts_with("| strategy")).collect();
            assert_eq!(heads.matches(title).count(), 1, "{table}");
        }
    }
}

#[test]
fn a_run_is_shown_while_it_goes_on_and_an_oversell_is_red_at_once() {
    let load = ["compare", "--strategies", "none", "--rate", "100", "--duration", "4s", "--stock", "50"];
    // Long enough orders that two meet, on however fast a machine.
    let load = [&load[..], &["--set", "checkout.think_time=20ms"]].concat();
    let (shown, code) = on_terminal(&[&load[..], &["--top-up", "0s"]].concat(), &[]);
    assert_eq!(code, Some(0), "{shown}");
    let words = plain(&shown);
    for part in ["of 4 s", "orders/s now, p50 ", "p99 ", " sold of 50, oversold 0, lost updates "] {
        assert!(words.contains(part), "{part}: {words}");
    }
    // Seen while it went on, before the table.
    let (live, _) = shown.split_once("| strategy").expect("a table");
    let alarm = live.find("\x1b[1;31moversold ").expect("an alarm");
    assert!(live[alarm..].contains("orders/s now"), "it goes on after the first: {live:?}");
    // Who wants quiet is shown nothing.
    let (quiet, _) = on_terminal(&[&load[..], &["--quiet"]].concat(), &[]);
    assert!(!quiet.contains("orders/s now") && quiet.lines().count() == 1, "{quiet:?}");
}

#[test]
fn where_no_terminal_is_there_is_a_line_now_and_then() {
    let output =
        loadtest(&["compare", "--strategies", "row", "--rate", "100", "--duration", "7s", "--no-control"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let live: Vec<_> = said.lines().filter(|line| line.contains("orders/s now")).collect();
    assert!(matches!(live.len(), 1..=3), "{said}");
    assert!(live[0].starts_with("row: ") && live[0].contains("oversold 0"), "{said}");
}
