//! Rebuilds a store from the log: every event from the beginning, the newest revision of each aggregate written once.
//!
//! What is rebuilt replaces what is stored aggregate by aggregate, each in one step and never by an older revision. So a
//! reader never sees less than before, commands go on meanwhile on every instance, an interruption at any point leaves
//! nothing half-built, and starting again is always right. `docs/decisions/0003-rebuild-in-place.md` says why this and not a swap.
//!
//! What is stored and the log has not is told, and left as it is: a log that was lost, cut or made anew has little, which says
//! nothing of what is stored. To remove it or to set it back takes an order that names the number. An event is cleared
//! from the store after Kafka has it, so what is stored with nothing pending is in the log *by then*. Hence the order of a look:
//! look at what is stored, then read on to the end of the log, and only then judge.
//!
//! Reading, decoding and writing go on at the same time, each a batch ahead of the next.

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
