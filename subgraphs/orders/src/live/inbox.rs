//! The queue of one listener, and the waking of many listeners without delaying other work.
//!
//! A change may be for ten thousand listeners. If all of them woke at once, all other work of the process would wait
//! behind them. So the change is put into all queues at once, and the listeners are woken in batches.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tandem_runtime::shutdown::Shutdown;
use tokio::sync::{Notify, mpsc};

/// The maximum number of updates in the queue of one subscription.
pub(super) const QUEUE: usize = 1_024;
/// The number of listeners that are woken together. With larger batches, the threads of the process would do little
/// else in that time.
const TOGETHER: usize = 64;
/// An empty queue gives back its memory if its capacity is larger than this.
const ROOM: usize = 8;

/// The queue of a listener.
pub(super) struct Inbox<T> {
    state: Mutex<State<T>>,
    told: Notify,
}

struct State<T> {
    queue: VecDeque<T>,
    has_lagged: bool,
    has_ended: bool,
    /// Whether the listener already waits for its turn to be woken.
    is_to_be_woken: bool,
}

impl<T> Inbox<T> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                has_lagged: false,
                has_ended: false,
                is_to_be_woken: false,
            }),
            told: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an update into the queue without waking the listener. Returns false if the queue is full: then the listener
    /// gets what is in the queue, and after that the information that it lagged.
    pub(super) fn put(&self, update: T) -> bool {
        let mut state = self.state();
        if state.queue.len() >= QUEUE {
            state.has_lagged = true;
            state.has_ended = true;
            return false;
        }
        state.queue.push_back(update);
        true
    }

    /// Ends the queue: nothing more comes.
    pub(super) fn end(&self) {
        self.state().has_ended = true;
        self.told.notify_one();
    }

    /// The next update, or `None` after the last one. Cancel-safe.
    pub(super) async fn next(&self) -> Option<T> {
        loop {
            let told = self.told.notified();
            {
                let mut state = self.state();
                if let Some(update) = state.take() {
                    return Some(update);
                }
                if state.has_ended {
                    return None;
                }
            }
            // A notification that came before this await is kept.
            told.await;
        }
    }

    /// The next update, if there is one already.
    pub(super) fn next_ready(&self) -> Option<T> {
        self.state().take()
    }

    /// Whether updates were lost because the queue was full.
    pub(super) fn has_lagged(&self) -> bool {
        self.state().has_lagged
    }

    /// Marks the listener as waiting for its turn. Returns true if it was not waiting yet.
    fn waits_for_turn(&self) -> bool {
        !std::mem::replace(&mut self.state().is_to_be_woken, true)
    }

    fn wake(&self) {
        self.state().is_to_be_woken = false;
        self.told.notify_one();
    }
}

impl<T> State<T> {
    fn take(&mut self) -> Option<T> {
        let update = self.queue.pop_front();
        if self.queue.is_empty() && self.queue.capacity() > ROOM {
            self.queue = VecDeque::new();
        }
        update
    }
}

/// Wakes listeners in batches. Each listener waits for at most one turn, so the number of waiting turns is bounded by
/// the number of listeners.
pub(super) struct Bell<T> {
    turns: mpsc::UnboundedSender<Vec<Arc<Inbox<T>>>>,
    waiting: Mutex<Option<Turns<T>>>,
}

type Turns<T> = mpsc::UnboundedReceiver<Vec<Arc<Inbox<T>>>>;

impl<T> Bell<T> {
    pub(super) fn new() -> Self {
        let (turns, waiting) = mpsc::unbounded_channel();
        Self {
            turns,
            waiting: Mutex::new(Some(waiting)),
        }
    }

    /// Wakes the listeners of these inboxes: a few at once, many in batches.
    pub(super) fn ring(&self, inboxes: Vec<Arc<Inbox<T>>>) {
        if inboxes.len() <= TOGETHER {
            inboxes.iter().for_each(|inbox| inbox.wake());
            return;
        }
        let mut inboxes = inboxes;
        inboxes.retain(|inbox| inbox.waits_for_turn());
        if let Err(mpsc::error::SendError(inboxes)) = self.turns.send(inboxes) {
            inboxes.iter().for_each(|inbox| inbox.wake());
        }
    }
}

impl<T: Send + Sync + 'static> Bell<T> {
    /// Starts the task that wakes many listeners in batches. When the service stops, it wakes all that still wait.
    pub(super) fn start(&self, shutdown: &Shutdown) {
        let waiting = self.waiting.lock();
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = waiting else {
            return;
        };
        let stop = shutdown.clone();
        shutdown.spawn(async move {
            loop {
                let turns = tokio::select! {
                    biased;
                    () = stop.requested() => break,
                    turns = waiting.recv() => turns,
                };
                let Some(turns) = turns else { break };
                for some in turns.chunks(TOGETHER) {
                    some.iter().for_each(|inbox| inbox.wake());
                    tokio::task::yield_now().await;
                }
            }
            waiting.close();
            while let Ok(turns) = waiting.try_recv() {
                turns.iter().for_each(|inbox| inbox.wake());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn many_are_given_an_update_at_once_and_woken_some_at_a_time() {
        let (bell, shutdown) = (Bell::new(), Shutdown::new());
        bell.start(&shutdown);
        let many: Vec<_> = (0..1_000).map(|_| Arc::new(Inbox::new())).collect();
        let woken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        for inbox in &many {
            let (inbox, woken) = (Arc::clone(inbox), Arc::clone(&woken));
            tokio::spawn(async move {
                inbox.next().await.unwrap();
                woken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            });
        }
        tokio::task::yield_now().await;
        assert!(many.iter().all(|inbox| inbox.put(1)));
        bell.ring(many.clone());
        let mut steps = 0;
        let mut before = 0;
        while before < many.len() {
            tokio::task::yield_now().await;
            let now = woken.load(std::sync::atomic::Ordering::Relaxed);
            assert!(now - before <= 2 * TOGETHER, "{before} to {now}");
            before = now;
            steps += 1;
        }
        assert!(steps >= 1_000 / (2 * TOGETHER), "{steps}");
        shutdown.request("the test is over");
    }

    #[tokio::test]
    async fn an_inbox_hands_out_what_is_in_it_before_it_ends() {
        let inbox = Inbox::new();
        for number in 0..QUEUE {
            assert!(inbox.put(number));
        }
        assert!(!inbox.put(QUEUE));
        for number in 0..QUEUE {
            assert_eq!(inbox.next().await, Some(number));
        }
        assert_eq!((inbox.next().await, inbox.has_lagged()), (None, true));
        let inbox = Inbox::<u8>::new();
        assert!(inbox.next().now_or_never().is_none());
        inbox.end();
        assert_eq!((inbox.next().await, inbox.has_lagged()), (None, false));
    }
}
