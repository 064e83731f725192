//! What the program says when it cannot start: at once, once, with the thing named, and no password.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// What is to be heard from none.
const PASSWORD: &str = "hunter2";

/// Starts the program, which is expected to end by itself.
fn start(directory: &std::path::Path, arguments: &[&str]) -> (Output, Duration) {
    let begun = Instant::now();
    let mut program = Command::new(env!("CARGO_BIN_EXE_order-service"));
    program.current_dir(directory).args(["--server.listen", "127.0.0.1:0"]).args(arguments);
    (program.output().expect("it can be run"), begun.elapsed())
}

#[test]
fn what_cannot_be_reached_is_named_at_once_and_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let postgres = format!("postgres://shop:{PASSWORD}@127.0.0.1:1/shop");
    let redis = format!("redis://:{PASSWORD}@127.0.0.1:1/0");
    let auth = format!("shop:{PASSWORD}");
    for (arguments, address) in [
        (vec!["--store.url", &postgres], "127.0.0.1:1/shop"),
        (vec!["--lock.strategy", "redis", "--lock.redis.url", &redis], "127.0.0.1:1/0"),
        (
            vec!["--lock.strategy", "etcd", "--lock.etcd.url", "http://127.0.0.1:1"],
            "127.0.0.1:1 (lock.etcd.url)",
        ),
        (
            vec![
                "--lock.strategy",
                "zookeeper",
                "--lock.zookeeper.servers",
                "127.0.0.1:1",
                "--lock.zookeeper.auth",
                &auth,
            ],
            "127.0.0.1:1",
        ),
    ] {
        let (output, took) = start(directory.path(), &arguments);
        let error = String::from_utf8(output.stderr).expect("text");
        // It may be there another time.
        assert_eq!(output.status.code(), Some(69), "{error}");
        assert_eq!(error.matches("onnection refused").count(), 1, "{error}");
        assert_eq!(error.matches(address).count(), 1, "{error}");
        assert!(!error.contains(PASSWORD), "{error}");
        assert!(took < Duration::from_secs(2), "after {took:?}: {error}");
    }
}

#[test]
fn a_database_that_accepts_and_never_answers_is_given_up_in_time() {
    let directory = tempfile::tempdir().expect("a directory");
    // Nobody accepts what the kernel has accepted.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let url = format!("postgres://shop@{address}/shop?sslmode=disable");
    for command in [vec![], vec!["migrate"]] {
        let arguments = [vec!["--store.url", &url, "--store.timeout", "500ms"], command].concat();
        let (output, took) = start(directory.path(), &arguments);
        let error = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(69), "{arguments:?}: {error}");
        assert!(error.contains(&address.to_string()), "{arguments:?}: {error}");
        assert!(took < Duration::from_secs(10), "{arguments:?}, after {took:?}: {error}");
    }
}

