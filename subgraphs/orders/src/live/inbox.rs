//! What waits for one listener, and waking many listeners without keeping others waiting.
//!
//! A change may be for ten thousand. If all of them woke at once, whatever else this process is to do would wait behind them: they are
//! given the change at once, and woken some at a time.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tandem_runtime::shutdown::Shutdown;
use tokio::sync::{Notify, mpsc};

/// Updates that may wait for one subscription.
pub(super) const QUEUE: usize = 1_024;
/// Listeners that are woken together. More would be most of what the threads of the process have to do then.
const TOGETHER: usize = 64;
/// An empty queue with more room than this gives it back.
const ROOM: usize = 8;

/// Where updates wait for a listener.
pub(super) struct Inbox<T> {
    state: Mutex<State<T>>,
    told: Notify,
}

struct State<T> {
    queue: VecDeque<T>,
    has_lagged: bool,
    has_ended: bool,
    /// Whether its turn to be woken comes.
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

    /// Puts an update in, and tells nobody yet. Answers false if there is no room: then the listener hears what is in it, and that it
    /// lagged.
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

    /// Nothing more comes.
    pub(super) fn end(&self) {
        self.state().has_ended = true;
        self.told.notify_one();
    }

    /// The next update; `None` behind the last one. Safe to cancel.
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
            // A word that came before this is kept.
            told.await;
        }
    }

    /// The next update if it is here already.
    pub(super) fn next_ready(&self) -> Option<T> {
        self.state().take()
    }

    /// Whether updates were lost because there was no room.
    pub(super) fn has_lagged(&self) -> bool {
        self.state().has_lagged
    }

    /// Whether its turn to be woken has to be waited for, which this begins.
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

/// Wakes listeners. Each waits for its turn once at most, so what waits has a bound: the listeners.
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

    /// Wakes those whose inboxes were put into: few at once, many some at a time.
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
    /// Begins to wake many some at a time, until the service stops; then all that wait are woken.
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
