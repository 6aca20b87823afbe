//! Rebuilds a store from the log: reads every event from the beginning, and writes the newest revision of each
//! aggregate once.
//!
//! A rebuild replaces the stored aggregates one by one, each in one step and never with an older revision. So a reader
//! never sees less than before, and all instances accept commands in the meantime. An interruption leaves nothing
//! half-built, and starting again is always right. `docs/decisions/0003-rebuild-in-place.md` says why this is not a
//! swap.
//!
//! A rebuild reports what is stored and missing in the log, and leaves it alone. A log that was lost, cut or created
//! again holds little, so it proves nothing about what is stored. Removing or reverting such rows takes an order that
//! names their number. An event is cleared from the store only after Kafka has it, so a row with nothing pending is in
//! the log *by then*. So a look reads the stored rows first, then reads the log to its end, and only then judges.
//!
//! Reading, decoding and writing run at the same time, each one batch ahead of the next.

mod aggregates;
mod cores;
mod error;
mod filling;
mod logged;
mod newest_revisions;
mod opening;
mod order;
mod progress;
mod reading;
mod rebuilt;
mod replay;
mod retry;
mod target;
mod trail;
mod unlogged;
mod unread;
mod writing;

pub use aggregates::{ReadStates, RebuildAggregates};
pub use cores::on_all_cores;
pub use error::RebuildError;
pub use filling::{TruncatedLog, fill_new_store, is_filled, mark_filled};
pub use logged::Keeps;
pub use order::{Lacking, Order, Outcome};
pub use progress::Progress;
pub use rebuilt::{Decoded, Differing, Entries, Rebuilt, content_of};
pub use target::Target;
pub use trail::{LoggedEntry, RebuildTrail};
pub use unread::Unread;
