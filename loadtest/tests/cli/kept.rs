//! Reports that were kept.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::program::{code, command, loadtest, printed, said};

/// A file that an earlier version wrote.
fn earlier(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/earlier").join(name)
}

#[test]
fn a_report_that_was_kept_is_shown_as_it_was_and_made_into_the_same_page() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (json, page) = (file("report.json"), file("page.html"));
    let load = ["compare", "--strategies", "none,row", "--orders", "300", "--stock", "150"];
    let first = loadtest(&[&load[..], &["--json", &json, "--html", &page]].concat());
    assert_eq!(code(&first), 0, "{}", said(&first));
    let again = loadtest(&["report", &json]);
    assert_eq!((code(&again), printed(&again), said(&again)), (0, printed(&first), String::new()));
    let html = loadtest(&["report", &json, "--html", "-"]);
    // The last digits of figures may differ: JSON has them in decimal.
    let without_digits = |page: String| page.replace(|c: char| c.is_ascii_digit() || "-.e%".contains(c), "");
    assert!(without_digits(printed(&html)) == without_digits(std::fs::read_to_string(page).unwrap()));
    assert!(said(&html).contains("| row "), "people read elsewhere: {}", said(&html));
    // Other limits, another verdict.
    assert_eq!(code(&loadtest(&["report", &json, "--max-p99", "1us", "--quiet"])), 99);
    // By way of a pipe.
    let mut piped = command(&["report", "-", "--quiet"]);
    piped.stdin(std::fs::File::open(&json).unwrap()).stdout(Stdio::piped());
    assert_eq!(printed(&piped.output().unwrap()), "as expected: 1 of 2 strategies oversold: none\n");
}

#[test]
fn reports_of_earlier_versions_are_shown() {
    for (name, expected, shown) in [
        ("run.json", 1, "OVERSOLD by 100 · none · 200 sold of 100"),
        ("compare.json", 0, "1 of 2 strategies oversold: none"),
        ("shop.json", 1, "OVERSOLD by 3 · forms · 13 sold of 10, 8 at once"),
        ("experiments.json", 0, "the claim is REPRODUCED"),
    ] {
        let file = earlier(name);
        let output = loadtest(&["report", file.to_str().unwrap(), "--html", "/dev/null"]);
        assert_eq!(code(&output), expected, "{name}: {}", said(&output));
        assert!(printed(&output).contains(shown), "{name}: {}", printed(&output));
        let xml = printed(&loadtest(&["report", file.to_str().unwrap(), "--junit", "-"]));
        assert!(xml.contains("<testsuites name=\"loadtest\""), "{name}: {xml}");
    }
}

#[test]
fn what_is_no_report_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    for (text, why) in [
        ("{}", "is no report of run, compare, demo or experiment"),
        ("{\"runs\": [{}], \"schema\": 1, \"not_run\": []}", "is no report"),
        ("[{\"name\": 5}]", "is no report"),
        ("orders", "is no JSON"),
    ] {
        let file = directory.path().join("report.json");
        std::fs::write(&file, text).unwrap();
        let output = loadtest(&["report", file.to_str().unwrap()]);
        assert_eq!(code(&output), 64, "{text}");
        assert!(said(&output).contains(&format!("report.json {why}")), "{text}: {}", said(&output));
    }
}
