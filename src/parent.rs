//! Ends a child process after its parent has ended, however the parent ended.
//!
//! The parent holds the write end of the child's standard input and never writes to it. When the parent dies, even by
//! `kill -9`, the system closes that end and the child reads end of file.

use std::{
    io::{ErrorKind, Read},
    thread,
    time::Duration,
};

/// How long a child may take for an orderly shutdown after its parent is gone.
const GRACE: Duration = Duration::from_secs(4);

/// Watches standard input in a thread of its own. At end of file the process gets SIGTERM. If it still runs four
/// seconds later, it exits at once.
///
/// # Errors
///
/// When the thread cannot be started.
#[expect(clippy::disallowed_methods, reason = "it ends a blocked process, too")]
pub(crate) fn end_with_parent() -> std::io::Result<()> {
    thread::Builder::new()
        .name("parent-watch".to_owned())
        .spawn(|| {
            wait_for_end_of_input();
            // Not logged, because the reader of the log is gone too. If the process cannot signal itself, the exit
            // below remains.
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::TERM,
            );
            thread::sleep(GRACE);
            std::process::exit(1);
        })
        .map(drop)
}

fn wait_for_end_of_input() {
    let mut input = std::io::stdin().lock();
    let mut ignored = [0; 64];
    loop {
        match input.read(&mut ignored) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
