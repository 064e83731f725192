//! Completions and manual pages: the shell itself, and the reader itself, take them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::program::{loadtest, printed};

#[test]
fn bash_completes_commands_flags_and_values() {
    let completions = printed(&loadtest(&["completions", "bash"]));
    let complete = |words: &str, at: usize| {
        let script = format!(
            "{completions}\nCOMP_WORDS=({words}); COMP_CWORD={at}; COMP_LINE='{words}'; \
             cur=${{COMP_WORDS[$COMP_CWORD]}}; prev=${{COMP_WORDS[$COMP_CWORD-1]}}; \
             _loadtest loadtest \"$cur\" \"$prev\"; echo \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["--norc", "-c", &script]).output().expect("bash runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        complete("loadtest comp", 1).split_whitespace().collect::<Vec<_>>(),
        ["compare", "completions"]
    );
    assert!(complete("loadtest compare --stra", 2).contains("--strategies"));
    let strategies = complete("loadtest lab --strategy ''", 3);
    assert!(strategies.contains("zookeeper") && strategies.contains("optimistic"), "{strategies}");
}

#[test]
fn other_shells_have_completions_too() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let completions = printed(&loadtest(&["completions", shell]));
        assert!(completions.contains("experiment") && completions.contains("github-summary"), "{shell}");
    }
}

#[test]
fn the_manual_has_a_page_for_the_program_and_for_each_command() {
    let directory = tempfile::tempdir().unwrap();
    let man = directory.path().join("man/man1");
    let output = loadtest(&["man", man.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    for page in ["loadtest", "loadtest-run", "loadtest-compare", "loadtest-report"] {
        let text = std::fs::read_to_string(man.join(format!("{page}.1"))).expect(page);
        assert!(text.contains(".TH"), "{text}");
    }
    let page = printed(&loadtest(&["man"]));
    assert!(page.contains(".SH SUBCOMMANDS") && page.contains("Exit codes"), "{page}");
    assert_eq!(page, std::fs::read_to_string(man.join("loadtest.1")).unwrap());
    let refused = loadtest(&["man", "/dev/null/man1"]);
    assert_eq!(refused.status.code(), Some(74), "{refused:?}");
}

/// A reader that has gone before all was printed is no error, and no panic.
#[test]
fn a_reader_that_has_gone_ends_quietly() {
    for arguments in [&["completions", "zsh"][..], &["schema"], &["experiment", "list"], &["man"]] {
        let mut child = crate::program::command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{arguments:?}");
    }
    // Where it cannot be written, that is said.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = crate::program::command(&["schema"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    std::io::stdout().flush().unwrap();
}
