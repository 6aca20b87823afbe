//! What makes a read show all that was acknowledged before it. A primary that was deposed and does not know it answers reads with what it had
//! when it was cut off, and can acknowledge no write. So what is read behind a write that was acknowledged is no older than that write.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tandem_runtime::clock::Clock;
use tokio::sync::Mutex;

use super::{Registry, StoreError};
use crate::fault::{self, Fault};

/// Under this name a store remembers the last such write.
const NAME: &str = "read-barrier";

/// Passed before reads that must not be old. Clones share it: who asks while a write is on its way shares the next one.
#[derive(Clone)]
pub struct ReadBarrier(Arc<Barrier>);

struct Barrier {
    registry: Arc<dyn Registry>,
    clock: Clock,
    /// How many have asked.
    asked: AtomicU64,
    /// How many of them had asked when the last write that was acknowledged began.
    passed: Mutex<u64>,
}

impl ReadBarrier {
    /// A barrier before reads from the store that has this registry.
    #[must_use]
    pub fn new(registry: Arc<dyn Registry>, clock: &Clock) -> Self {
        Self(Arc::new(Barrier {
            registry,
            clock: clock.clone(),
            asked: AtomicU64::new(0),
            passed: Mutex::new(0),
        }))
    }

    /// Waits for a write that began after this call. What is read from then on, over the same connection, shows all that was acknowledged before
    /// the call.
    ///
    /// # Errors
    /// When the store does not take a write: nothing is known then.
    pub async fn pass(&self) -> Result<(), StoreError> {
        if fault::is_on(Fault::BarrierNotPassed) {
            return Ok(());
        }
        let barrier = &self.0;
        let ticket = barrier.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut passed = barrier.passed.lock().await;
        if *passed >= ticket {
            return Ok(());
        }
        let asked = barrier.asked.load(Ordering::Relaxed);
        // Another value each time: what changes nothing a deposed primary may acknowledge.
        let value = barrier.clock.new_id().to_string();
        barrier.registry.note(NAME, &value).await?;
        *passed = asked;
        Ok(())
    }
}
