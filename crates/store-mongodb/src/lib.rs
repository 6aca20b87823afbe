//! The MongoDB store, for any number of instances of a service on one database.
//!
//! A service connects once with a [`MongoStore`] and creates its adapters on it: [`MongoAggregates`],
//! [`MongoChangeLog`], [`MongoDeadLetters`]. Connecting does not wait. While a server is unavailable, each call fails
//! with [`Unavailable`](tandem_event_path::store::StoreError::Unavailable); the driver reconnects by itself. Call each adapter's
//! `prepare` until it succeeds: it creates the indexes.
//!
//! Times are BSON dates (milliseconds), event ids are BSON binaries of subtype 4 (16 bytes, shown as `UUID("…")`).

mod aggregates;
mod answers;
mod bulk;
mod change_log;
mod connection;
mod dead_letters;
mod documents;
mod error;
mod group_commit;
mod group_list;
mod group_queue;
mod group_read;
mod in_place;
pub mod inspect;
mod lists;
mod published_row;
mod reason;
mod registry;
mod reply;
mod spans;
mod statement;
pub mod write_epoch;

pub use aggregates::MongoAggregates;
pub use bulk::{Bulk, Concern, Done, bulk, bulk_with};
pub use change_log::MongoChangeLog;
pub use connection::{MongoStore, SERVER_LIMIT, limited, read_page, write_concern};
pub use dead_letters::MongoDeadLetters;
pub use documents::{native, read};
pub use error::{ConnectError, away};
pub use group_read::GroupRead;
pub use in_place::{InPlace, PutInPlace, Wanted, is_up_to_date};
pub use published_row::{deletion, published_page, still_as, stored_revision};
pub use registry::MongoRegistry;
pub use statement::replacement;
