//! Ends a child process when the process that started it is gone, however that one died.
//!
//! The parent holds the writing end of the child's standard input and never writes. When the parent dies the system
//! closes that end, also after `kill -9`, and the child reads the end of the file.

use std::{
    io::{ErrorKind, Read},
    thread,
    time::Duration,
};

/// The time a child has for its own orderly end after its parent is gone.
const GRACE: Duration = Duration::from_secs(4);

/// Watches standard input in a thread of its own: at its end the process gets SIGTERM, and four seconds later, if it
/// still lives, ends at once.
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
            // Nothing is logged: the reader of the log is gone too. A failure means that the process cannot signal itself; the exit below remains.
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
