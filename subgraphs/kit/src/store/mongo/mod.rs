//! The MongoDB store: any number of instances of a service on one database.
//!
//! A service connects once as a [`MongoStore`] and builds on it what it keeps there: [`MongoAggregates`], [`MongoChangeLog`],
//! [`MongoDeadLetters`]. Connecting waits for nobody: a server that is away makes each call an
//! [`Away`](crate::store::StoreError::Away), and it is found again by itself. Call each adapter's `prepare` until it succeeds:
//! it makes the indexes.
//!
//! Times are BSON dates (milliseconds), event ids are BSON binaries of subtype 4 (16 bytes, shown as `UUID("…")`).

mod aggregates;
mod bulk;
mod change_log;
mod connection;
mod dead_letters;
mod documents;
mod error;
mod in_place;
mod lanes;
mod registry;
mod reply;
mod settled;
mod statement;
pub mod term;

pub use aggregates::MongoAggregates;
pub use bulk::{Bulk, Concern, Done, bulk, bulk_with};
pub use change_log::MongoChangeLog;
pub use connection::{MongoStore, SERVER_LIMIT, limited, write_concern};
pub use dead_letters::MongoDeadLetters;
pub use documents::{from_native, native};
pub use error::{ConnectError, away};
pub use in_place::{InPlace, PutInPlace, Wanted, is_up_to_date};
pub use registry::MongoRegistry;
pub use settled::{deletion, settled_page, still_as, stored_revision};
pub use statement::replacement;
