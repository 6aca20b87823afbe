//! Chance from a seed. Every task draws from a stream of its own, so that what one task draws does not depend on the order in which
//! tasks run that are awake at the same instant.

use std::cell::RefCell;

use tandem_runtime::task::Polls;

/// A stream of numbers: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The stream of a seed.
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

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number().checked_rem(bound).unwrap_or_default()
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first) + 1)
    }

    /// True so many times in a thousand.
    pub fn happens(&mut self, per_thousand: u64) -> bool {
        self.below(1_000) < per_thousand
    }

    /// One of these; `None` if there are none.
    pub fn pick<'a, T>(&mut self, things: &'a [T]) -> Option<&'a T> {
        let index = self.below(things.len() as u64);
        things.get(usize::try_from(index).unwrap_or_default())
    }

    /// Another stream, which this one determines.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }
}

thread_local! {
    /// The stream of the task that runs now.
    static CURRENT: RefCell<Chance> = const { RefCell::new(Chance(0)) };
}

/// Draws from the stream of the task that runs now.
pub fn draw<T>(draw: impl FnOnce(&mut Chance) -> T) -> T {
    CURRENT.with_borrow_mut(draw)
}

/// Begins a run: whatever runs in no task draws from this stream.
pub fn begin(chance: Chance) {
    CURRENT.set(chance);
}

/// The stream of one task, which is the current one while the task runs.
#[derive(Debug)]
pub struct TaskChance(Chance);

impl TaskChance {
    /// A stream that the task that runs now determines.
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
