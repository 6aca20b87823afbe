//! Random numbers from a seed. Every task has its own stream, so its numbers do not depend on the order in which tasks
//! run that are awake at the same instant.

use std::cell::RefCell;

use tandem_runtime::task::Polls;

/// A stream of random numbers: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Creates the stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, or 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number().checked_rem(bound).unwrap_or_default()
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first) + 1)
    }

    /// True in this many of a thousand cases.
    pub fn happens(&mut self, per_thousand: u64) -> bool {
        self.below(1_000) < per_thousand
    }

    /// One of these things, or `None` if there are none.
    pub fn pick<'a, T>(&mut self, things: &'a [T]) -> Option<&'a T> {
        let index = self.below(things.len() as u64);
        things.get(usize::try_from(index).unwrap_or_default())
    }

    /// Another stream, determined by this one.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }
}

thread_local! {
    /// The stream of the running task.
    static CURRENT: RefCell<Chance> = const { RefCell::new(Chance(0)) };
}

/// Draws from the stream of the running task.
pub fn draw<T>(draw: impl FnOnce(&mut Chance) -> T) -> T {
    CURRENT.with_borrow_mut(draw)
}

/// Begins a run. Code outside of any task draws from this stream.
pub fn begin(chance: Chance) {
    CURRENT.set(chance);
}

/// The stream of one task. It is the current stream while the task runs.
#[derive(Debug)]
pub struct TaskChance(Chance);

impl TaskChance {
    /// A stream that the running task's stream determines.
    #[must_use]
    pub fn fork() -> Self {
        Self(draw(Chance::fork))
    }
}

impl Polls for TaskChance {
    fn enter(&mut self) {
        CURRENT.with_borrow_mut(|current| std::mem::swap(current, &mut self.0));
    }

    fn leave(&mut self) {
        self.enter();
    }
}
