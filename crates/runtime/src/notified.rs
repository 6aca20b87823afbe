//! Waits for a [`Notify`]. It wakes waiters in the order in which they came, which makes a seed of the simulation
//! reproducible. `tokio::sync::watch` wakes them in an unspecified order.

use tokio::sync::Notify;

/// Waits until `is_so` is true. `told` must wake all waiters ([`Notify::notify_waiters`]) whenever that may have
/// changed. Cancel safe.
pub async fn until(told: &Notify, is_so: impl Fn() -> bool) {
    loop {
        let word = told.notified();
        tokio::pin!(word);
        // From here on no notification is missed.
        word.as_mut().enable();
        if is_so() {
            return;
        }
        word.await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_done_when_it_is_so_and_not_before() {
        let (told, count) = (Notify::new(), Cell::new(0));
        until(&told, || true).await;
        let counting = async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
                count.set(count.get() + 1);
                told.notify_waiters();
            }
        };
        let waiting = async {
            until(&told, || count.get() >= 2).await;
            count.get()
        };
        let ((), seen) = tokio::join!(counting, waiting);
        assert_eq!(seen, 2);
    }
}
