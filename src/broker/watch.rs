//! Notices that the storage has died.
//!
//! All requests pass through one task of the storage library. A defect there ends that task, and from then on every
//! request fails while the port still answers. A process that ends is better: it is started again and recovers.

use std::time::Duration;

use tansu_storage::Storage;
use tracing::error;

const INTERVAL: Duration = Duration::from_secs(5);
/// Far longer than the slowest request, a fetch of 5 MiB.
const LONGEST_ANSWER: Duration = Duration::from_secs(60);

/// Ends when the storage does not answer any more.
pub(super) async fn storage_gone<S>(storage: S)
where
    S: Storage,
{
    loop {
        tokio::time::sleep(INTERVAL).await;
        let storage = storage.clone();
        // In a task of its own: a question that is dropped half-way would itself end the storage.
        let answer = tokio::spawn(async move { storage.ping().await });
        match tokio::time::timeout(LONGEST_ANSWER, answer).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(cause))) => {
                error!(%cause, "the storage answers with an error");
                return;
            }
            Ok(Err(cause)) => {
                error!(%cause, "the storage cannot be asked");
                return;
            }
            Err(_) => {
                error!(
                    seconds = LONGEST_ANSWER.as_secs(),
                    "the storage gives no answer"
                );
                return;
            }
        }
    }
}
