//! The signal that stops a port.

use tokio::sync::watch;

/// Receives the signal to stop. Clones receive the same signal.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// Sends the signal to stop.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Makes a signal: its sender and its receiver.
#[must_use]
pub fn stop() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Sends the signal.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Waits for the signal. A dropped sender counts as the signal.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means that the sender was dropped, which counts as the signal.
        let _ = receiver.wait_for(|is_said| *is_said).await;
    }
}
