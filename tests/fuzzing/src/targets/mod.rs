//! Code that reads bytes from outside. A target panics when it misbehaves on an input.

mod front_door;
mod readers;
mod rest;

/// Reads one input.
pub type Reader = Box<dyn FnMut(&[u8])>;

/// One piece of code that reads bytes from outside.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    /// Makes the reader, which is used for all inputs.
    pub open: fn() -> Reader,
    /// The first inputs.
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

/// The target with this name.
#[must_use]
pub fn named(name: &str) -> Option<Target> {
    ALL.into_iter().find(|target| target.name == name)
}
