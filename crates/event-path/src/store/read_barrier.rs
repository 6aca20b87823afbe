//! A barrier that makes a read show everything that was acknowledged before it.
//!
//! A deposed primary that does not know that it was deposed answers reads with old data, but cannot acknowledge a
//! write. So a read after an acknowledged write is no older than that write.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tandem_runtime::clock::Clock;
use tokio::sync::Mutex;

use super::{Registry, StoreError};
use crate::fault::{self, Fault};

/// The name under which a store remembers the last such write.
const NAME: &str = "read-barrier";

/// Must be passed before reads that must not be stale. Clones share the state. Callers who ask while a write is in
/// flight share the next one.
#[derive(Clone)]
pub struct ReadBarrier(Arc<Barrier>);

struct Barrier {
    registry: Arc<dyn Registry>,
    clock: Clock,
    /// How many calls have been made.
    asked: AtomicU64,
    /// How many calls had been made when the last acknowledged write began.
    passed: Mutex<u64>,
}

impl ReadBarrier {
    /// A barrier for reads from the store with this registry.
    #[must_use]
    pub fn new(registry: Arc<dyn Registry>, clock: &Clock) -> Self {
        Self(Arc::new(Barrier {
            registry,
            clock: clock.clone(),
            asked: AtomicU64::new(0),
            passed: Mutex::new(0),
        }))
    }

    /// Waits for a write that began after this call. Later reads over the same connection show everything that was
    /// acknowledged before the call.
    ///
    /// # Errors
    /// When the store does not acknowledge the write. Then nothing is known.
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
        // The value differs each time, because a deposed primary may acknowledge a write that changes nothing.
        let value = barrier.clock.new_id().to_string();
        barrier.registry.note(NAME, &value).await?;
        *passed = asked;
        Ok(())
    }
}
