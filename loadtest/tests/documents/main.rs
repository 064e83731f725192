//! What the documents say is tried: every command in them is run, every file and heading that they link to is
//! there, and the two READMEs say the same.

mod commands;
#[path = "../support/shops.rs"]
mod shops;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the repository")
}

/// The documents, relative to the repository; those of the examples are for whoever has installed a shop.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "service/docs", "loadtest/docs"] {
        for file in std::fs::read_dir(root().join(folder)).expect("the folder is there") {
            let path = file.expect("it can be read").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.strip_prefix(root()).expect("it is in the repository").to_owned());
            }
        }
    }
    found.sort();
    assert!(found.len() > 10, "{found:?}");
    found
}

fn text(document: &Path) -> String {
    std::fs::read_to_string(root().join(document))
        .unwrap_or_else(|why| panic!("{}: {why}", document.display()))
}

/// The blocks of commands of a document, each with its first line's number.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim() != "```sh" {
            continue;
        }
        let block: Vec<_> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
        blocks.push((number + 2, block.join("\n")));
    }
    blocks
}

/// The document whose commands take as long as those of all others. Several tests run at the same time.
const LONGEST: &str = "load-test.md";

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_load_tests_page_runs() {
    run_commands(|document| document.ends_with(LONGEST)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_pages_on_the_service_runs() {
    run_commands(|document| document.starts_with("service")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_other_documents_runs() {
    run_commands(|document| !document.starts_with("service") && !document.ends_with(LONGEST)).await;
}

async fn run_commands(is_wanted: impl Fn(&Path) -> bool) {
    let (mut failures, mut known) = (Vec::new(), BTreeSet::new());
    for document in documents() {
        // What was is not what is, and the page on merges has a test of its own, which knows its exit codes.
        if document.ends_with("CHANGELOG.md") || document.ends_with("gate-a-merge.md") {
            continue;
        }
        // What two documents say alike is run once.
        let mut blocks = blocks(&text(&document));
        blocks.retain(|(_, block)| known.insert(block.lines().map(bare).collect::<Vec<_>>()));
        if is_wanted(&document) {
            failures.extend(commands::run(&document, &blocks).await);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn what_the_documents_link_to_is_there() {
    let link = regex::Regex::new(r#"(?:\]\(|src(?:set)?="|href=")([^)"\s]+)"#).expect("a pattern");
    let mut missing = Vec::new();
    for document in documents() {
        let text = text(&document);
        for [target] in link.captures_iter(&text).map(|found| found.extract().1) {
            if target.contains("://") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => root().join(&document),
                path => root().join(&document).parent().expect("a folder").join(path),
            };
            let is_there = file.exists()
                && (heading.is_empty()
                    || headings(&std::fs::read_to_string(&file).expect("text")).contains(heading));
            if !is_there {
                missing.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "not there:\n{}", missing.join("\n"));
}

/// The names by which headings are linked to.
fn headings(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let name = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(name).collect()
}

#[test]
fn the_readme_in_chinese_has_the_same_commands_and_links() {
    let (english, chinese) = (text(Path::new("README.md")), text(Path::new("README.zh-CN.md")));
    let commands = |text: &str| -> Vec<_> {
        let lines =
            blocks(text).into_iter().flat_map(|(_, block)| block.lines().map(bare).collect::<Vec<_>>());
        lines.filter(|line| !line.is_empty()).collect()
    };
    assert_eq!(commands(&english), commands(&chinese));
    // Where the service runs is a table that one page has.
    let links = |text: &str| -> BTreeSet<_> {
        let link = regex::Regex::new(r"\]\(([^)#]+)").expect("a pattern");
        let text = text.split("## Where it runs").next().expect("a text");
        let found = link.captures_iter(text).map(|found| found.extract::<1>().1[0].to_owned());
        found.filter(|link| !link.starts_with("README")).collect()
    };
    assert_eq!(links(&english), links(&chinese));
}

/// A line without its comment.
fn bare(line: &str) -> String {
    line.split(" # ").next().unwrap_or(line).split("  #").next().unwrap_or(line).trim().to_owned()
}
