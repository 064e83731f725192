//! The child's side of dying with its owner.

use std::io::Read as _;

/// Ends this process when the process that started it is gone. To be called first thing in a child whose
/// standard input is a pipe that its owner keeps open and never writes to.
pub fn die_with_parent() {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::prctl::set_pdeathsig;
        use nix::sys::signal::Signal;
        // Also ends a process that is stopped. What remains is the moment before this line, for which there
        // is the pipe.
        if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
            eprintln!("cannot ask to be ended with the parent: {error}");
        }
    }
    std::thread::spawn(|| {
        let mut nothing = [0];
        // Whatever else may come is not for us; the end, or an error, means that the owner is gone.
        while matches!(std::io::stdin().read(&mut nothing), Ok(1)) {}
        std::process::exit(1);
    });
}
