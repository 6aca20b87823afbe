//! The signal by which a port is stopped.

use tokio::sync::watch;

/// Tells that it is time to stop; clones hear the same.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// Gives the word.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// A word to be given, and those who hear it.
#[must_use]
pub fn stop() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// It is time.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Waits for the signal; a dropped sender counts as one.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // Without a sender nobody will say it any more: it counts as said.
        let _ = receiver.wait_for(|is_said| *is_said).await;
    }
}