#[test]
fn no_spelling_of_a_url_shows_its_password() {
    let directory = tempfile::tempdir().expect("a directory");
    let spellings = [
        "PW", "a@PW", "PW@a", "a/PW", "12/PW", "12/PW@a", "a?PW", "12?PW", "a#PW", "12#PW", "a:PW", "a%PW",
        "a PW", "%40PW",
    ];
    for spelling in spellings {
        let password = spelling.replace("PW", PASSWORD);
        let postgres = [
            format!("postgres://shop:{password}@127.0.0.1:1/shop"),
            format!("postgresql://{password}@127.0.0.1:1/shop"),
            format!("postgres://127.0.0.1:1/shop?user=shop&password={password}"),
            format!("postgres://127.0.0.1:1/shop?user=shop&pass={password}"),
            format!("postgres:shop:{password}@127.0.0.1:1/shop"),
            format!("shop:{password}@127.0.0.1:1/shop"),
        ];
        let redis = [
            format!("redis://:{password}@127.0.0.1:1/0"),
            format!("rediss://shop:{password}@127.0.0.1:1/0"),
            format!("redis:{password}@127.0.0.1"),
        ];
        let of_redis = |url: &String| {
            vec!["--lock.strategy".into(), "redis".into(), "--lock.redis.url".into(), url.clone()]
        };
        let all = postgres
            .iter()
            .map(|url| vec!["--store.url".into(), url.clone()])
            .chain(redis.iter().map(of_redis));
        for arguments in all {
            let arguments: Vec<&str> = arguments.iter().map(|argument: &String| argument.as_str()).collect();
            let (output, _) = start(directory.path(), &arguments);
            let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
            // It is refused, or nobody is there.
            assert!(matches!(output.status.code(), Some(64 | 69)), "{arguments:?}: {said}");
            assert!(
                said.contains("store.url") || said.contains("Redis") || said.contains("lock.redis.url"),
                "{said}"
            );
            assert!(!said.contains(PASSWORD), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn no_mistake_in_a_file_shows_a_password() {
    let directory = tempfile::tempdir().expect("a directory");
    for text in [
        format!("[store]\nurl = \"postgres://shop:{PASSWORD}@db"),
        format!("[store]\nurl = postgres://shop:{PASSWORD}@db"),
        format!("store = \"postgres://shop:{PASSWORD}@db\""),
        format!("[store]\nurl = [\"postgres://shop:{PASSWORD}@db\"]"),
        format!("[lock]\nredis = \"redis://:{PASSWORD}@db\""),
        format!("[lock]\nzookeeper = \"shop:{PASSWORD}\""),
        format!("[lock.zookeeper]\nauth = \"{PASSWORD}\""),
        format!("[lock.etcd]\nurl = \"http://shop:{PASSWORD}@etcd:2379\""),
        format!("[lock]\netcd = \"http://shop:{PASSWORD}@etcd:2379\""),
        format!("admin = \"{PASSWORD}\""),
        format!("[admin]\nallow_reset = \"{PASSWORD}\""),
        format!("[admin]\ntoken = \"{PASSWORD} \""),
        format!("[server]\ntoken = [\"{PASSWORD}\"]"),
        format!("[server]\ntoken = \"{PASSWORD} \""),
    ] {
        std::fs::write(directory.path().join("order-service.toml"), &text).expect("a file");
        let (output, _) = start(directory.path(), &[]);
        let error = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(64), "{text}: {error}");
        assert!(!error.contains(PASSWORD), "{text}: {error}");
        assert!(error.lines().count() == 1 && error.len() > 30, "{text}: {error}");
    }
}

#[test]
fn a_token_file_that_cannot_be_read_is_named_with_its_key() {
    let directory = tempfile::tempdir().expect("a directory");
    for key in ["admin.token_file", "server.token_file"] {
        let (output, _) = start(directory.path(), &[&format!("--{key}"), "no/such/file"]);
        let error = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(64), "{error}");
        assert!(error.contains(&format!("{key}: no/such/file: cannot be read")), "{error}");
    }
}

/// Runs the program with no more than these arguments.
fn run(directory: &std::path::Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_order-service"));
    let output = program.current_dir(directory).args(arguments).output().expect("it can be run");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_mistake_is_named_once_with_what_there_is_and_what_may_be_meant() {
    let directory = tempfile::tempdir().expect("a directory");
    let file =
        |text: &str| std::fs::write(directory.path().join("order-service.toml"), text).expect("a file");
    for (text, arguments, said) in [
        ("", &["--lock.stratgy", "redis"][..], "'--lock.strategy'"),
        ("", &["--lock.strategy", "redsi"], "'redis'"),
        ("", &["migrat"], "'migrate'"),
        ("", &["unlock"], "arguments were not provided"),
        ("[lock]\nstrategy = \"redsi\"", &[], "row, optimistic, not \"redsi\"; did you mean \"redis\"?"),
        ("[lock]\nstratgy = \"redis\"", &[], "there is no such key; did you mean \"lock.strategy\"?"),
        ("[checkout]\nmax_batch = 0", &[], "checkout.max_batch: must be from 1"),
    ] {
        file(text);
        let (code, printed, error) = run(directory.path(), arguments);
        assert_eq!((code, printed.as_str()), (Some(64), ""), "{arguments:?} {text}: {error}");
        assert_eq!(error.matches(said).count(), 1, "{arguments:?} {text}: {error}");
        assert!(!error.contains("variant") && !error.contains("StrategyName"), "{error}");
    }
}

#[test]
fn a_strategy_alone_is_tried_at_the_address_that_the_help_shows() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_, help, _) = run(directory.path(), &["--help"]);
    // Where such a server is, at that address, it is used; so the address is another one here.
    assert!(help.contains("[default: redis://127.0.0.1:6379]"), "{help}");
    let (code, _, error) =
        run(directory.path(), &["--lock.strategy", "redis", "--lock.redis.url", "redis://127.0.0.1:1"]);
    assert_eq!(code, Some(69), "{error}");
    for code in ["0 done", "64 the command line", "69 something", "74 what"] {
        assert!(help.contains(code), "{help}");
    }
}

#[test]
fn completions_and_manual_pages_are_of_this_program() {
    let directory = tempfile::tempdir().expect("a directory");
    let (code, completions, _) = run(directory.path(), &["completions", "bash"]);
    assert!(code == Some(0) && completions.contains("--lock.redis.url"), "{completions}");
    let (code, page, _) = run(directory.path(), &["man"]);
    assert!(code == Some(0) && page.contains(".TH order-service"), "{page}");
    assert_eq!(run(directory.path(), &["man", "pages"]).0, Some(0));
    for page in ["order-service.1", "order-service-unlock.1"] {
        assert!(directory.path().join("pages").join(page).exists(), "{page}");
    }
}

#[test]
fn a_reader_that_has_gone_ends_quietly() {
    for arguments in [["config"], ["openapi"], ["man"]] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_order-service"));
        program.args(arguments).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = program.spawn().expect("it can be run");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{arguments:?}: {output:?}");
    }
}
