//! Commands, run as a reader runs them: block by block in a shell, in a folder that has what a clone has.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{root, shops};

/// Blocks with these are read by the shell and not run: they take a container engine, a cluster, a database
/// of the reader's, or rights over the machine.
const NOT_HERE: [&str; 5] = ["docker ", "kubectl ", "psql ", "systemctl ", "install "];

/// What is put before the programs. Commands that take many minutes are read by the program and not carried
/// out (`--help` comes after all that was said), and of a comparison without faults few orders are enough.
/// What serves until it is interrupted is interrupted after a
/// while, unless it was sent to the background, where a shell gives it nothing to read. The words `make` and
/// `cargo test` have tests of their own: what they name has to be there.
const COMMANDS: &[(&str, &str)] = &[
    (
        "cargo",
        r#"case "$1" in
    build) ;;
    run) program=loadtest
        while [ $# -gt 0 ] && [ "$1" != -- ]; do
            [ "$1" = order-service ] && program=order-service
            shift
        done
        shift || true
        exec "$program" "$@" ;;
    test) shift
        while [ $# -gt 0 ]; do
            if [ "$1" = --test ]; then
                ls "$ROOT"/{service,loadtest}/tests/"$2"{.rs,/main.rs} 2>/dev/null | grep -q . || exit 70
            fi
            shift
        done ;;
    *) echo "cargo $1 is not known to the test of the documents" >&2; exit 70 ;;
esac"#,
    ),
    (
        "make",
        r#"for word in "${@:-help}"; do
    case "$word" in *=*) continue ;; esac
    grep -q "^$word:" "$ROOT/Makefile" || { echo "make has no word $word" >&2; exit 70; }
done"#,
    ),
    (
        "loadtest",
        r#"in_background() { [ /dev/stdin -ef /dev/null ]; }
case "$*" in
    soak* | bench* | "experiment all"* | *"--repeat 100"*) exec "$PROGRAM" "$@" --help >/dev/null ;;
    dashboard*) set -- "$@" --listen 127.0.0.1:0 --data "$PWD/data" ;;
    *--fault* | *--orders* | *--duration*) ;;
    compare*) set -- "$@" --orders 600 --stock 300 ;;
esac
case "$*" in
    "lab "*" -- "*) exec "$PROGRAM" "$@" ;;
    lab* | dashboard*) in_background && exec "$PROGRAM" "$@"
        timeout --preserve-status --signal INT 8 "$PROGRAM" "$@" || [ $? = 130 ]
        exit ;;
esac
"$PROGRAM" "$@"
code=$?
# A debug build on a busy machine may miss a threshold, or not come to a verdict.
[ $code = 2 ] || [ $code = 99 ] && exit 0
exit $code"#,
    ),
    (
        "order-service",
        r#"in_background() { [ /dev/stdin -ef /dev/null ]; }
case " $* " in
    *" openapi "* | *" config "* | *" migrate "* | *" locks "* | *" completions "* | *" man "* | *" --help "*)
        exec "$SERVICE" "$@" ;;
esac
in_background && exec "$SERVICE" "$@"
timeout --preserve-status --signal TERM 3 "$SERVICE" "$@""#,
    ),
];

/// Runs the blocks of a document; returns what failed.
pub async fn run(document: &Path, blocks: &[(usize, String)]) -> Vec<String> {
    if blocks.is_empty() {
        return Vec::new();
    }
    let folder = tempfile::tempdir().expect("a folder");
    furnish(folder.path()).await;
    let mut failures = Vec::new();
    for (line, block) in blocks {
        let started = std::time::Instant::now();
        if let Err(why) = run_block(folder.path(), block) {
            failures.push(format!("{}:{line}: {why}\n{block}", document.display()));
        }
        eprintln!("{}:{line}: {:.1} s", document.display(), started.elapsed().as_secs_f64());
    }
    failures
}

/// What a reader has: a clone, with its programs built, and the description of a shop that goes on meanwhile.
async fn furnish(folder: &Path) {
    for name in ["loadtest", "service", "migrations", "Makefile", "docker-compose.yml", "openapi.yaml"] {
        std::os::unix::fs::symlink(root().join(name), folder.join(name)).expect("a link");
    }
    let (bin, built) = (folder.join("bin"), folder.join("target/release"));
    std::fs::create_dir_all(&bin).and_then(|()| std::fs::create_dir_all(&built)).expect("folders");
    for (name, text) in COMMANDS {
        let file = bin.join(name);
        std::fs::write(&file, format!("#!/bin/bash\n{text}\n")).expect("it can be written");
        let mut permissions = std::fs::metadata(&file).expect("it is there").permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        std::fs::set_permissions(&file, permissions).expect("it is ours");
        std::os::unix::fs::symlink(&file, built.join(name)).expect("a link");
    }
    let shop = shops::forms(&shops::Shop::serve(true).await);
    std::fs::write(folder.join("shop.toml"), shop).expect("it can be written");
}

/// The service's program, which is built together with this test.
fn service() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("order-service");
    assert!(program.exists(), "{} is not built: cargo test --workspace does", program.display());
    program
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port().to_string()
}

fn run_block(folder: &Path, block: &str) -> Result<(), String> {
    let port = free_port();
    let block = block.replace("8080", &port);
    let is_run = !NOT_HERE.iter().any(|word| block.contains(word));
    let path = std::env::var("PATH").expect("a path");
    let mut shell = Command::new("bash");
    shell.args(if is_run { &["-eu"][..] } else { &["-n"] }).args(["-o", "pipefail", "-c", &block]);
    shell.current_dir(folder).process_group(0);
    shell.env("PATH", format!("{}:{path}", folder.join("bin").display())).env("ROOT", root());
    shell.env("PROGRAM", env!("CARGO_BIN_EXE_loadtest")).env("SERVICE", service());
    shell.env("STOCKLOCK__SERVER__LISTEN", format!("127.0.0.1:{port}"));
    // Something to read, so that what runs in the foreground is told from what does not.
    let output = tempfile::NamedTempFile::new().expect("a file");
    let said = |file: &std::fs::File| Stdio::from(file.try_clone().expect("a handle"));
    shell.stdin(Stdio::piped()).stdout(said(output.as_file())).stderr(said(output.as_file()));
    let mut child = shell.spawn().expect("bash is installed");
    let status = child.wait().expect("it ends");
    // What it has left in the background.
    killpg(Pid::from_raw(child.id() as i32), Signal::SIGTERM).ok();
    let said = std::fs::read_to_string(output.path()).unwrap_or_default();
    let tail: Vec<_> = said.lines().rev().take(30).collect();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    if status.success() { Ok(()) } else { Err(format!("{status}\n{tail}")) }
}
