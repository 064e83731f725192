//! One thread that starts all processes.
//!
//! Linux ends a child when the *thread* that started it ends. Threads of a runtime come and go; this one
//! stays for as long as the process.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

struct Order {
    command: Command,
    runtime: Handle,
    child: oneshot::Sender<io::Result<Child>>,
}

/// Starts a process whose parent, as the kernel sees it, is a thread that does not end.
pub(crate) async fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for mut order in orders {
                let _in_runtime = order.runtime.enter();
                // No task waits any more: the child is dropped, and ended by that.
                drop(order.child.send(order.command.spawn()));
            }
        });
        sender
    });
    let (child, started) = oneshot::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    spawner.send(Order { command, runtime: Handle::current(), child }).map_err(|_| gone())?;
    started.await.map_err(|_| gone())?
}
