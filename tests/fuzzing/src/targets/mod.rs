//! What reads bytes from outside. A target panics when one of its inputs does what it must not.

mod front_door;
mod readers;
mod rest;

/// Reads one input.
pub type Reader = Box<dyn FnMut(&[u8])>;

/// One thing that reads bytes from outside.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    /// Makes what reads; it is kept for all inputs.
    pub open: fn() -> Reader,
    /// The inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const ALL: [Target; 10] = [
    readers::EVENTS,
    readers::HEADERS,
    readers::CURSORS,
    readers::SCALARS,
    readers::TOKENS,
    rest::BODIES,
    front_door::REQUESTS,
    front_door::DOCUMENTS,
    front_door::HEADS,
    front_door::SOCKETS,
];

/// The target of that name.
#[must_use]
pub fn named(name: &str) -> Option<Target> {
    ALL.into_iter().find(|target| target.name == name)
}
